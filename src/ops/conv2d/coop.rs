//! Convolutions by cooperative matrices: what a device can do, and the launches.

use super::Geometry;
use super::choice::Product;
use super::kernels::{CONV_PARAMS, bytes, in_splits, pick, tile_grid};
use crate::autograd::Lowered;
use crate::gpu::{Caps, Dispatch, Kernel, Library, Source, Uniform};

static PRODUCT: Source = crate::wgsl!("conv2d_coop.wgsl", CONV_PARAMS);

crate::library!(FORWARD, "coop_forward.wgsl");
crate::library!(GRAD_INPUT, "coop_grad_input.wgsl");
crate::library!(GRAD_WEIGHT, "coop_grad_weight.wgsl");
crate::library!(A_ROWS, "coop_a_rows.wgsl");
crate::library!(A_COLUMNS, "coop_a_columns.wgsl");
crate::library!(B_ROWS, "coop_b_rows.wgsl");
crate::library!(B_COLUMNS, "coop_b_columns.wgsl");
crate::library!(STATISTICS, "coop_statistics.wgsl");
crate::library!(STATISTICS_NONE, "coop_statistics_none.wgsl");
crate::library!(LOAD_A_VEC4, "coop_load_a_vec4.wgsl");
crate::library!(LOAD_A_SCALAR, "coop_load_a_scalar.wgsl");
crate::library!(LOAD_B_VEC4, "coop_load_b_vec4.wgsl");
crate::library!(LOAD_B_SCALAR, "coop_load_b_scalar.wgsl");

/// Matrices along either side of a subgroup's part of the result.
const FRAGMENTS: u32 = 2;

/// How a device multiplies: the side of its matrices and the lanes of its subgroups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    matrix: u32,
    lanes: u32,
}

impl Tile {
    /// The tile for a product on a device; `None` where matrices are not there or do not fit.
    pub(super) fn of(g: &Geometry, product: Product, caps: &Caps) -> Option<Self> {
        // A subgroup of a size that the driver may choose could be smaller than the kernel believes.
        let lanes = caps.subgroups.filter(|s| s.min == s.max)?.min;
        let tile = Self { matrix: caps.matrices?, lanes };
        let quads = tile.side() * tile.depth() / 4;
        let fits = tile.threads() <= caps.max_invocations
            && quads.is_multiple_of(tile.threads())
            && tile.memory() <= caps.max_workgroup_memory;
        // Else the taps of a phase are not evenly spaced.
        let even = (0..2).all(|axis| g.conv.stride[axis] == 1 || g.conv.dilation[axis] == 1);
        let even = even || product != Product::GradInput;
        (g.half() && g.conv.groups == 1 && fits && even).then_some(tile)
    }

    /// Rows and columns of the result that a workgroup computes.
    fn side(self) -> u32 {
        2 * FRAGMENTS * self.matrix
    }

    /// Elements of the reduction at a time.
    fn depth(self) -> u32 {
        2 * self.matrix
    }

    /// Rows of the result that a subgroup computes, if it can sum them up: if each lane sees one column of a matrix.
    pub(super) fn statistics_run(self) -> Option<u32> {
        self.lanes.is_multiple_of(self.matrix).then_some(FRAGMENTS * self.matrix)
    }

    fn threads(self) -> u32 {
        4 * self.lanes
    }

    /// An upper bound of the bytes of workgroup memory.
    fn memory(self) -> u32 {
        2 * 2 * (self.side() + 8) * (self.depth() + 8) + 4 * 4 * self.matrix * self.matrix
    }

    fn kernel(self, pass: &'static Library) -> Kernel {
        Kernel::new(&PRODUCT, "product")
            .with_half(true)
            .with_subgroups()
            .with_matrices(self.matrix)
            .with_u32("LANES", self.lanes)
            .with_u32("FRAGMENTS", FRAGMENTS)
            .with_library(pass)
    }

    /// Row tiles and column tiles.
    pub(super) fn groups(self, rows: usize, width: usize) -> [u32; 2] {
        [rows, width].map(|n| n.div_ceil(self.side() as usize) as u32)
    }

    /// Row tiles folded into x and y, column tiles times `parts` in z.
    fn grid(self, rows: usize, width: usize, parts: usize) -> [u32; 3] {
        tile_grid(self.groups(rows, width), parts)
    }
}

fn vec4(channels: usize) -> bool {
    channels.is_multiple_of(4)
}

/// `finished` adds what is done with each result.
pub(super) fn forward(tile: Tile, g: &Geometry, statistics: bool, finished: impl Fn(Kernel) -> Kernel) -> Dispatch {
    let kernel = finished(tile.kernel(&FORWARD))
        .with_library(pick(statistics, &STATISTICS, &STATISTICS_NONE))
        .with_library(&A_ROWS)
        .with_library(&B_ROWS)
        .with_library(pick(vec4(g.c), &LOAD_A_VEC4, &LOAD_A_SCALAR))
        .with_library(pick(vec4(g.k), &LOAD_B_VEC4, &LOAD_B_SCALAR));
    let grid = tile.grid(g.n * g.out_h * g.out_w, g.k, 1);
    Dispatch::new(kernel, g.params().block(), grid).specialised()
}

pub(super) fn grad_input(tile: Tile, g: &Geometry) -> Dispatch {
    let vec4 = vec4(g.k);
    let kernel = tile
        .kernel(&GRAD_INPUT)
        .with_library(&STATISTICS_NONE)
        .with_library(&A_ROWS)
        .with_library(&B_COLUMNS)
        .with_library(pick(vec4, &LOAD_A_VEC4, &LOAD_A_SCALAR))
        .with_library(pick(vec4, &LOAD_B_VEC4, &LOAD_B_SCALAR));
    let [stride_h, stride_w] = g.conv.stride;
    // The largest phase decides; of a smaller one, workgroups past the end store nothing.
    let rows = g.n * g.h.div_ceil(stride_h) * g.w.div_ceil(stride_w);
    let grid = tile.grid(rows, g.c, stride_h * stride_w);
    Dispatch::new(kernel, g.params().block(), grid).specialised()
}

pub(super) fn grad_weight(tile: Tile, g: &Geometry, splits: usize) -> Lowered {
    let (rows, pixels) = (g.r * g.s * g.c, g.n * g.out_h * g.out_w);
    // Whole slices, so that only the last run has a part of one.
    let run = pixels.div_ceil(splits).next_multiple_of(tile.depth() as usize);
    let splits = pixels.div_ceil(run);
    let kernel = tile
        .kernel(&GRAD_WEIGHT)
        .with_library(&STATISTICS_NONE)
        .with_library(&A_COLUMNS)
        .with_library(&B_ROWS)
        .with_library(pick(vec4(g.c), &LOAD_A_VEC4, &LOAD_A_SCALAR))
        .with_library(pick(vec4(g.k), &LOAD_B_VEC4, &LOAD_B_SCALAR));
    let product = Dispatch::new(kernel, g.params_of_run(run).block(), tile.grid(rows, g.k, splits))
        .specialised()
        .input(0)
        .input(1)
        .work(2 * g.macs(), bytes(g));
    in_splits(product, rows * g.k, splits)
}
