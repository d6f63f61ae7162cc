//! The kernels of a convolution and the choice between them.

use super::{Geometry, coop};
use crate::autograd::Lowered;
use crate::error::{Error, Kind, Result};
use crate::gpu::{
    Access, Caps, DeviceClass, Dispatch, Kernel, Library, Operand, Source, Uniform, grid, grid_for, uniform_block,
};
use crate::ops::WORKGROUP;
use crate::tensor::{DType, TensorType};

static PLAIN: Source = crate::wgsl!("conv2d_plain.wgsl");
static FORWARD: Source = crate::wgsl!("conv2d_forward.wgsl");
static GRAD_INPUT: Source = crate::wgsl!("conv2d_grad_input.wgsl");
static GRAD_WEIGHT: Source = crate::wgsl!("conv2d_grad_weight.wgsl");
static SUM_SPLITS: Source = crate::wgsl!("sum_splits.wgsl");
static SUM_ROWS: Source = crate::wgsl!("sum_rows.wgsl");

macro_rules! library {
    ($name:ident, $file:literal) => {
        static $name: Library = Library { file: $file, text: include_str!(concat!("../../../shaders/lib/", $file)) };
    };
}
library!(SPREAD_SUBGROUP, "spread_subgroup.wgsl");
library!(SPREAD_DIRECT, "spread_direct.wgsl");
library!(ACTIVATION_VEC4, "activation_vec4.wgsl");
library!(ACTIVATION_SCALAR, "activation_scalar.wgsl");
library!(REDUCTION_VEC4, "reduction_vec4.wgsl");
library!(REDUCTION_SCALAR, "reduction_scalar.wgsl");
library!(COLUMNS_IN_VEC4, "columns_in_vec4.wgsl");
library!(COLUMNS_IN_SCALAR, "columns_in_scalar.wgsl");
library!(COLUMNS_OUT_VEC4, "columns_out_vec4.wgsl");
library!(COLUMNS_OUT_SCALAR, "columns_out_scalar.wgsl");
library!(BIAS, "bias.wgsl");

/// Which kernels a convolution uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The fastest that fits the shape and the device.
    #[default]
    Auto,
    /// One invocation for one element.
    Plain,
    /// Register tiles, each lane loading for itself.
    Direct,
    /// Register tiles, loads shared in a subgroup; as `Direct` where the subgroup size is not fixed and small.
    Subgroup,
    /// Cooperative matrices; as `Auto` for f32, for groups, and where the device has none or they were not proven.
    Coop,
}

uniform_block! {
    /// Mirrors `Params` of the convolution shaders but the weight gradient's.
    pub(super) struct Params {
        n: u32, h: u32, w: u32, c: u32,
        k: u32, r: u32, s: u32,
        out_h: u32, out_w: u32,
        stride_h: u32, stride_w: u32,
        pad_top: u32, pad_left: u32,
        dilation_h: u32, dilation_w: u32,
        groups: u32,
    }
}

uniform_block! {
    /// Mirrors `Params` of `conv2d_grad_weight.wgsl` and `conv2d_coop.wgsl`.
    pub(super) struct WeightParams {
        n: u32, h: u32, w: u32, c: u32,
        k: u32, r: u32, s: u32,
        out_h: u32, out_w: u32,
        stride_h: u32, stride_w: u32,
        pad_top: u32, pad_left: u32,
        dilation_h: u32, dilation_w: u32,
        run: u32,
    }
}

uniform_block! {
    /// Mirrors `Params` of `sum_splits.wgsl`.
    struct SplitParams { count: u32, splits: u32 }
}

uniform_block! {
    /// Mirrors `Params` of `sum_rows.wgsl`.
    struct RowParams { rows: u32, columns: u32, run: u32 }
}

impl Geometry {
    /// Whether the f16 variants of the kernels are wanted.
    pub(super) fn half(&self) -> bool {
        self.dtype == DType::F16
    }

    pub(super) fn params(&self) -> Params {
        let conv = self.conv;
        Params {
            n: self.n as u32,
            h: self.h as u32,
            w: self.w as u32,
            c: self.c as u32,
            k: self.k as u32,
            r: self.r as u32,
            s: self.s as u32,
            out_h: self.out_h as u32,
            out_w: self.out_w as u32,
            stride_h: conv.stride[0] as u32,
            stride_w: conv.stride[1] as u32,
            pad_top: conv.padding.top as u32,
            pad_left: conv.padding.left as u32,
            dilation_h: conv.dilation[0] as u32,
            dilation_w: conv.dilation[1] as u32,
            groups: conv.groups as u32,
        }
    }

