//! Shapes for tests, benchmarks and the self-test.

use super::reference::{Conv2dTwin, FusedTwin, NormedTwin};
use super::{Backend, COOP_TILES, Conv2d, Padding, STRIPS, WORKGROUP_TILES, conv2d};
use crate::ops::batch_norm::{BatchNorm, BatchNormTwin, Shared, batch_norm_eval, batch_norm_shared, batch_norm_train};
use crate::ops::{
    Case, CaseInput, Draw, Fill, Role, add, cast,
    random::{image, name},
    relu,
};

struct Shape {
    name: &'static str,
    x: [usize; 4],
    kernel: [usize; 2],
    filters: usize,
    bias: bool,
    conv: Conv2d,
}

/// Every kind of convolution, each with the kernels of the device's choice, the plain kernels, the direct tiles, the
/// subgroup tiles from buffers and from textures, a workgroup tile and, in f16, one of cooperative matrices; one with every
/// workgroup tile, two with every tile of matrices. Depthwise ones with the device's choice, the plain kernels and pixel by
/// pixel; one with every strip.
pub fn cases() -> Vec<Case> {
    let base = Conv2d::default();
    let pad = |pixels| Conv2d { padding: Padding::all(pixels), ..base };
    let strided = |stride: usize, pixels| Conv2d { stride: [stride; 2], ..pad(pixels) };
    let shape = |name, x, kernel, filters, bias, conv| Shape { name, x, kernel, filters, bias, conv };
    let uneven = Padding { top: 1, bottom: 2, left: 0, right: 3 };
    let shapes = [
        shape("3x3", [2, 9, 7, 8], [3, 3], 12, false, pad(1)),
        shape("3x3 more than one tile", [2, 13, 11, 20], [3, 3], 72, true, pad(1)),
        shape("more than one tile, odd channels, stride", [2, 19, 17, 9], [3, 3], 67, true, strided(2, 1)),
        shape("3x3 stride 2", [2, 10, 9, 8], [3, 3], 16, false, strided(2, 1)),
        shape("1x1", [3, 6, 5, 16], [1, 1], 24, false, base),
        shape("1x1 stride 2", [2, 7, 8, 12], [1, 1], 8, false, strided(2, 0)),
        shape("stem 7x7 stride 2 of 3 channels", [2, 21, 19, 3], [7, 7], 16, false, strided(2, 3)),
        shape("lanes of eight columns", [2, 5, 4, 60], [3, 3], 60, true, pad(1)),
        shape("lanes of eight columns, odd", [1, 5, 4, 61], [1, 1], 59, true, base),
        shape("two channels, uneven padding", [1, 6, 7, 2], [3, 4], 5, true, Conv2d { padding: uneven, ..base }),
        shape("odd channels", [1, 8, 9, 5], [3, 3], 7, true, pad(1)),
        shape("odd channels in, even out", [1, 6, 6, 7], [3, 2], 4, true, pad(1)),
        shape("uneven padding", [2, 6, 8, 4], [3, 3], 6, true, Conv2d { padding: uneven, ..base }),
        shape(
            "uneven padding and stride",
            [2, 9, 11, 4],
            [5, 3],
            8,
            true,
            Conv2d { padding: uneven, stride: [3, 2], ..base },
        ),
        shape("dilation", [1, 12, 11, 4], [3, 3], 8, false, Conv2d { dilation: [2, 3], ..pad(2) }),
        shape("dilation and stride", [2, 13, 14, 4], [3, 3], 4, false, Conv2d { dilation: [3, 2], ..strided(2, 3) }),
        shape("stride beyond the kernel", [2, 11, 10, 4], [1, 2], 4, false, strided(3, 0)),
        shape(
            "1x7",
            [2, 5, 12, 8],
            [1, 7],
            12,
            false,
            Conv2d { padding: Padding { left: 3, right: 3, ..Padding::default() }, ..base },
        ),
        shape(
            "7x1",
            [2, 12, 5, 8],
            [7, 1],
            12,
            false,
            Conv2d { padding: Padding { top: 3, bottom: 3, ..Padding::default() }, ..base },
        ),
        shape(
            "1x3, padding differs, stride",
            [2, 7, 10, 8],
            [1, 3],
            12,
            true,
            Conv2d { padding: Padding { left: 2, right: 1, ..Padding::default() }, stride: [1, 2], ..base },
        ),
        shape("3x1 without padding", [2, 9, 6, 12], [3, 1], 8, false, base),
        shape("3x3 stride 2 without padding", [2, 11, 9, 8], [3, 3], 12, false, strided(2, 0)),
        shape("one pixel", [1, 1, 1, 8], [3, 3], 8, true, pad(1)),
        shape("kernel of the map's size", [2, 4, 5, 3], [4, 5], 6, true, base),
        shape("linear 33 to 7", [5, 1, 1, 33], [1, 1], 7, true, base),
        shape("linear 512 to 7", [4, 1, 1, 512], [1, 1], 7, true, base),
        shape("more than any tile of matrices", [1, 17, 16, 132], [1, 1], 136, true, base),
        shape("many channels", [1, 8, 9, 1024], [3, 3], 8, false, pad(1)),
        // With run-time checks just fewer rounds of loops than the driver below makes: in tiles of subgroups forward and
        // backward, and in direct tiles.
        shape("as many inputs as loops let", [33, 1, 1, 7696], [1, 1], 7, false, base),
        shape("as many outputs as loops let", [33, 1, 1, 7], [1, 1], 7696, false, base),
        shape("as many inputs as loops of direct tiles let", [9, 1, 1, 26_200], [1, 1], 20, false, base),
        shape("long reduction", [4, 32, 30, 4], [3, 3], 8, true, pad(1)),
        // Mesa's software driver (22.3) ends loops after 65,535 rounds, and says nothing.
        shape("very long reduction", [2, 190, 190, 1], [1, 1], 1, false, base),
        shape("two groups", [2, 7, 6, 8], [3, 3], 12, true, Conv2d { groups: 2, ..pad(1) }),
        shape("depthwise", [2, 9, 8, 10], [3, 3], 10, false, Conv2d { groups: 10, ..strided(2, 1) }),
        shape("depthwise in fours", [2, 9, 8, 12], [3, 3], 12, true, Conv2d { groups: 12, ..strided(2, 1) }),
        shape(
            "depthwise in fours, more than a workgroup",
            [2, 19, 17, 72],
            [3, 3],
            72,
            false,
            Conv2d { groups: 72, ..pad(1) },
        ),
        shape(
            "depthwise in fours, dilated",
            [1, 12, 11, 4],
            [3, 2],
            4,
            false,
            Conv2d { groups: 4, dilation: [2, 3], ..pad(2) },
        ),
        shape("depthwise in fours, long reduction", [4, 32, 30, 8], [5, 5], 8, true, Conv2d { groups: 8, ..pad(2) }),
        shape(
            "depthwise 5x5 in fours, stride 2",
            [2, 11, 8, 12],
            [5, 5],
            12,
            false,
            Conv2d { groups: 12, ..strided(2, 2) },
        ),
        shape("depthwise 7x7 in fours", [1, 9, 10, 8], [7, 7], 8, true, Conv2d { groups: 8, ..pad(3) }),
        shape(
            "depthwise in fours, stride beyond the kernel, uneven padding",
            [2, 11, 13, 4],
            [2, 1],
            4,
            true,
            Conv2d { groups: 4, padding: uneven, stride: [3, 2], ..base },
        ),
        shape(
            "depthwise in fours, dilation and stride",
            [1, 13, 14, 8],
            [3, 3],
            8,
            false,
            Conv2d { groups: 8, dilation: [3, 2], ..strided(2, 3) },
        ),
        shape(
            "depthwise in fours, dilated beyond registers",
            [1, 33, 30, 4],
            [3, 3],
            4,
            false,
            Conv2d { groups: 4, dilation: [12, 12], ..pad(12) },
        ),
        shape("depthwise with multiplier", [1, 6, 7, 5], [3, 3], 15, true, Conv2d { groups: 5, ..pad(1) }),
    ];
    let mut cases = vec![];
    for s in shapes {
        // These shapes are small, and compiling large tiles takes a driver long: one shape has all, all have the
        // smallest.
        let tiles = WORKGROUP_TILES.into_iter().enumerate().filter(|(i, _)| match s.name {
            "3x3 more than one tile" => true,
            "more than one tile, odd channels, stride" => i % 4 == 3,
            _ => i + 1 == WORKGROUP_TILES.len(),
        });
        let tiles = tiles.map(|(_, tile)| Backend::Workgroup(tile));
        let mut backends = vec![Backend::Auto, Backend::Plain];
        if s.name == "more than any tile of matrices" {
            backends = COOP_TILES.map(Backend::Coop).to_vec();
        } else if s.conv.groups == 1 {
            let matrices = COOP_TILES.into_iter().enumerate().filter(|(i, _)| match s.name {
                "3x3 more than one tile" => true,
                "more than one tile, odd channels, stride" => i % 3 == 0,
                _ => *i == 0,
            });
            let matrices = matrices.map(|(_, tile)| Backend::Coop(tile));
            let tiled = [Backend::Direct, Backend::Subgroup, Backend::Texture];
            backends.extend(tiled.into_iter().chain(matrices).chain(tiles));
        } else if s.name.contains("in fours") {
            // All have strips of the device's choice; one has all.
            let strips = STRIPS.into_iter().filter(|_| s.name == "depthwise in fours, more than a workgroup");
            backends.extend([Backend::Depthwise].into_iter().chain(strips.map(Backend::Strip)));
        }
        for backend in backends {
            let conv = Conv2d { backend, ..s.conv };
            let weight = [s.kernel[0], s.kernel[1], s.x[3] / conv.groups, s.filters];
            let mut inputs = vec![CaseInput::normal(s.x), CaseInput::normal(weight)];
            inputs.extend(s.bias.then(|| CaseInput::normal([s.filters])));
            let name = format!("{} {}", s.name, backend.label());
            let case = Case::new("conv2d", name, inputs, Conv2dTwin { conv }, move |tape, x| {
                Ok(vec![conv2d(tape, x[0], x[1], x.get(2).copied(), conv)?])
            });
            // Cooperative matrices multiply f16 only.
            cases.push(if matches!(conv.backend, Backend::Coop(_)) { case.in_half(&[0, 1]) } else { case });
        }
    }
    cases.extend(fused_cases());
    cases
}

