//! Which kernels compute a product, and with which tile: the shipped heuristic, what tuning has chosen, and what there
//! is to choose from.

use std::fmt;
use std::str::FromStr;

use super::Geometry;
use super::coop::{self, COOP_TILES, CoopTile};
use super::depthwise::{self, STRIPS, Strip};
use crate::autograd::Candidates;
use crate::gpu::{Caps, DeviceClass, Texel, Texture, TextureLoads};
use crate::ops::{LONGEST_LOOP, all_loops_count};

/// Which kernels a convolution uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// What tuning found to be the fastest on this device; without tuning a choice by shape and device.
    #[default]
    Auto,
    /// One invocation for one element.
    Plain,
    /// Register tiles, each lane loading for itself.
    Direct,
    /// Register tiles, loads shared in a subgroup; as `Direct` where the subgroup size is not fixed and small.
    Subgroup,
    /// As `Subgroup`, from copies in textures; as that where a tensor is too large for one.
    Texture,
    /// Register tiles of a larger tile that a workgroup loads together; as `Direct` where the device cannot hold it.
    Workgroup(WorkgroupTile),
    /// One invocation for four channels of a pixel of a depthwise convolution; as `Plain` where it is not one.
    Depthwise,
    /// One invocation for four channels of a strip of pixels; as `Depthwise` where registers do not hold it.
    Strip(Strip),
    /// Cooperative matrices; as `Auto` for f32, for groups, and where the device has none, they were not proven, or the tile
    /// does not fit.
    Coop(CoopTile),
}

impl Backend {
    /// As a case's name has it.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Workgroup(tile) => format!("workgroup {tile}"),
            Self::Coop(tile) => format!("matrices {tile}"),
            Self::Strip(strip) => strip.to_string(),
            Self::Auto | Self::Plain | Self::Direct | Self::Subgroup | Self::Texture | Self::Depthwise => {
                format!("{self:?}").to_lowercase()
            }
        }
    }

    /// The tile of cooperative matrices, if it is one and fits.
    pub(super) fn matrices(self, g: &Geometry, product: Product, caps: &Caps) -> Option<coop::Tile> {
        match self {
            Self::Coop(tile) => coop::Tile::of(tile, g, product, caps),
            _ => None,
        }
    }
}

/// A workgroup's tile of the result, how deep its slabs are, and each invocation's share: see `shaders/lib/tile.wgsl`.
/// Written as `128x64x16:8x8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkgroupTile {
    /// Rows.
    pub bm: u32,
    /// Columns.
    pub bn: u32,
    /// Reduction indices a slab.
    pub bk: u32,
    /// Rows of an invocation.
    pub tm: u32,
    /// Columns of an invocation.
    pub tn: u32,
}

const fn tile(bm: u32, bn: u32, bk: u32, tm: u32, tn: u32) -> WorkgroupTile {
    WorkgroupTile { bm, bn, bk, tm, tn }
}

/// The tiles to choose from.
pub const WORKGROUP_TILES: [WorkgroupTile; 12] = [
    tile(128, 128, 16, 8, 8),
    tile(128, 128, 8, 8, 8),
    tile(128, 64, 16, 8, 8),
    tile(64, 128, 16, 8, 8),
    tile(128, 64, 16, 16, 8),
    tile(64, 64, 16, 8, 8),
    tile(64, 64, 16, 4, 4),
    tile(64, 64, 32, 8, 4),
    tile(128, 32, 16, 8, 4),
    tile(64, 32, 16, 8, 4),
    tile(32, 64, 16, 4, 8),
    tile(32, 32, 32, 4, 4),
];

impl WorkgroupTile {
    /// Invocations of a workgroup.
    pub fn lanes(self) -> u32 {
        (self.bm / self.tm) * (self.bn / self.tn)
    }

    /// Bytes of workgroup memory: a slab of either matrix.
    pub fn memory(self) -> u32 {
        4 * (self.bm + self.bn) * self.bk
    }

    /// Whether a device can run it.
    pub fn fits(self, caps: &Caps) -> bool {
        self.lanes() <= caps.max_invocations && self.memory() <= caps.max_workgroup_memory
    }