    /// Every index the kernels compute must fit a word, with room for positions before the first pixel.
    fn check(&self) -> Result<()> {
        let rows = self.h + self.conv.padding.top + self.conv.padding.bottom;
        let columns = self.w + self.conv.padding.left + self.conv.padding.right;
        let elements = (self.n * self.h * self.w * self.c)
            .max(self.n * self.out_h * self.out_w * self.k)
            .max(self.r * self.s * self.c * self.k);
        if elements < 1 << 31 && rows.max(columns) < 1 << 29 {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, "a convolution with more than 2^31 elements in one tensor")
            .next("use a smaller --batch or --size"))
    }
}

/// A register tile: how lanes are laid out and how many rows each keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    lanes_m: u32,
    lanes_n: u32,
    rows: u32,
    columns: u32,
    subgroup: bool,
}

impl Tile {
    /// The tile for a backend on a device; `None` for the plain kernels.
    fn choose(g: &Geometry, caps: &Caps, width: usize) -> Option<Self> {
        let small_subgroup = caps.subgroups.filter(|s| s.min == s.max && [4, 8, 16].contains(&s.min)).map(|s| s.min);
        let subgroup = match g.conv.backend {
            Backend::Plain => return None,
            Backend::Direct => None,
            Backend::Subgroup => small_subgroup,
            Backend::Auto | Backend::Coop => small_subgroup.filter(|_| caps.class == DeviceClass::Software),
        };
        if g.conv.groups != 1 {
            return None;
        }
        Some(match subgroup {
            // A load of a lane's own address costs a driver in software about twenty products, and the rows of a tile
            // share theirs: tall tiles, even where their sums no longer fit the CPU's registers.
            Some(lanes_n) => Self { lanes_m: 1, lanes_n, rows: 4 * lanes_n, columns: 4, subgroup: true },
            None if width <= 16 => Self { lanes_m: 32, lanes_n: 2, rows: 4, columns: 8, subgroup: false },
            None => Self { lanes_m: 8, lanes_n: 8, rows: 8, columns: 8, subgroup: false },
        })
    }

    /// No taller than `rows` need.
    fn fitted(self, rows: usize) -> Self {
        let step = if self.subgroup { self.lanes_n } else { self.rows };
        let needed = (rows.min(self.rows as usize) as u32).next_multiple_of(step);
        Self { rows: self.rows.min(needed), ..self }
    }

    /// With whole blocks of `vector` rows for each lane that loads.
    fn in_blocks(self, vector: u32) -> Self {
        let step = vector * if self.subgroup { self.lanes_n } else { 1 };
        Self { rows: (self.rows / step * step).max(step), ..self }
    }

    /// Adds what every tiled kernel needs; a load takes `vector` channels.
    fn apply(self, kernel: Kernel, vector: u32) -> Kernel {
        let kernel = kernel
            .with_u32("LANES_M", self.lanes_m)
            .with_u32("LANES_N", self.lanes_n)
            .with_u32("ROWS", self.rows)
            .with_u32("COLUMNS", self.columns)
            .with_u32("XV", vector)
            .with_library(if vector == 4 { &ACTIVATION_VEC4 } else { &ACTIVATION_SCALAR });
        if self.subgroup {
            kernel.with_library(&SPREAD_SUBGROUP).with_subgroups()
        } else {
            kernel.with_library(&SPREAD_DIRECT)
        }
    }

    /// Row tiles folded into x and y, column tiles times `phases` in z.
    fn grid(self, rows: usize, width: usize, phases: usize) -> [u32; 3] {
        let [row_tiles, column_tiles] = self.groups(rows, width);
        let [x, y, _] = grid(u64::from(row_tiles));
        [x, y, column_tiles * phases as u32]
    }

    fn groups(self, rows: usize, width: usize) -> [u32; 2] {
        [
            rows.div_ceil((self.lanes_m * self.rows) as usize) as u32,
            width.div_ceil((self.lanes_n * self.columns) as usize) as u32,
        ]
    }
}

