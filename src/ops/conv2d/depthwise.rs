//! The kernels of a depthwise convolution: a filter for each channel (groups = C = K), the channels in fours.
//!
//! Its sums are short, so loads are its cost. In *strips* an invocation computes several neighbouring pixels and goes down
//! the map, keeping in registers what the windows cover: 1.25 to 3 loads a result of a 3x3 kernel instead of 18. Where a
//! window has too many pixels for that, wide dilations say, an invocation computes a single pixel.

use std::fmt;

use super::choice::{Choice, Product, fits_textures};
use super::kernels::{
    ACTIVATION_VEC4, COLUMNS_IN_VEC4, COLUMNS_OUT_VEC4, CONV_PARAMS, MAX_PARTIAL_BYTES, MAX_RUN, factors, wanted_groups,
};
use super::{Backend, Geometry};
use crate::gpu::{Caps, DeviceClass, Dispatch, Kernel, Source, TextureLoads, Uniform, grid_for};
use crate::ops::{LONGEST_LOOP, WORKGROUP, all_loops_count};

static FORWARD: Source = crate::wgsl!("conv2d_depthwise_forward.wgsl", CONV_PARAMS);
static GRAD_INPUT: Source = crate::wgsl!("conv2d_depthwise_grad_input.wgsl", CONV_PARAMS);
static GRAD_WEIGHT: Source = crate::wgsl!("conv2d_depthwise_grad_weight.wgsl", CONV_PARAMS);
static STRIP_FORWARD: Source = crate::wgsl!("conv2d_strip_forward.wgsl", CONV_PARAMS, STRIP);
static STRIP_GRAD_INPUT: Source = crate::wgsl!("conv2d_strip_grad_input.wgsl", CONV_PARAMS, STRIP);
static STRIP_GRAD_WEIGHT: Source = crate::wgsl!("conv2d_strip_grad_weight.wgsl", CONV_PARAMS, STRIP);

crate::library!(STRIP, "strip.wgsl");

/// The pixels that an invocation computes, four channels of each: see `shaders/lib/strip.wgsl`. Written as `strip 4x16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Strip {
    /// Neighbours in a row.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
}

const fn strip(columns: u32, rows: u32) -> Strip {
    Strip { columns, rows }
}

/// The strips to choose from.
pub const STRIPS: [Strip; 6] = [strip(2, 4), strip(4, 4), strip(4, 8), strip(4, 32), strip(8, 8), strip(8, 32)];

/// What of one product goes through an invocation's registers.
struct Shape {
    /// Positions of the grid that strips lie in, of one image.
    grid: [usize; 2],
    /// Pixels that the windows of a strip's row cover.
    window: [usize; 2],
    /// Rows that enter a window a step.
    step: usize,
    /// Sums that are kept.
    sums: usize,
    /// Other loads and stores a row of a strip.
    others: usize,
}

impl Strip {
    fn shape(self, g: &Geometry, product: Product) -> Shape {
        let columns = self.columns as usize;
        let [stride_h, stride_w] = g.conv.stride;
        let reach = [(g.r - 1) * g.conv.dilation[0], (g.s - 1) * g.conv.dilation[1]];
        let pad = g.conv.padding;
        if product == Product::GradInput {
            let positions =
                |size: usize, before: usize, stride: usize| (size - 1 + before) / stride + 1 - before / stride;
            let results = stride_h * stride_w * columns;
            return Shape {
                grid: [positions(g.h, pad.top, stride_h), positions(g.w, pad.left, stride_w)],
                window: [reach[0] / stride_h + 1, columns + reach[1] / stride_w],
                step: 1,
                sums: results,
                others: results,
            };
        }
        let window = [reach[0] + 1, (columns - 1) * stride_w + reach[1] + 1];
        Shape {
            grid: [g.out_h, g.out_w],
            window,
            step: stride_h.min(window[0]),
            sums: if product == Product::Forward { columns } else { g.r * g.s },
            others: columns,
        }
    }