    /// Workgroups for a result of `rows` by `width`.
    pub(super) fn groups(self, rows: usize, width: usize) -> [u32; 2] {
        [rows.div_ceil(self.bm as usize) as u32, width.div_ceil(self.bn as usize) as u32]
    }
}

/// A result as the kernels see it.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rows: usize,
    width: usize,
    /// The most parts that its sums can be cut into.
    runs: usize,
}

impl Extent {
    /// The time a product should take, up to a factor that all tiles of a kind share: a tile of `sides` in which a shared
    /// value is used so many times along either, and loading one takes as long as `load` multiplications. A tile of few rows
    /// or columns loads much for each product, one that hangs over the edge computes what nobody stores, and a large one
    /// leaves multiprocessors without work.
    fn cost(self, sides: [u32; 2], uses: [u32; 2], load: f64, caps: &Caps) -> f64 {
        let inverse = |of: [u32; 2]| of.map(|n| 1.0 / f64::from(n)).iter().sum::<f64>();
        let tiles = self.rows.div_ceil(sides[0] as usize) * self.width.div_ceil(sides[1] as usize);
        let runs = self.runs as f64;
        let group = f64::from(sides[0] * sides[1]) * (1.0 + load * inverse(sides)) * (1.0 + inverse(uses)) / runs;
        (tiles as f64 * runs / f64::from(multiprocessors(caps))).max(1.0) * group
    }
}

impl fmt::Display for WorkgroupTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}:{}x{}", self.bm, self.bn, self.bk, self.tm, self.tn)
    }
}

/// How many workgroups of a larger tile a device of this class is taken to run at a time.
fn multiprocessors(caps: &Caps) -> u32 {
    match caps.class {
        DeviceClass::Software => 2,
        DeviceClass::Integrated | DeviceClass::Other => 24,
        DeviceClass::Discrete | DeviceClass::Virtual => 96,
    }
}

/// The three sums of a convolution, each tuned for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    Forward,
    GradInput,
    GradWeight,
}

impl Product {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "conv2d.forward",
            Self::GradInput => "conv2d.grad_input",
            Self::GradWeight => "conv2d.grad_weight",
        }
    }

    /// Of the largest phase.
    fn extent(self, g: &Geometry) -> Extent {
        let [stride_h, stride_w] = g.conv.stride;
        let (rows, width, runs) = match self {
            Self::Forward => (g.n * g.out_h * g.out_w, g.k, 1),
            Self::GradInput => (g.n * g.h.div_ceil(stride_h) * g.w.div_ceil(stride_w), g.c, 1),
            Self::GradWeight => (g.r * g.s * g.c, g.k, super::kernels::most_splits(g)),
        };
        Extent { rows, width, runs }
    }

    /// The shape class: the window, channels and steps, and the number of pixels to the nearest power of two. Another batch,
    /// or another size of the pictures with a batch to match, is often of the same.
    fn class(self, g: &Geometry) -> String {
        let conv = &g.conv;
        let half = if g.half() { " f16" } else { "" };
        let pixels = (g.n * g.out_h * g.out_w).max(1) as f64;
        format!(
            "{}{half} x 2^{:.0}x{} w {}x{}x{}x{} stride {}x{} dilation {}x{}",
            self.name(),
            pixels.log2(),
            g.c,
            g.r,
            g.s,
            g.c / conv.groups,
            g.k,
            conv.stride[0],
            conv.stride[1],
            conv.dilation[0],
            conv.dilation[1],
        )
    }

    /// The shape that a choice is made for.
    fn key(self, g: &Geometry) -> String {
        let conv = &g.conv;
        format!(
            "{}{} x {}x{}x{}x{} w {}x{}x{}x{} stride {}x{} padding {},{},{},{} dilation {}x{}",
            self.name(),
            if g.half() { " f16" } else { "" },
            g.n,
            g.h,
            g.w,
            g.c,
            g.r,
            g.s,
            g.c / conv.groups,
            g.k,
            conv.stride[0],
            conv.stride[1],
            conv.padding.top,
            conv.padding.bottom,
            conv.padding.left,
            conv.padding.right,
            conv.dilation[0],
            conv.dilation[1],
        )
    }
}