/// With what the planner fuses behind a convolution: batch-norm in evaluation (which has no gradient here, or it would
/// not be fused), a residual, ReLU.
fn fused_cases() -> Vec<Case> {
    let mut cases = vec![];
    for backend in [Backend::Plain, Backend::Direct, Backend::Subgroup, Backend::Texture] {
        for (filters, bias, norm, residual) in [
            (12, false, true, true),
            (12, true, true, false),
            (7, false, true, true),
            (12, true, false, false),
            (12, false, false, true),
            (7, true, false, true),
        ] {
            let conv = Conv2d { backend, padding: Padding::all(1), ..Conv2d::default() };
            let role = if norm { Role::Fixed } else { Role::Differentiable };
            let input = |shape: &[usize]| CaseInput::new(shape.to_vec(), Fill::Normal, role);
            let mut inputs = vec![input(&[2, 5, 6, 8]), input(&[3, 3, 8, filters])];
            inputs.extend(bias.then(|| input(&[filters])));
            if norm {
                inputs.extend([input(&[filters]), input(&[filters]), input(&[filters])]);
                inputs.push(CaseInput::new([filters], Fill::Uniform(0.5, 2.0), role));
            }
            inputs.extend(residual.then(|| input(&[2, 5, 6, filters])));
            let eps = 1e-3_f32;
            let norm_eps = norm.then_some(f64::from(eps));
            let twin = FusedTwin { conv: Conv2dTwin { conv }, bias, norm_eps, residual };
            let parts = [bias.then_some(" bias"), norm.then_some(" norm"), residual.then_some(" residual")];
            let parts = parts.into_iter().flatten().collect::<String>();
            let name = format!("fused to {filters}:{parts} {}", backend.label());
            cases.push(Case::new("conv2d", name, inputs, twin, move |tape, x| {
                let mut y = conv2d(tape, x[0], x[1], bias.then(|| x[2]), conv)?;
                let rest = &x[2 + usize::from(bias)..];
                if norm {
                    let spec = BatchNorm { eps, momentum: 0.1 };
                    y = batch_norm_eval(tape, y, Some(rest[0]), rest[1], rest[2], rest[3], spec)?;
                }
                if residual {
                    let dtype = tape.ty(y).dtype;
                    let r = cast::cast(tape, x[x.len() - 1], dtype)?;
                    y = add::add(tape, y, r)?;
                }
                Ok(vec![relu::relu(tape, y)?])
            }));
        }
    }
    cases
}