    /// Whether registers hold it, or what of a CPU's first cache stands for them.
    pub(super) fn fits(self, g: &Geometry, product: Product, caps: &Caps) -> bool {
        let shape = self.shape(g, product);
        // The filter, or the row of d_y.
        let filter = if product == Product::GradWeight { self.columns as usize } else { g.r * g.s };
        let vectors = shape.window[0] * shape.window[1] + shape.sums + filter;
        vectors <= if caps.class == DeviceClass::Software { 160 } else { 56 }
    }

    /// Rounds of all loops of the weight's gradient for a strip, about.
    fn rounds(self, g: &Geometry) -> usize {
        let [down, across] = self.shape(g, Product::GradWeight).window;
        self.rows as usize * (down * across + g.r * g.s * self.columns as usize)
    }

    fn count(self, shape: &Shape, g: &Geometry) -> usize {
        g.n * shape.grid[0].div_ceil(self.rows as usize) * shape.grid[1].div_ceil(self.columns as usize)
    }

    /// The time it should take, up to a factor that all strips share: loads and stores, where there are invocations
    /// enough.
    fn cost(self, g: &Geometry, product: Product, caps: &Caps) -> f64 {
        let shape = self.shape(g, product);
        let rows = (self.rows as usize).min(shape.grid[0]);
        let entering = rows * shape.step + shape.window[0] - shape.step;
        let each = entering * shape.window[1] + rows * shape.others + g.r * g.s;
        let busy = match caps.class {
            DeviceClass::Software => 512,
            DeviceClass::Integrated | DeviceClass::Other => 1 << 13,
            DeviceClass::Discrete | DeviceClass::Virtual => 1 << 16,
        };
        let invocations = self.count(&shape, g) * g.c / 4;
        each as f64 * (invocations as f64 / f64::from(busy)).max(1.0)
    }
}

impl fmt::Display for Strip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "strip {}x{}", self.columns, self.rows)
    }
}

/// Whether there are kernels for it here.
pub(super) fn applies(g: &Geometry) -> bool {
    g.conv.groups == g.c && g.c == g.k && g.c.is_multiple_of(4)
}

/// The strips that a device can run, the one that should be the fastest first.
pub(super) fn ranked(g: &Geometry, product: Product, caps: &Caps) -> Vec<Strip> {
    let mut strips: Vec<_> = STRIPS.into_iter().filter(|s| s.fits(g, product, caps)).collect();
    strips.sort_by(|a, b| a.cost(g, product, caps).total_cmp(&b.cost(g, product, caps)));
    strips
}

/// Adds what these kernels load and store by.
fn in_fours(kernel: Kernel) -> Kernel {
    kernel
        .with_u32("XV", 4)
        // Invocations are counted in fours of channels.
        .with_bool("WHOLE_COLUMNS", true)
        .with_library(&ACTIVATION_VEC4)
        .with_library(&COLUMNS_IN_VEC4)
        .with_library(&COLUMNS_OUT_VEC4)
}

fn in_strips(source: &'static Source, entry: &'static str, strip: Strip) -> Kernel {
    in_fours(Kernel::new(source, entry)).with_u32("COLUMNS", strip.columns).with_u32("ROWS", strip.rows)
}

/// The forward pass or the data gradient, in the strips of a choice or pixel by pixel.
pub(super) fn map(
    g: &Geometry,
    product: Product,
    choice: &Choice,
    caps: &Caps,
    finish: impl Fn(Kernel) -> Kernel,
) -> Dispatch {
    let (pixel, strips, entry, pixels, read) = match product {
        Product::GradInput => (&GRAD_INPUT, &STRIP_GRAD_INPUT, "grad_input", g.n * g.h * g.w, g.y_elements()),
        _ => (&FORWARD, &STRIP_FORWARD, "forward", g.n * g.out_h * g.out_w, g.x_elements()),
    };
    let (kernel, count) = match choice.backend {
        Backend::Strip(strip) => (in_strips(strips, entry, strip), strip.count(&strip.shape(g, product), g)),
        _ => (in_fours(Kernel::new(pixel, entry)), pixels),
    };
    let dispatch = Dispatch::new(finish(kernel), g.params().block(), grid_for(count * g.c / 4, WORKGROUP));
    in_factors(dispatch, g, caps, read, g.weight_elements())
}