/// How a product is computed. Written as the backend's name or its tile, and ` splits N` where that is chosen too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub backend: Backend,
    /// Runs of a weight gradient's reduction; by default what fills the device.
    pub splits: Option<usize>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backend {
            Backend::Auto => f.write_str("auto")?,
            Backend::Plain => f.write_str("plain")?,
            Backend::Direct => f.write_str("direct")?,
            Backend::Subgroup => f.write_str("subgroup")?,
            Backend::Texture => f.write_str("texture")?,
            Backend::Workgroup(tile) => tile.fmt(f)?,
            Backend::Depthwise => f.write_str("depthwise")?,
            Backend::Strip(strip) => strip.fmt(f)?,
            Backend::Coop(tile) => write!(f, "matrices {tile}")?,
        }
        self.splits.map_or(Ok(()), |n| write!(f, " splits {n}"))
    }
}

impl FromStr for Choice {
    type Err = ();

    /// Only tiles and strips of the lists are known: the text may come from a file.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, splits) = match text.split_once(" splits ") {
            None => (text, None),
            Some((name, n)) => (name, Some(n.parse().ok().filter(|n| *n > 0).ok_or(())?)),
        };
        let backend = match name {
            "plain" => Backend::Plain,
            "direct" => Backend::Direct,
            "subgroup" => Backend::Subgroup,
            "texture" => Backend::Texture,
            "depthwise" => Backend::Depthwise,
            // As runs of before there were several tiles have it.
            "matrices" => Backend::Coop(COOP_TILES[0]),
            _ => {
                let tiles = WORKGROUP_TILES.into_iter().map(Backend::Workgroup);
                let strips = STRIPS.into_iter().map(Backend::Strip);
                let matrices = COOP_TILES.into_iter().map(Backend::Coop);
                let mut all = tiles.chain(strips).chain(matrices);
                all.find(|backend| Self::of(*backend).to_string() == name).ok_or(())?
            }
        };
        Ok(Self { backend, splits })
    }
}

impl Choice {
    fn of(backend: Backend) -> Self {
        Self { backend, splits: None }
    }

    /// Whether it is for depthwise convolutions only.
    fn is_depthwise(self) -> bool {
        matches!(self.backend, Backend::Depthwise | Backend::Strip(_))
    }

    /// What the caller asked for; else what was tuned for this shape on this device; else the heuristic's choice.
    pub fn make(g: &Geometry, product: Product, caps: &Caps) -> Self {
        let asked = match g.conv.backend {
            Backend::Auto => {
                let tuned = caps.choices.get(&product.key(g)).and_then(|text| text.parse::<Self>().ok());
                let suits = |tuned: &Self| tuned.is_depthwise() == (g.conv.groups != 1);
                tuned.filter(suits).unwrap_or_else(|| Self::heuristic(g, product, caps))
            }
            backend => Self::of(backend),
        };
        if g.conv.groups != 1 || asked.is_depthwise() {
            return match asked.backend {
                Backend::Strip(strip) if depthwise::applies(g) && strip.fits(g, product, caps) => asked,
                _ if depthwise::applies(g) && asked.is_depthwise() => Self { backend: Backend::Depthwise, ..asked },
                _ => Self::of(Backend::Plain),
            };
        }
        let choice = match asked.backend {
            Backend::Workgroup(tile) if !tile.fits(caps) => Self { backend: Backend::Direct, ..asked },
            Backend::Subgroup | Backend::Texture if small_subgroup(caps).is_none() => {
                Self { backend: Backend::Direct, ..asked }
            }
            Backend::Texture if !fits_textures(g) => Self { backend: Backend::Subgroup, ..asked },
            Backend::Coop(tile) if coop::Tile::of(tile, g, product, caps).is_none() => {
                Self::heuristic(g, product, caps)
            }
            _ => asked,
        };
        let too_long = all_loops_count(caps) && super::kernels::loop_rounds(g, product, &choice, caps) > LONGEST_LOOP;
        if too_long { Self::of(Backend::Plain) } else { choice }
    }