/// How many of `channels` a load takes: the most that divides them, up to four.
fn vector_of(channels: usize) -> u32 {
    [4, 3, 2].into_iter().find(|v| channels.is_multiple_of(*v)).unwrap_or(1) as u32
}

pub(super) fn pick(condition: bool, a: &'static Library, b: &'static Library) -> &'static Library {
    if condition { a } else { b }
}

pub(super) fn forward(g: &Geometry, has_bias: bool, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    let rows = g.n * g.out_h * g.out_w;
    let dispatch = match (coop::forward(g, has_bias, caps), Tile::choose(g, caps, g.k)) {
        (Some(dispatch), _) => dispatch,
        (None, None) => {
            let kernel = Kernel::new(&PLAIN, "forward").with_half(g.half()).with_bool("HAS_BIAS", has_bias);
            Dispatch::new(kernel, g.params().block(), grid_for(rows * g.k, WORKGROUP))
        }
        (None, Some(tile)) => {
            let tile = tile.fitted(rows);
            let vec4 = g.k.is_multiple_of(4);
            let kernel = tile
                .apply(Kernel::new(&FORWARD, "forward").with_half(g.half()), vector_of(g.c))
                .with_bool("HAS_BIAS", has_bias)
                .with_library(pick(vec4, &COLUMNS_IN_VEC4, &COLUMNS_IN_SCALAR))
                .with_library(pick(vec4, &COLUMNS_OUT_VEC4, &COLUMNS_OUT_SCALAR))
                .with_library(&BIAS);
            Dispatch::new(kernel, g.params().block(), tile.grid(rows, g.k, 1)).specialised()
        }
    };
    // Without a bias its binding holds the weight, which the kernel then never reads through it.
    let dispatch = dispatch.input(0).input(1).input(if has_bias { 2 } else { 1 }).output(0);
    Ok(Lowered::one(dispatch.work(2 * g.macs(), bytes(g))))
}

pub(super) fn grad_input(g: &Geometry, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    let dispatch = match (coop::grad_input(g, caps), Tile::choose(g, caps, g.c)) {
        (Some(dispatch), _) => dispatch.input(0).input(1).output(0),
        (None, None) => {
            let kernel = Kernel::new(&PLAIN, "grad_input").with_half(g.half()).with_bool("HAS_BIAS", false);
            let grid = grid_for(g.n * g.h * g.w * g.c, WORKGROUP);
            Dispatch::new(kernel, g.params().block(), grid).input(0).input(1).output(0)
        }
        (None, Some(tile)) => {
            let [stride_h, stride_w] = g.conv.stride;
            // The largest phase decides; workgroups past the end of a smaller one leave at once.
            let rows = g.n * g.h.div_ceil(stride_h) * g.w.div_ceil(stride_w);
            let tile = tile.fitted(rows);
            let vector = vector_of(g.k);
            let kernel = tile
                .apply(Kernel::new(&GRAD_INPUT, "grad_input").with_half(g.half()), vector)
                .with_library(pick(vector == 4, &REDUCTION_VEC4, &REDUCTION_SCALAR))
                .with_library(pick(g.c.is_multiple_of(4), &COLUMNS_OUT_VEC4, &COLUMNS_OUT_SCALAR));
            let grid = tile.grid(rows, g.c, stride_h * stride_w);
            Dispatch::new(kernel, g.params().block(), grid).specialised().input(0).input(1).output(0)
        }
    };
    Ok(Lowered::one(dispatch.work(2 * g.macs(), bytes(g))))
}

/// Result workgroups to aim for when a reduction is split: enough to fill the device.
pub(super) fn wanted_groups(caps: &Caps) -> usize {
    match caps.class {
        DeviceClass::Software => 64,
        DeviceClass::Integrated | DeviceClass::Other => 256,
        DeviceClass::Discrete | DeviceClass::Virtual => 1024,
    }
}

/// Partial results of one weight gradient may take this much memory.
pub(super) const MAX_PARTIAL_BYTES: usize = 32 << 20;
/// Shorter runs are not worth a partial result.
pub(super) const MIN_RUN: usize = 64;