/// Binds what is read, of so many elements each.
fn in_factors(dispatch: Dispatch, g: &Geometry, caps: &Caps, activations: usize, columns: usize) -> Dispatch {
    // A value is read once or a few times.
    let textures = caps.textures == TextureLoads::MuchFaster && fits_textures(g);
    factors(dispatch.specialised(), g, textures, [("activations", activations, true), ("columns_in", columns, true)])
}

/// The weight gradient, and how many partial results it leaves.
pub(super) fn grad_weight(g: &Geometry, choice: &Choice, caps: &Caps) -> (Dispatch, usize) {
    let Backend::Strip(strip) = choice.backend else {
        let pixels = g.n * g.out_h * g.out_w;
        let run = pixels.div_ceil(super::kernels::splits(g, choice, caps));
        let (kernel, [x, y]) = (in_fours(Kernel::new(&GRAD_WEIGHT, "grad_weight")), pixel_groups(g));
        let runs = pixels.div_ceil(run);
        let dispatch = Dispatch::new(kernel, g.params_of_run(run).block(), [x, y, runs as u32]);
        return (in_factors(dispatch, g, caps, g.x_elements(), g.y_elements()), runs);
    };
    let strips = strip.count(&strip.shape(g, Product::GradWeight), g);
    let lanes = wanted_groups(caps) * if caps.class == DeviceClass::Software { 8 } else { WORKGROUP as usize };
    let most = (MAX_PARTIAL_BYTES / (4 * g.r * g.s * g.c)).min(strips).max(1);
    let wanted = choice.splits.unwrap_or(lanes.div_ceil(g.c / 4)).clamp(1, most);
    // The end of a loop takes a round too.
    let longest = if all_loops_count(caps) { (LONGEST_LOOP / (2 * strip.rounds(g))).max(1) } else { MAX_RUN };
    let run = strips.div_ceil(wanted).min(longest);
    let runs = strips.div_ceil(run);
    let kernel = in_strips(&STRIP_GRAD_WEIGHT, "grad_weight", strip);
    let grid = grid_for(runs * g.c / 4, WORKGROUP);
    let dispatch = Dispatch::new(kernel, g.params_of_run(run).block(), grid);
    (in_factors(dispatch, g, caps, g.x_elements(), g.y_elements()), runs)
}

/// Workgroups for one run of a weight gradient, pixel by pixel.
pub(super) fn pixel_groups(g: &Geometry) -> [u32; 2] {
    let [x, y, _] = grid_for(g.r * g.s * g.c / 4, WORKGROUP);
    [x, y]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::{Conv2d, Padding};
    use crate::tensor::TensorType;

    #[test]
    fn with_run_time_checks_runs_are_short_enough_for_all_loops() {
        let (x, weight) = (TensorType::f32([256, 112, 112, 512]), TensorType::f32([5, 5, 1, 512]));
        let conv = Conv2d { groups: 512, padding: Padding::all(2), ..Conv2d::default() };
        let g = Geometry::of(conv, &x, &weight).unwrap();
        for strip in STRIPS {
            let longest = |checked| {
                let caps = Caps { class: DeviceClass::Software, checked, ..Caps::baseline() };
                let choice = Choice { backend: Backend::Strip(strip), splits: None };
                let runs = grad_weight(&g, &choice, &caps).1;
                strip.count(&strip.shape(&g, Product::GradWeight), &g).div_ceil(runs) * strip.rounds(&g)
            };
            assert!(longest(true) <= LONGEST_LOOP && longest(false) > LONGEST_LOOP, "{strip}");
        }
    }
}
