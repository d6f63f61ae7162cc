//! The kernels of a convolution and the choice between them.

use super::choice::{Backend, Choice, Product, WorkgroupTile, small_subgroup};
use super::{Geometry, coop, depthwise};
use crate::autograd::Lowered;
use crate::error::{Error, Kind, Result};
use crate::gpu::{
    Access, Caps, DeviceClass, Dispatch, Kernel, Library, Operand, Reading, Source, Texel, Uniform, grid, grid_for,
    uniform_block,
};
use crate::ops::{Tail, WORKGROUP, check_loop};
use crate::tensor::{DType, TensorType};

static PLAIN: Source = crate::wgsl!("conv2d_plain.wgsl", CONV_PARAMS);
static FORWARD: Source = crate::wgsl!("conv2d_forward.wgsl", CONV_PARAMS);
static GRAD_INPUT: Source = crate::wgsl!("conv2d_grad_input.wgsl", CONV_PARAMS);
static GRAD_WEIGHT: Source = crate::wgsl!("conv2d_grad_weight.wgsl", CONV_PARAMS);
static TILE_FORWARD: Source = crate::wgsl!("conv2d_tile_forward.wgsl", CONV_PARAMS, TILE);
static TILE_GRAD_INPUT: Source = crate::wgsl!("conv2d_tile_grad_input.wgsl", CONV_PARAMS, TILE);
static TILE_GRAD_WEIGHT: Source = crate::wgsl!("conv2d_tile_grad_weight.wgsl", CONV_PARAMS, TILE);
static SUM_SPLITS: Source = crate::wgsl!("sum_splits.wgsl");
static SUM_ROWS: Source = crate::wgsl!("sum_rows.wgsl");

crate::library!(pub(super) CONV_PARAMS, "conv_params.wgsl");
crate::library!(TILE, "tile.wgsl");
crate::library!(SPREAD_SUBGROUP, "spread_subgroup.wgsl");
crate::library!(SPREAD_DIRECT, "spread_direct.wgsl");
crate::library!(pub(super) ACTIVATION_VEC4, "activation_vec4.wgsl");
crate::library!(ACTIVATION_SCALAR, "activation_scalar.wgsl");
crate::library!(REDUCTION_VEC4, "reduction_vec4.wgsl");
crate::library!(REDUCTION_SCALAR, "reduction_scalar.wgsl");
crate::library!(pub(super) COLUMNS_IN_VEC4, "columns_in_vec4.wgsl");
crate::library!(COLUMNS_IN_SCALAR, "columns_in_scalar.wgsl");
crate::library!(pub(super) COLUMNS_OUT_VEC4, "columns_out_vec4.wgsl");
crate::library!(COLUMNS_OUT_SCALAR, "columns_out_scalar.wgsl");
crate::library!(BIAS, "bias.wgsl");
crate::library!(RECTIFY, "rectify.wgsl");
crate::library!(ROUNDED, "rounded.wgsl");
crate::library!(TAIL, "tail.wgsl");
crate::library!(TAIL_RESIDUAL_VEC4, "tail_residual_vec4.wgsl");
crate::library!(TAIL_RESIDUAL_SCALAR, "tail_residual_scalar.wgsl");
crate::library!(FINISHED, "finished.wgsl");
crate::library!(FINISHED_RESIDUAL, "finished_residual.wgsl");
crate::library!(STATISTICS, "statistics.wgsl");
crate::library!(STATISTICS_ROWS, "statistics_rows.wgsl");
crate::library!(STATISTICS_TILE, "statistics_tile.wgsl");
crate::library!(STATISTICS_NONE, "statistics_none.wgsl");