/// With batch-norm in training behind it, whose statistics the convolution's kernel gathers: less than a run of rows, some,
/// and more than are merged at once; results far from zero. In f32 and, rounded to f16 in between, in f16.
pub fn normed_cases() -> Vec<Case> {
    let base = Conv2d { padding: Padding::all(1), ..Conv2d::default() };
    let strided = Conv2d { stride: [2, 2], padding: Padding::all(3), ..base };
    let one = Conv2d { padding: Padding::default(), ..base };
    let shapes = [
        ("a few rows", [2, 3, 3, 8], [3, 3], 12, base, 0.0),
        ("a part of a tile", [2, 13, 11, 20], [3, 3], 72, base, 0.0),
        ("stem", [2, 21, 19, 3], [7, 7], 16, strided, 0.0),
        ("lanes of eight columns", [2, 9, 8, 8], [3, 3], 60, base, 0.0),
        ("many rows", [3, 60, 61, 4], [1, 1], 4, one, 0.0),
        ("far from zero", [2, 16, 17, 4], [1, 1], 8, one, 100.0),
        ("odd filters", [2, 9, 8, 4], [1, 1], 7, one, 0.0),
    ];
    let tiles = [3, 4, 6, 8, 9, 10, 11].map(|i| Backend::Workgroup(WORKGROUP_TILES[i]));
    let mut cases = vec![];
    for (name, x, kernel, filters, conv, mean) in shapes {
        let tiles = tiles.into_iter().enumerate().filter(|(i, _)| name == "a part of a tile" || *i + 1 == tiles.len());
        let matrices = COOP_TILES.into_iter().enumerate().filter(|(i, _)| name == "a part of a tile" || *i == 0);
        let matrices = matrices.map(|(_, tile)| Backend::Coop(tile));
        let backends = [Backend::Auto, Backend::Direct, Backend::Subgroup, Backend::Texture];
        for backend in backends.into_iter().chain(matrices).chain(tiles.map(|(_, tile)| tile)) {
            let conv = Conv2d { backend, ..conv };
            let spec = BatchNorm { eps: 1e-5, momentum: 0.1 };
            let inputs = vec![
                CaseInput::new(x, Fill::Gaussian(mean, 1.0), Role::Differentiable),
                CaseInput::normal([kernel[0], kernel[1], x[3], filters]),
                CaseInput::normal([filters]),
                CaseInput::new([filters], Fill::Gaussian(0.0, 0.3), Role::Updated),
                CaseInput::new([filters], Fill::Uniform(0.5, 2.0), Role::Updated),
                CaseInput::normal([filters]),
            ];
            let twin = NormedTwin { conv: Conv2dTwin { conv }, norm: BatchNormTwin { spec, train: true } };
            let backend = backend.label();
            // As one of several ranks: one that is alone.
            let is_shared = name.starts_with("a part") && conv.backend == Backend::Auto;
            let name = format!("normed{}, {name} {backend}", if is_shared { " with others" } else { "" });
            let case = Case::new("conv2d", name, inputs, twin, move |tape, x| {
                let y = conv2d(tape, x[0], x[1], None, conv)?;
                let shared = Shared { spec, rows: tape.shape(y).rows() };
                Ok(vec![match is_shared {
                    true => batch_norm_shared(tape, y, Some(x[5]), x[2], x[3], x[4], shared)?,
                    false => batch_norm_train(tape, y, Some(x[5]), x[2], x[3], x[4], spec)?,
                }])
            });
            if mean == 0.0 {
                // What lies between convolution and norm is rounded, and all that follows is f32.
                cases.push(case.in_half(&[0, 1]).tolerance(2e-3));
            }
            // Cooperative matrices multiply f16 only.
            if !matches!(conv.backend, Backend::Coop(_)) {
                cases.push(case);
            }
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [_, height, width, c] = image(x)?;
    let window = draw.window([height, width]);
    let (groups, filters) = match draw.below(4) {
        0 => (c, c * draw.of(&[1, 1, 1, 2])),
        1 if c % 2 == 0 => (2, 2 * draw.of(&[1, 3, 4])),
        _ => (1, draw.channels()),
    };
    let (tile, matrices) = (Backend::Workgroup(draw.of(&WORKGROUP_TILES)), Backend::Coop(draw.of(&COOP_TILES)));
    let backends: &[Backend] = if groups == 1 {
        &[Backend::Plain, Backend::Direct, Backend::Subgroup, Backend::Texture, tile, matrices]
    } else {
        &[Backend::Plain, Backend::Depthwise, Backend::Strip(draw.of(&STRIPS))]
    };
    let mut conv = Conv2d {
        stride: window.stride,
        padding: window.padding,
        dilation: [1, 1],
        groups,
        backend: if draw.flag() { Backend::Auto } else { draw.of(backends) },
    };
    if draw.one_in(4) {
        conv.dilation = [0, 1].map(|axis| {
            let (extent, pads) = match axis {
                0 => (height, window.padding.top + window.padding.bottom),
                _ => (width, window.padding.left + window.padding.right),
            };
            1 + usize::from(extent + pads > 2 * (window.size[axis] - 1))
        });
    }
    let [r, s] = window.size;
    let terms = r * s * c / groups;
    let mut inputs = vec![CaseInput::normal(x), CaseInput::weight([r, s, c / groups, filters], terms)];
    inputs.extend(draw.flag().then(|| CaseInput::weight([filters], 4)));
    let name = name(x, ([r, s], filters, conv));
    Some(Case::new("conv2d", name, inputs, Conv2dTwin { conv }, move |tape, x| {
        Ok(vec![conv2d(tape, x[0], x[1], x.get(2).copied(), conv)?])
    }))
}