    /// Drivers in software are far faster without workgroup memory, and multiply matrices one element after the other;
    /// everything else has both for this.
    fn heuristic(g: &Geometry, product: Product, caps: &Caps) -> Self {
        if g.conv.groups != 1 {
            let strip = depthwise::ranked(g, product, caps).first().map(|strip| Backend::Strip(*strip));
            return Self::of(strip.unwrap_or(Backend::Depthwise));
        }
        if caps.class == DeviceClass::Software {
            return Self::of(match small_subgroup(caps) {
                None => Backend::Direct,
                Some(_) if caps.textures > TextureLoads::Slow && fits_textures(g) => Backend::Texture,
                Some(_) => Backend::Subgroup,
            });
        }
        if let Some((tile, _)) = ranked_matrices(g, product, caps).first() {
            return Self::of(Backend::Coop(*tile));
        }
        let best = ranked_tiles(g, product, caps).first().map(|(tile, _)| *tile);
        Self::of(best.map_or(Backend::Direct, Backend::Workgroup))
    }
}

/// The subgroup size, where it is known and small.
pub(super) fn small_subgroup(caps: &Caps) -> Option<u32> {
    caps.subgroups.filter(|s| s.min == s.max && [4, 8, 16].contains(&s.min)).map(|s| s.min)
}

/// Whether each of the three tensors fits a texture, in the smallest texels that a kernel may want.
pub(super) fn fits_textures(g: &Geometry) -> bool {
    let fits = |elements: usize, channels: usize| {
        Texture { elements, texel: Texel { four: channels.is_multiple_of(4), half: g.half() } }.fits()
    };
    fits(g.x_elements(), g.c) && fits(g.y_elements(), g.k) && fits(g.weight_elements(), g.k)
}

/// The tiles that fit a device, cheapest first, with their estimated cost.
fn ranked_tiles(g: &Geometry, product: Product, caps: &Caps) -> Vec<(WorkgroupTile, f64)> {
    let extent = product.extent(g);
    let cost = |tile: WorkgroupTile| (tile, extent.cost([tile.bm, tile.bn], [tile.tm, tile.tn], LOAD, caps));
    let mut tiles: Vec<_> = WORKGROUP_TILES.into_iter().filter(|t| t.fits(caps)).map(cost).collect();
    tiles.sort_by(|a, b| a.1.total_cmp(&b.1));
    tiles
}

/// What it takes to load a value from memory, in multiplications by invocations.
const LOAD: f64 = 16.0;
/// The same in multiplications by matrices, which are that much faster.
const LOAD_FOR_MATRICES: f64 = 64.0;

/// As [`ranked_tiles`], of the tiles in cooperative matrices. Of those that cost the same one that loads ahead comes first.
fn ranked_matrices(g: &Geometry, product: Product, caps: &Caps) -> Vec<(CoopTile, f64)> {
    let extent = product.extent(g);
    let cost = |tile: CoopTile| {
        let sides = coop::Tile::of(tile, g, product, caps)?.sides();
        Some((tile, extent.cost(sides, tile.fragments, LOAD_FOR_MATRICES, caps)))
    };
    let mut tiles: Vec<_> = COOP_TILES.into_iter().filter_map(cost).collect();
    tiles.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.ahead.cmp(&a.0.ahead)));
    tiles
}

/// Of ranked tiles those that are worth trying.
fn worth_trying<T: Copy>(ranked: &[(T, f64)]) -> impl Iterator<Item = T> + '_ {
    let limit = ranked.first().map_or(0.0, |(_, cost)| WORTH_TRYING * cost);
    ranked.iter().filter(move |(_, cost)| *cost <= limit).map(|(tile, _)| *tile)
}

/// Tiles estimated to cost more than this many times the cheapest are not tried.
const WORTH_TRYING: f64 = 1.7;
/// Relative error of a right candidate against the reference: both add in f32, in another order.
const TOLERANCE: f64 = 1e-4;
/// The same where results are rounded to f16: two roundings of half a unit, and some for matrix units that add with a few
/// bits less.
const TOLERANCE_HALF: f64 = 2e-3;