uniform_block! {
    /// Mirrors `Params` of `lib/conv_params.wgsl`.
    pub(super) struct Params {
        n: u32, h: u32, w: u32, c: u32,
        k: u32, r: u32, s: u32,
        out_h: u32, out_w: u32,
        stride_h: u32, stride_w: u32,
        pad_top: u32, pad_left: u32,
        dilation_h: u32, dilation_w: u32,
        groups: u32,
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
            run: 0,
        }
    }

    /// As [`params`](Self::params), of a kernel that sums a run of the reduction.
    pub(super) fn params_of_run(&self, run: usize) -> Params {
        Params { run: run as u32, ..self.params() }
    }

    pub(super) fn x_elements(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    pub(super) fn y_elements(&self) -> usize {
        self.n * self.out_h * self.out_w * self.k
    }

    pub(super) fn weight_elements(&self) -> usize {
        self.r * self.s * self.c / self.conv.groups * self.k
    }

    /// Every index the kernels compute must fit a word, with room for positions before the first pixel.
    fn check(&self) -> Result<()> {
        let rows = self.h + self.conv.padding.top + self.conv.padding.bottom;
        let columns = self.w + self.conv.padding.left + self.conv.padding.right;
        let elements = self.x_elements().max(self.y_elements()).max(self.weight_elements());
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
    /// Whether it reads from copies in textures.
    textures: bool,
}

impl Tile {
    /// The tile for a backend on a device; `None` for other kernels.
    fn of(backend: Backend, caps: &Caps, width: usize) -> Option<Self> {
        Some(match (backend, small_subgroup(caps)) {
            // A load of a lane's own address costs a driver in software about twenty products, and the rows of a tile
            // share theirs: tall tiles, even where their sums no longer fit the CPU's registers.
            (Backend::Subgroup | Backend::Texture, Some(lanes_n)) => Self {
                lanes_m: 1,
                lanes_n,
                rows: 4 * lanes_n,
                columns: 4,
                subgroup: true,
                textures: backend == Backend::Texture,
            },
            (Backend::Direct, _) if width <= 16 => {
                Self { lanes_m: 32, lanes_n: 2, rows: 4, columns: 8, subgroup: false, textures: false }
            }
            (Backend::Direct, _) => {
                Self { lanes_m: 8, lanes_n: 8, rows: 8, columns: 8, subgroup: false, textures: false }
            }
            _ => return None,
        })
    }

    /// No taller than `rows` need.
    fn fitted(self, rows: usize) -> Self {
        let step = if self.subgroup { self.lanes_n } else { self.rows };
        let needed = (rows.min(self.rows as usize) as u32).next_multiple_of(step);
        Self { rows: self.rows.min(needed), ..self }
    }

    /// Pixels that the weight's gradient takes in a round of its loop.
    fn pixels(self) -> u32 {
        if self.subgroup { 4 } else { 1 }
    }

    /// With whole blocks of `vector` rows for each lane that loads.
    fn in_blocks(self, vector: u32) -> Self {
        let step = vector * if self.subgroup { self.lanes_n } else { 1 };
        Self { rows: (self.rows / step * step).max(step), ..self }
    }

    /// Adds what every tiled kernel needs, for a result of `rows` by `width`; a load takes `vector` channels. Where
    /// only whole tiles are launched no lane asks whether there is a place for a result: a driver in software would
    /// ask for each one.
    fn apply(self, kernel: Kernel, vector: u32, rows: usize, width: usize) -> Kernel {
        let [row_tiles, _] = self.groups(rows, width);
        let [x, y, _] = grid(u64::from(row_tiles));
        let whole_rows = rows.is_multiple_of((self.lanes_m * self.rows) as usize) && x * y == row_tiles;
        let kernel = kernel
            .with_bool("WHOLE_ROWS", whole_rows)
            .with_bool("WHOLE_COLUMNS", width.is_multiple_of((self.lanes_n * self.columns) as usize))
            .with_u32("LANES_M", self.lanes_m)
            .with_u32("LANES_N", self.lanes_n)
            .with_u32("ROWS", self.rows)
            .with_u32("COLUMNS", self.columns)
            .with_u32("XV", vector)
            .with_library(pick(vector == 4, &ACTIVATION_VEC4, &ACTIVATION_SCALAR));
        if self.subgroup {
            kernel.with_library(&SPREAD_SUBGROUP).with_subgroups()
        } else {
            kernel.with_library(&SPREAD_DIRECT)
        }
    }

    /// Row tiles folded into x and y, column tiles times `phases` in z.
    fn grid(self, rows: usize, width: usize, phases: usize) -> [u32; 3] {
        tile_grid(self.groups(rows, width), phases)
    }

    fn groups(self, rows: usize, width: usize) -> [u32; 2] {
        [
            rows.div_ceil((self.lanes_m * self.rows) as usize) as u32,
            width.div_ceil((self.lanes_n * self.columns) as usize) as u32,
        ]
    }
}

/// Row tiles folded into x and y, column tiles times `parts` (phases, runs) in z.
pub(super) fn tile_grid([row_tiles, column_tiles]: [u32; 2], parts: usize) -> [u32; 3] {
    let [x, y, _] = grid(u64::from(row_tiles));
    [x, y, column_tiles * parts as u32]
}

impl WorkgroupTile {
    /// Adds what every kernel in workgroup tiles needs, for a result of `width` columns; a load takes `vector`
    /// channels, four or one.
    fn apply(self, kernel: Kernel, vector: u32, width: usize) -> Kernel {
        kernel
            .with_bool("WHOLE_COLUMNS", width.is_multiple_of(self.bn as usize))
            .with_u32("BM", self.bm)
            .with_u32("BN", self.bn)
            .with_u32("BK", self.bk)
            .with_u32("TM", self.tm)
            .with_u32("TN", self.tn)
            .with_u32("XV", vector)
            .with_library(pick(vector == 4, &ACTIVATION_VEC4, &ACTIVATION_SCALAR))
    }

    /// As [`Tile::grid`].
    fn grid(self, rows: usize, width: usize, phases: usize) -> [u32; 3] {
        tile_grid(self.groups(rows, width), phases)
    }
}

/// Binds the two factors, which the libraries load four or one at a time, from buffers or from textures: a name, the
/// elements, and whether the last dimension of it is a multiple of four.
pub(super) fn factors(
    dispatch: Dispatch,
    g: &Geometry,
    textures: bool,
    factors: [(&'static str, usize, bool); 2],
) -> Dispatch {
    factors.into_iter().enumerate().fold(dispatch, |dispatch, (i, (name, elements, four))| {
        let texel = Texel { four, half: g.half() };
        let reading = Reading { texel, copied: textures.then_some(elements) };
        dispatch.load(name, Operand::Input(i), reading)
    })
}

/// How many of `channels` a load takes into workgroup memory: four, or one.
fn four_or_one(channels: usize) -> u32 {
    if channels.is_multiple_of(4) { 4 } else { 1 }
}

/// How many of `channels` a kernel takes in a round of its loop, at least.
fn at_once(backend: Backend, channels: usize) -> usize {
    match backend {
        Backend::Plain | Backend::Depthwise | Backend::Strip(_) | Backend::Auto => 1,
        Backend::Direct | Backend::Subgroup | Backend::Texture => vector_of(channels) as usize,
        Backend::Workgroup(_) | Backend::Coop(_) => 4,
    }
}

/// How many of `channels` a load takes: the most that divides them, up to four.
fn vector_of(channels: usize) -> u32 {
    [4, 3, 2].into_iter().find(|v| channels.is_multiple_of(*v)).unwrap_or(1) as u32
}

pub(super) fn pick(condition: bool, a: &'static Library, b: &'static Library) -> &'static Library {
    if condition { a } else { b }
}

/// Fewer rows to a run are not worth what is written for it.
const MIN_STATISTICS_RUN: usize = 16;

/// How many rows of the result the kernel of the forward pass can sum up at a time; `None` if it cannot, or if few.
pub(super) fn statistics_run(g: &Geometry, caps: &Caps) -> Option<usize> {
    let choice = Choice::make(g, Product::Forward, caps);
    let matrices = choice.backend.matrices(g, Product::Forward, caps);
    let rows = g.n * g.out_h * g.out_w;
    let run = match (choice.backend, matrices, Tile::of(choice.backend, caps, g.k)) {
        (Backend::Coop(_), Some(tile), _) => tile.statistics_run()?,
        // Merging takes the room that the slabs have.
        (Backend::Workgroup(tile), ..) if tile.bm.max(tile.bn) <= tile.tm * tile.bk => tile.bm,
        (Backend::Workgroup(_), ..) | (.., None) => return None,
        (.., Some(tile)) => tile.fitted(rows).rows,
    };
    (g.k.is_multiple_of(4) && run as usize >= MIN_STATISTICS_RUN).then_some(run as usize)
}

/// Inputs: x, the weight, the bias if there is one, the residual if there is one. With `statistics` there are two more
/// outputs, those of runs of [`statistics_run`] rows.
pub(super) fn forward(g: &Geometry, has_bias: bool, fused: Tail, statistics: bool, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    let rows = g.n * g.out_h * g.out_w;
    let choice = Choice::make(g, Product::Forward, caps);
    check_loop(taps(g) + g.r * g.s * (g.c / g.conv.groups) / at_once(choice.backend, g.c), caps)?;
    let vec4 = g.k.is_multiple_of(4);
    let in_factors = |dispatch: Dispatch, textures: bool| {
        let factor = |name, elements, channels: usize| (name, elements, channels.is_multiple_of(4));
        let x = factor("activations", g.x_elements(), g.c);
        factors(dispatch.specialised(), g, textures, [x, factor("columns_in", g.weight_elements(), g.k)])
    };
    let tail = |kernel: Kernel| {
        let residual = pick(vec4, &TAIL_RESIDUAL_VEC4, &TAIL_RESIDUAL_SCALAR);
        with_tail(kernel.with_library(&BIAS), has_bias, fused, residual, &TAIL)
    };
    let columns =
        |kernel: Kernel, keep: &'static Library| {
            let kernel = tail(kernel)
                .with_library(pick(vec4, &COLUMNS_IN_VEC4, &COLUMNS_IN_SCALAR))
                .with_library(pick(vec4, &COLUMNS_OUT_VEC4, &COLUMNS_OUT_SCALAR));
            if statistics {
                kernel.with_library(&STATISTICS).with_library(keep)
            } else {
                kernel.with_library(&STATISTICS_NONE)
            }
        };
    let matrices = choice.backend.matrices(g, Product::Forward, caps);
    let dispatch = match (choice.backend, matrices, Tile::of(choice.backend, caps, g.k)) {
        (Backend::Coop(_), Some(tile), _) => {
            coop::forward(tile, g, statistics, finished(has_bias, fused)).input(0).input(1)
        }
        (Backend::Workgroup(tile), ..) => {
            let kernel = tile.apply(Kernel::new(&TILE_FORWARD, "forward"), four_or_one(g.c), g.k);
            let kernel = columns(kernel, &STATISTICS_TILE);
            in_factors(Dispatch::new(kernel, g.params().block(), tile.grid(rows, g.k, 1)), false)
        }
        (Backend::Depthwise | Backend::Strip(_), ..) => depthwise::map(g, Product::Forward, &choice, caps, tail),
        (.., None) => {
            let kernel = finished(has_bias, fused)(Kernel::new(&PLAIN, "forward"));
            Dispatch::new(kernel, g.params().block(), grid_for(rows * g.k, WORKGROUP)).input(0).input(1)
        }
        (.., Some(tile)) => {
            let tile = tile.fitted(rows);
            let kernel = tile.apply(Kernel::new(&FORWARD, "forward"), vector_of(g.c), rows, g.k);
            let kernel = columns(kernel, &STATISTICS_ROWS);
            in_factors(Dispatch::new(kernel, g.params().block(), tile.grid(rows, g.k, 1)), tile.textures)
        }
    };
    // Without a bias its binding holds the weight, which the kernel then never reads through it.
    let mut dispatch = dispatch.input(if has_bias { 2 } else { 1 }).output(0);
    dispatch.kernel.half = g.half();
    let mut moved = bytes(g);
    if fused.residual {
        dispatch = dispatch.input(2 + usize::from(has_bias));
        moved += g.y().bytes();
    }
    if statistics {
        dispatch = dispatch.output(1).output(2);
    }
    Ok(Lowered::one(dispatch.work(2 * g.macs(), moved)))
}

/// Adds what a kernel that stores single elements does with each of them.
fn finished(has_bias: bool, fused: Tail) -> impl Fn(Kernel) -> Kernel {
    move |kernel| with_tail(kernel, has_bias, fused, &FINISHED_RESIDUAL, &FINISHED)
}

/// Adds what is done behind a product, by one library if there is a residual, by another if not.
fn with_tail(
    kernel: Kernel,
    has_bias: bool,
    fused: Tail,
    residual: &'static Library,
    without: &'static Library,
) -> Kernel {
    let kernel = kernel.with_bool("HAS_BIAS", has_bias).with_bool("RELU", fused.relu).with_library(&RECTIFY);
    if fused.residual { kernel.with_library(&ROUNDED).with_library(residual) } else { kernel.with_library(without) }
}

/// A plain kernel of a gradient.
fn plain(entry: &'static str) -> Kernel {
    finished(false, Tail::default())(Kernel::new(&PLAIN, entry))
}

pub(super) fn grad_input(g: &Geometry, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    let choice = Choice::make(g, Product::GradInput, caps);
    check_loop(taps(g) + g.r * g.s * (g.k / g.conv.groups) / at_once(choice.backend, g.k), caps)?;
    let [stride_h, stride_w] = g.conv.stride;
    let phases = stride_h * stride_w;
    // The largest phase decides; workgroups past the end of a smaller one leave at once.
    let rows = g.n * g.h.div_ceil(stride_h) * g.w.div_ceil(stride_w);
    let in_factors = |dispatch: Dispatch, textures: bool| {
        let factor = |name, elements| (name, elements, g.k.is_multiple_of(4));
        let d_y = factor("activations", g.y_elements());
        factors(dispatch.specialised(), g, textures, [d_y, factor("reduction_in", g.weight_elements())])
    };
    let columns = |kernel: Kernel, vector: u32| {
        kernel.with_library(pick(vector == 4, &REDUCTION_VEC4, &REDUCTION_SCALAR)).with_library(pick(
            g.c.is_multiple_of(4),
            &COLUMNS_OUT_VEC4,
            &COLUMNS_OUT_SCALAR,
        ))
    };
    let matrices = choice.backend.matrices(g, Product::GradInput, caps);
    let dispatch = match (choice.backend, matrices, Tile::of(choice.backend, caps, g.c)) {
        (Backend::Coop(_), Some(tile), _) => coop::grad_input(tile, g).input(0).input(1),
        (Backend::Workgroup(tile), ..) => {
            let vector = four_or_one(g.k);
            let kernel = columns(tile.apply(Kernel::new(&TILE_GRAD_INPUT, "grad_input"), vector, g.c), vector);
            in_factors(Dispatch::new(kernel, g.params().block(), tile.grid(rows, g.c, phases)), false)
        }
        (Backend::Depthwise | Backend::Strip(_), ..) => {
            depthwise::map(g, Product::GradInput, &choice, caps, |kernel| kernel)
        }
        (.., None) => {
            let kernel = plain("grad_input");
            Dispatch::new(kernel, g.params().block(), grid_for(g.x_elements(), WORKGROUP)).input(0).input(1)
        }
        (.., Some(tile)) => {
            let tile = tile.fitted(rows);
            let vector = vector_of(g.k);
            // The phases of a stride differ in how many rows they have. A single row is never a whole tile.
            let rows_of_each = if phases == 1 { rows } else { 1 };
            let kernel = tile.apply(Kernel::new(&GRAD_INPUT, "grad_input"), vector, rows_of_each, g.c);
            let kernel = columns(kernel, vector);
            in_factors(Dispatch::new(kernel, g.params().block(), tile.grid(rows, g.c, phases)), tile.textures)
        }
    };
    let mut dispatch = dispatch.output(0);
    dispatch.kernel.half = g.half();
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
/// Pixels of a run at most (see [`LONGEST_LOOP`](crate::ops::LONGEST_LOOP)); `RUN` of the plain kernel.
pub(super) const MAX_RUN: usize = 1 << 15;
/// Shorter runs are not worth a partial result.
pub(super) const MIN_RUN: usize = 64;

/// The most runs the reduction of a weight gradient may be cut into.
pub(super) fn most_splits(g: &Geometry) -> usize {
    let count = g.r * g.s * g.c / g.conv.groups * g.k;
    (MAX_PARTIAL_BYTES / (4 * count)).min(g.n * g.out_h * g.out_w / MIN_RUN).max(1)
}

/// The runs of a weight gradient: those of the choice, or as many as fill the device.
pub(super) fn splits(g: &Geometry, choice: &Choice, caps: &Caps) -> usize {
    let rows = g.r * g.s * g.c / g.conv.groups;
    let matrices = choice.backend.matrices(g, Product::GradWeight, caps);
    let [x, y] = match (choice.backend, matrices, Tile::of(choice.backend, caps, g.k)) {
        (Backend::Workgroup(tile), ..) => tile.groups(rows, g.k),
        (Backend::Coop(_), Some(tile), _) => tile.groups(rows, g.k),
        (Backend::Depthwise, ..) => depthwise::pixel_groups(g),
        (.., Some(tile)) => tile.in_blocks(vector_of(g.c)).groups(rows, g.k),
        (.., None) => return 1,
    };
    let wanted = choice.splits.unwrap_or(wanted_groups(caps) / (x * y) as usize).min(most_splits(g));
    wanted.max((g.n * g.out_h * g.out_w).div_ceil(MAX_RUN)).max(1)
}

/// Rounds of the loops over a window's rows and columns, and of what those within them make to find their ends.
fn taps(g: &Geometry) -> usize {
    2 * (1 + g.r * (1 + g.s))
}

/// Rounds of all loops that an invocation of a register tile or of a workgroup's makes as far as they count with run-time
/// checks, or some more. On Mesa 22.3 the first wrong result was found by trying: each step of a register tile takes two more
/// rounds than the tile has rows, since a loop's end takes one and shorter loops are unrolled all the same. None of other
/// kernels.
pub(super) fn loop_rounds(g: &Geometry, product: Product, choice: &Choice, caps: &Caps) -> usize {
    let (width, channels) = match product {
        Product::Forward => (g.k, g.c),
        Product::GradInput => (g.c, g.k),
        Product::GradWeight => (g.k, 1),
    };
    let reduction = match product {
        Product::Forward | Product::GradInput => g.r * g.s * channels,
        Product::GradWeight => (g.n * g.out_h * g.out_w).div_ceil(splits(g, choice, caps)),
    };
    let (at_once, rows) = match (choice.backend, Tile::of(choice.backend, caps, width)) {
        (Backend::Workgroup(tile), _) => (1, 4 * tile.tm as usize),
        (_, None) => return 0,
        (_, Some(tile)) if product == Product::GradWeight => (tile.pixels() as usize, tile.rows as usize),
        (_, Some(tile)) => (vector_of(channels) as usize, tile.rows as usize),
    };
    // Around it: the taps, and each row before and behind.
    reduction.div_ceil(at_once) * (2 + rows) + taps(g) + 3 * rows
}

pub(super) fn grad_weight(g: &Geometry, caps: &Caps) -> Result<Lowered> {
    g.check()?;
    let choice = Choice::make(g, Product::GradWeight, caps);
    let rows = g.r * g.s * g.c / g.conv.groups;
    let count = rows * g.k;
    let pixels = g.n * g.out_h * g.out_w;
    let vec4 = g.k.is_multiple_of(4);
    let columns = |kernel: Kernel| {
        kernel.with_library(pick(vec4, &COLUMNS_IN_VEC4, &COLUMNS_IN_SCALAR)).with_library(pick(
            vec4,
            &COLUMNS_OUT_VEC4,
            &COLUMNS_OUT_SCALAR,
        ))
    };
    let matrices = choice.backend.matrices(g, Product::GradWeight, caps);
    let tile = Tile::of(choice.backend, caps, g.k);
    let textures = tile.is_some_and(|tile| tile.textures);
    let (kernel, [x, y]) = match (choice.backend, matrices, tile) {
        (Backend::Coop(_), Some(tile), _) => {
            return Ok(coop::grad_weight(tile, g, splits(g, &choice, caps)));
        }
        (Backend::Workgroup(tile), ..) => {
            let kernel = tile.apply(Kernel::new(&TILE_GRAD_WEIGHT, "grad_weight"), four_or_one(g.c), g.k);
            (columns(kernel), tile.groups(rows, g.k))
        }
        (Backend::Depthwise | Backend::Strip(_), ..) => {
            let (mut product, runs) = depthwise::grad_weight(g, &choice, caps);
            product.kernel.half = g.half();
            return Ok(in_splits(product.work(2 * g.macs(), bytes(g)), count, runs));
        }
        (.., Some(tile)) => {
            let vector = vector_of(g.c);
            let tile = tile.in_blocks(vector);
            let kernel = tile.apply(Kernel::new(&GRAD_WEIGHT, "grad_weight"), vector, rows, g.k);
            let kernel = kernel.with_u32("PIXELS", tile.pixels());
            (columns(kernel), tile.groups(rows, g.k))
        }
        (.., None) => {
            let kernel = plain("grad_weight").with_half(g.half());
            let [x, y, _] = grid_for(count, WORKGROUP);
            let splits = pixels.div_ceil(MAX_RUN);
            let product = Dispatch::new(kernel, g.params().block(), [x, y, splits as u32]);
            return Ok(in_splits(product.input(0).input(1).work(2 * g.macs(), bytes(g)), count, splits));
        }
    };
    let run = pixels.div_ceil(splits(g, &choice, caps));
    let splits = pixels.div_ceil(run);
    let kernel = kernel.with_half(g.half());
    let product = Dispatch::new(kernel, g.params_of_run(run).block(), [x, y, splits as u32]).specialised();
    let x = ("activations", g.x_elements(), g.c.is_multiple_of(4));
    let product = factors(product, g, textures, [x, ("columns_in", g.y_elements(), vec4)]);
    let product = product.work(2 * g.macs(), bytes(g));
    Ok(in_splits(product, count, splits))
}

/// A weight gradient of `count` elements whose reduction is cut into `splits` runs.
pub(super) fn in_splits(product: Dispatch, count: usize, splits: usize) -> Lowered {
    if splits == 1 {
        return Lowered::one(product.output(0));
    }
    Lowered {
        scratch: vec![TensorType::f32([splits, count])],
        dispatches: vec![product.bind(Operand::Scratch(0), Access::ReadWrite), sum_splits(count, splits)],
    }
}

/// Adds the partial results in the first scratch tensor, in order.
fn sum_splits(count: usize, splits: usize) -> Dispatch {
    let params = SplitParams { count: count as u32, splits: splits as u32 };
    Dispatch::new(Kernel::new(&SUM_SPLITS, "forward"), params.block(), grid_for(count, WORKGROUP))
        .bind(Operand::Scratch(0), Access::Read)
        .output(0)
        .work((splits * count) as u64, 4 * ((splits + 1) * count) as u64)
}

/// Rows summed by one invocation, but no fewer than their square root: then neither stage is long.
const BIAS_RUN: usize = 256;

pub(super) fn grad_bias(d_y: &TensorType) -> Lowered {
    let (rows, columns) = (d_y.shape.rows(), d_y.shape.last());
    let run = BIAS_RUN.max(rows.isqrt());
    let runs = rows.div_ceil(run);
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
            launch(rows, run, d_y.is_half()).input(0).bind(Operand::Scratch(0), Access::ReadWrite),
            launch(runs, runs, false).bind(Operand::Scratch(0), Access::Read).output(0),
        ],
    }
}

/// Bytes that must move at least: activations, result and weight once.
pub(super) fn bytes(g: &Geometry) -> u64 {
    (g.dtype.size() * (g.x_elements() + g.y_elements() + g.weight_elements())) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2d, Padding};

    /// A stem with a large batch: few results, so few splits, and a sum over 1.6 million pixels.
    #[test]
    fn runs_are_never_longer_than_a_driver_loops() {
        let conv = Conv2d { stride: [2, 2], padding: Padding::all(3), ..Conv2d::default() };
        let (x, weight) = (TensorType::f32([128, 224, 224, 3]), TensorType::f32([7, 7, 3, 64]));
        for backend in [Backend::Plain, Backend::Direct, Backend::Auto] {
            let g = Geometry::of(Conv2d { backend, ..conv }, &x, &weight).unwrap();
            let caps = Caps { class: DeviceClass::Software, ..Caps::baseline() };
            let lowered = grad_weight(&g, &caps).unwrap();
            let splits = lowered.dispatches[0].workgroups[2] as usize;
            assert!((128 * 112 * 112_usize).div_ceil(splits) <= MAX_RUN, "{backend:?} {splits}");
            assert_eq!(lowered.dispatches.len(), 2);
        }
    }
}
