//! Convolutions by cooperative matrices: what a device can do, and the launches.

use std::fmt;

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

/// A workgroup's tile of the result in cooperative matrices. Written as `4x2:2x2`, and ` ahead` behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoopTile {
    /// Rows and columns of a subgroup's part, in matrices.
    pub fragments: [u32; 2],
    /// Rows and columns of a workgroup's subgroups.
    pub subgroups: [u32; 2],
    /// Whether the next slice of the reduction is loaded while one is multiplied.
    pub ahead: bool,
}

const fn tile(fragments: [u32; 2], subgroups: [u32; 2], ahead: bool) -> CoopTile {
    CoopTile { fragments, subgroups, ahead }
}

/// The tiles to choose from. With matrices of 16 by 16 the first is one of 64 by 64, the last of 256 by 128.
pub const COOP_TILES: [CoopTile; 7] = [
    tile([2, 2], [2, 2], false),
    tile([2, 2], [2, 2], true),
    tile([4, 2], [2, 2], true),
    tile([2, 4], [2, 2], true),
    tile([4, 4], [2, 2], true),
    tile([2, 4], [4, 2], true),
    tile([4, 4], [4, 2], true),
];

impl fmt::Display for CoopTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([m, n], [rows, columns]) = (self.fragments, self.subgroups);
        write!(f, "{m}x{n}:{rows}x{columns}{}", if self.ahead { " ahead" } else { "" })
    }
}

/// A tile on a device, with the side of its matrices and the lanes of its subgroups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    tile: CoopTile,
    matrix: u32,
    lanes: u32,
}

impl Tile {
    /// A tile for a product on a device; `None` where matrices are not there or do not fit.
    pub(super) fn of(tile: CoopTile, g: &Geometry, product: Product, caps: &Caps) -> Option<Self> {
        // A subgroup of a size that the driver may choose could be smaller than the kernel believes.
        let lanes = caps.subgroups.filter(|s| s.min == s.max)?.min;
        let tile = Self { tile, matrix: caps.matrices?, lanes };
        let quads = tile.sides().map(|side| side * tile.depth() / 4);
        let fits = tile.threads() <= caps.max_invocations
            && quads.iter().all(|quads| quads.is_multiple_of(tile.threads()))
            && tile.memory() <= caps.max_workgroup_memory;
        // Else the taps of a phase are not evenly spaced.
        let even = (0..2).all(|axis| g.conv.stride[axis] == 1 || g.conv.dilation[axis] == 1);
        let even = even || product != Product::GradInput;
        (g.half() && g.conv.groups == 1 && fits && even).then_some(tile)
    }

    /// Rows and columns of the result that a workgroup computes.
    pub(super) fn sides(self) -> [u32; 2] {
        [0, 1].map(|axis| self.tile.subgroups[axis] * self.tile.fragments[axis] * self.matrix)
    }

    /// Elements of the reduction at a time.
    fn depth(self) -> u32 {
        2 * self.matrix
    }

    /// Rows of the result that a subgroup computes, if it can sum them up: if each lane sees one column of a matrix.
    pub(super) fn statistics_run(self) -> Option<u32> {
        self.lanes.is_multiple_of(self.matrix).then_some(self.tile.fragments[0] * self.matrix)
    }

    fn subgroups(self) -> u32 {
        self.tile.subgroups.iter().product()
    }

    fn threads(self) -> u32 {
        self.subgroups() * self.lanes
    }

    /// An upper bound of the bytes of workgroup memory.
    fn memory(self) -> u32 {
        let slices: u32 = self.sides().iter().map(|side| 2 * (side + 8) * (self.depth() + 8)).sum();
        slices + self.subgroups() * 4 * self.matrix * self.matrix
    }

    fn kernel(self, pass: &'static Library) -> Kernel {
        let CoopTile { fragments, subgroups, ahead } = self.tile;
        Kernel::new(&PRODUCT, "product")
            .with_half(true)
            .with_subgroups()
            .with_matrices(self.matrix)
            .with_u32("LANES", self.lanes)
            .with_u32("FRAGMENTS_M", fragments[0])
            .with_u32("FRAGMENTS_N", fragments[1])
            .with_u32("SUBGROUPS_M", subgroups[0])
            .with_u32("SUBGROUPS_N", subgroups[1])
            .with_bool("AHEAD", ahead)
            .with_library(pass)
    }

    /// Row tiles and column tiles.
    pub(super) fn groups(self, rows: usize, width: usize) -> [u32; 2] {
        let [m, n] = self.sides();
        [rows.div_ceil(m as usize) as u32, width.div_ceil(n as usize) as u32]
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