/// What the candidates of a product must agree with: the plain kernel, unless one launch of it might take so long that
/// a desktop takes the GPU for hung and resets it (after two seconds). Then it is the direct tiles, which use a loaded
/// value eight times or more, and share nothing with the workgroup tiles but how single values are loaded.
fn reference(g: &Geometry, caps: &Caps) -> Choice {
    let most_flops = match caps.class {
        DeviceClass::Software => 4e9,
        DeviceClass::Integrated | DeviceClass::Other => 1e10,
        DeviceClass::Discrete | DeviceClass::Virtual => 1e11,
    };
    let fast = if g.conv.groups == 1 { Backend::Direct } else { Backend::Depthwise };
    Choice::of(if 2.0 * g.macs() as f64 <= most_flops { Backend::Plain } else { fast })
}

/// What tuning may choose from for a product: the heuristic's choice first.
pub(super) fn candidates(g: &Geometry, product: Product, caps: &Caps) -> Option<Candidates> {
    if g.conv.backend != Backend::Auto || g.conv.groups != 1 && !depthwise::applies(g) {
        return None;
    }
    if g.conv.groups != 1 {
        let strips = depthwise::ranked(g, product, caps).into_iter().map(Backend::Strip);
        return Some(listed(g, product, caps, strips.chain([Backend::Depthwise]).map(Choice::of)));
    }
    let mut choices = vec![Choice::heuristic(g, product, caps), Choice::of(Backend::Direct)];
    choices.extend(small_subgroup(caps).map(|_| Choice::of(Backend::Subgroup)));
    // A GPU's buffers are as good as its textures.
    let textures = caps.class == DeviceClass::Software && fits_textures(g);
    choices.extend(small_subgroup(caps).filter(|_| textures).map(|_| Choice::of(Backend::Texture)));
    let matrices = ranked_matrices(g, product, caps);
    choices.extend(worth_trying(&matrices).map(|tile| Choice::of(Backend::Coop(tile))));
    let tiles = ranked_tiles(g, product, caps);
    choices.extend(worth_trying(&tiles).map(|tile| Choice::of(Backend::Workgroup(tile))));
    if product == Product::GradWeight {
        let default = |choice: &Choice| super::kernels::splits(g, choice, caps);
        let halved = choices.iter().map(|c| Choice { splits: Some(default(c) / 2), ..*c });
        let doubled = choices.iter().map(|c| Choice { splits: Some(default(c) * 2), ..*c });
        let all: Vec<Choice> = choices.iter().copied().chain(halved).chain(doubled).collect();
        choices = all
            .into_iter()
            .filter(|c| c.splits.is_none_or(|n| (1..=super::kernels::most_splits(g)).contains(&n)))
            .collect();
    }
    Some(listed(g, product, caps, choices))
}