pub(super) fn grad_weight(g: &Geometry, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    if let Some(lowered) = coop::grad_weight(g, caps) {
        return Ok(lowered);
    }
    let rows = g.r * g.s * g.c / g.conv.groups;
    let count = rows * g.k;
    let Some(tile) = Tile::choose(g, caps, g.k) else {
        let kernel = Kernel::new(&PLAIN, "grad_weight").with_half(g.half()).with_bool("HAS_BIAS", false);
        let dispatch = Dispatch::new(kernel, g.params().block(), grid_for(count, WORKGROUP));
        let dispatch = dispatch.input(0).input(1).output(0);
        return Ok(Lowered::one(dispatch.work(2 * g.macs(), bytes(g))));
    };
    let pixels = g.n * g.out_h * g.out_w;
    let vector = vector_of(g.c);
    let tile = tile.in_blocks(vector);
    let [x, y] = tile.groups(rows, g.k);
    let splits =
        (wanted_groups(caps) / (x * y) as usize).min(MAX_PARTIAL_BYTES / (4 * count)).min(pixels / MIN_RUN).max(1);
    let run = pixels.div_ceil(splits);
    let splits = pixels.div_ceil(run);
    let vec4 = g.k.is_multiple_of(4);
    let kernel = tile
        .apply(Kernel::new(&GRAD_WEIGHT, "grad_weight").with_half(g.half()), vector)
        .with_u32("PIXELS", if tile.subgroup { 4 } else { 1 })
        .with_library(pick(vec4, &COLUMNS_IN_VEC4, &COLUMNS_IN_SCALAR))
        .with_library(pick(vec4, &COLUMNS_OUT_VEC4, &COLUMNS_OUT_SCALAR));
    let params: WeightParams = bytemuck::cast(Params { groups: run as u32, ..g.params() });
    let product = Dispatch::new(kernel, params.block(), [x, y, splits as u32])
        .specialised()
        .input(0)
        .input(1)
        .work(2 * g.macs(), bytes(g));
    if splits == 1 {
        return Ok(Lowered::one(product.output(0)));
    }
    Ok(Lowered {
        scratch: vec![TensorType::f32([splits, rows, g.k])],
        dispatches: vec![product.bind(Operand::Scratch(0), Access::ReadWrite), sum_splits(count, splits)],
    })
}

/// Adds the partial results in the first scratch tensor, in order.
pub(super) fn sum_splits(count: usize, splits: usize) -> Dispatch {
    let params = SplitParams { count: count as u32, splits: splits as u32 };
    Dispatch::new(Kernel::new(&SUM_SPLITS, "forward"), params.block(), grid_for(count, WORKGROUP))
        .bind(Operand::Scratch(0), Access::Read)
        .output(0)
        .work((splits * count) as u64, 4 * ((splits + 1) * count) as u64)
}

/// Rows summed by one invocation.
const BIAS_RUN: usize = 256;

pub(super) fn grad_bias(d_y: &TensorType) -> Lowered {
    let (rows, columns) = (d_y.shape.rows(), d_y.shape.last());
    let runs = rows.div_ceil(BIAS_RUN);
    let launch = |rows: usize, run: usize, half: bool| {
        let params = RowParams { rows: rows as u32, columns: columns as u32, run: run as u32 };
        let groups = [columns.div_ceil(WORKGROUP as usize) as u32, rows.div_ceil(run) as u32, 1];
        Dispatch::new(Kernel::new(&SUM_ROWS, "forward").with_half(half), params.block(), groups)
            .work((rows * columns) as u64, if half { 2 } else { 4 } * (rows * columns) as u64)
    };
    if runs == 1 {
        return Lowered::one(launch(rows, rows, d_y.is_half()).input(0).output(0));
    }
    Lowered {
        scratch: vec![TensorType::f32([runs, columns])],
        dispatches: vec![
            launch(rows, BIAS_RUN, d_y.is_half()).input(0).bind(Operand::Scratch(0), Access::ReadWrite),
            launch(runs, runs, false).bind(Operand::Scratch(0), Access::Read).output(0),
        ],
    }
}

/// Bytes that must move at least: activations, result and weight once.
pub(super) fn bytes(g: &Geometry) -> u64 {
    let x = g.n * g.h * g.w * g.c;
    let y = g.n * g.out_h * g.out_w * g.k;
    (g.dtype.size() * (x + y + g.r * g.s * g.c / g.conv.groups * g.k)) as u64
}