/// Each choice once, in words.
fn listed(g: &Geometry, product: Product, caps: &Caps, choices: impl IntoIterator<Item = Choice>) -> Candidates {
    let mut texts: Vec<String> = vec![];
    for choice in choices {
        let text = choice.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Candidates {
        key: product.key(g),
        class: product.class(g),
        reference: reference(g, caps).to_string(),
        choices: texts,
        tolerance: if g.half() { TOLERANCE_HALF } else { TOLERANCE },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_written_and_nothing_else_is() {
        for tile in WORKGROUP_TILES {
            for splits in [None, Some(7)] {
                let choice = Choice { backend: Backend::Workgroup(tile), splits };
                assert_eq!(choice.to_string().parse(), Ok(choice));
            }
        }
        let strips = STRIPS.map(Backend::Strip);
        let matrices = COOP_TILES.map(Backend::Coop);
        let others = [Backend::Plain, Backend::Direct, Backend::Subgroup, Backend::Texture, Backend::Depthwise];
        for backend in others.into_iter().chain(matrices).chain(strips) {
            assert_eq!(Choice::of(backend).to_string().parse(), Ok(Choice::of(backend)));
        }
        for text in [
            "",
            "auto",
            "1024x1024x16:8x8",
            "strip 400x400",
            "strip",
            "matrices 3x3:2x2",
            "64x64x16:8x8 splits 0",
            "direct splits x",
            "direct ",
        ] {
            assert_eq!(text.parse::<Choice>(), Err(()), "{text}");
        }
    }

    #[test]
    fn shapes_of_a_class_differ_in_batch_and_size_alone() {
        use crate::tensor::TensorType;
        let class = |n: usize, side: usize, channels: usize| {
            let (x, weight) = (TensorType::f32([n, side, side, channels]), TensorType::f32([3, 3, channels, 64]));
            let conv = super::super::Conv2d { padding: super::super::Padding::all(1), ..Default::default() };
            Product::Forward.class(&Geometry::of(conv, &x, &weight).unwrap())
        };
        assert_eq!(class(32, 56, 64), "conv2d.forward x 2^17x64 w 3x3x64x64 stride 1x1 dilation 1x1");
        assert_eq!(class(32, 56, 64), class(40, 64, 64));
        assert_ne!(class(32, 56, 64), class(64, 64, 64));
        assert_ne!(class(32, 56, 64), class(32, 56, 32));
    }

    #[test]
    fn every_product_has_candidates_and_a_reference_that_ends_in_time() {
        use crate::tensor::TensorType;
        let geometry = |n: usize| {
            let (x, weight) = (TensorType::f32([n, 56, 56, 64]), TensorType::f32([3, 3, 64, 64]));
            Geometry::of(super::super::Conv2d::default(), &x, &weight).unwrap()
        };
        for class in [DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Software] {
            let caps = Caps { class, ..Caps::baseline() };
            for product in [Product::Forward, Product::GradInput, Product::GradWeight] {
                let (small, large) =
                    (candidates(&geometry(1), product, &caps), candidates(&geometry(1024), product, &caps));
                let (small, large) = (small.unwrap(), large.unwrap());
                assert_eq!((small.reference.as_str(), large.reference.as_str()), ("plain", "direct"), "{class:?}");
                assert_ne!(small.key, large.key);
                for text in &large.choices {
                    assert_eq!(large.choices.iter().filter(|t| *t == text).count(), 1, "{text} is listed twice");
                    assert!(text.parse::<Choice>().is_ok(), "{text}");
                }
                assert!(large.choices.len() >= 4, "{:?}", large.choices);
                assert_eq!(large.choices[0].contains(':'), class != DeviceClass::Software, "{:?}", large.choices);
                // Results of half a million rows: only a large tile is worth it.
                assert!(product == Product::GradWeight || large.choices.iter().all(|c| !c.starts_with("32x32")));
            }
        }
    }

    #[test]
    fn factors_are_read_from_textures_where_that_was_measured_to_be_faster_and_they_fit() {
        use crate::gpu::SubgroupSizes;
        use crate::tensor::TensorType;
        let subgroups = Some(SubgroupSizes { min: 8, max: 8 });
        let backend = |textures, n: usize, x: fn(Vec<usize>) -> TensorType, channels: usize| {
            let caps = Caps { class: DeviceClass::Software, subgroups, textures, f16: true, ..Caps::baseline() };
            let (x, weight) = (x(vec![n, 64, 64, channels]), x(vec![3, 3, channels, 64]));
            let g = Geometry::of(super::super::Conv2d::default(), &x, &weight).unwrap();
            Choice::make(&g, Product::Forward, &caps).backend
        };
        assert_eq!(backend(TextureLoads::Slow, 1, TensorType::f32, 64), Backend::Subgroup);
        assert_eq!(backend(TextureLoads::Faster, 1, TensorType::f32, 64), Backend::Texture);
        assert_eq!(backend(TextureLoads::MuchFaster, 1, TensorType::f32, 3), Backend::Texture);
        assert_eq!(backend(TextureLoads::MuchFaster, 1, TensorType::f16, 64), Backend::Texture);
        // Single elements in f16, and more texels than every device can hold.
        assert_eq!(backend(TextureLoads::MuchFaster, 1, TensorType::f16, 3), Backend::Subgroup);
        assert_eq!(backend(TextureLoads::MuchFaster, 1024, TensorType::f32, 64), Backend::Subgroup);
    }

    /// Mesa's software driver ends the loops of an invocation after 65,535 rounds, and only loops without checks are unrolled.
    #[test]
    fn with_run_time_checks_no_invocation_loops_longer_than_a_driver_does() {
        use crate::gpu::SubgroupSizes;
        use crate::tensor::TensorType;
        let caps = |checked| {
            let subgroups = Some(SubgroupSizes { min: 8, max: 8 });
            Caps { class: DeviceClass::Software, subgroups, checked, ..Caps::baseline() }
        };
        let backend = |checked, channels: usize, product| {
            let (x, weight) = (TensorType::f32([2, 8, 8, channels]), TensorType::f32([3, 3, channels, channels]));
            let conv = super::super::Conv2d { padding: super::super::Padding::all(1), ..Default::default() };
            Choice::make(&Geometry::of(conv, &x, &weight).unwrap(), product, &caps(checked)).backend
        };
        for product in [Product::Forward, Product::GradInput] {
            assert_eq!(backend(false, 1024, product), Backend::Subgroup);
            assert_eq!(backend(true, 1024, product), Backend::Plain);
            assert_eq!(backend(true, 512, product), Backend::Subgroup);
        }
        assert_eq!(backend(true, 1024, Product::GradWeight), Backend::Subgroup);
        // 34 rounds for four channels: as many as the case of that name has, and a few more.
        let linear = |inputs: usize, asked| {
            let (x, weight) = (TensorType::f32([33, 1, 1, inputs]), TensorType::f32([1, 1, inputs, 7]));
            let conv = super::super::Conv2d { backend: asked, ..Default::default() };
            Choice::make(&Geometry::of(conv, &x, &weight).unwrap(), Product::Forward, &caps(true)).backend
        };
        assert_eq!(linear(7696, Backend::Auto), Backend::Subgroup);
        assert_eq!(linear(7700, Backend::Auto), Backend::Plain);
        let tile = Backend::Workgroup(WORKGROUP_TILES[0]);
        assert_eq!((linear(512, tile), linear(7696, tile)), (tile, Backend::Plain));
    }

    #[test]
    fn depthwise_products_have_strips_to_choose_from_and_only_theirs() {
        use crate::tensor::TensorType;
        let geometry = |side: usize, dilation: usize| {
            let (x, weight) = (TensorType::f32([8, side, side, 64]), TensorType::f32([3, 3, 1, 64]));
            let conv = super::super::Conv2d {
                groups: 64,
                padding: super::super::Padding::all(dilation),
                dilation: [dilation; 2],
                ..super::super::Conv2d::default()
            };
            Geometry::of(conv, &x, &weight).unwrap()
        };
        for class in [DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Software] {
            let mut caps = Caps { class, ..Caps::baseline() };
            for product in [Product::Forward, Product::GradInput, Product::GradWeight] {
                let g = geometry(32, 1);
                let found = candidates(&g, product, &caps).unwrap();
                assert!(
                    found.choices.len() >= 4 && found.choices.last().unwrap() == "depthwise",
                    "{:?}",
                    found.choices
                );
                assert_eq!(Choice::make(&g, product, &caps).to_string(), found.choices[0]);
                // A window of a dilation this wide covers too much for registers.
                let wide = Choice::make(&geometry(64, 16), product, &caps);
                assert_eq!(wide.backend, Backend::Depthwise);
                // Words of a file that are meant for another kind of convolution count as none.
                let mut words = (*caps.choices).clone();
                words.insert(found.key.clone(), "direct".into());
                caps.choices = words.into();
                assert_eq!(Choice::make(&g, product, &caps).to_string(), found.choices[0]);
            }
        }
    }

    #[test]
    fn some_tile_fits_every_device_and_tiles_are_what_the_shader_assumes() {
        assert!(WORKGROUP_TILES.iter().all(|t| t.fits(&Caps::baseline())));
        for t in WORKGROUP_TILES {
            assert!([t.bm, t.bn, t.bk, t.tm, t.tn].into_iter().all(u32::is_power_of_two), "{t}");
            assert!(t.bm >= 16 && t.bn >= 16 && t.bk >= 4 && t.tm >= 4 && t.tn >= 4 && t.tm <= t.bm && t.tn <= t.bn);
        }
    }
}
