//! Shapes for tests, benchmarks and the self-test.

use super::reference::ConvTransposeTwin;
use super::{ConvTranspose2d, conv_transpose2d};
use crate::ops::conv2d::{Backend, COOP_TILES, Padding, WORKGROUP_TILES};
use crate::ops::{
    Case, CaseInput, Draw,
    random::{image, name},
};

/// What decoders use and what is particular: PyTorch's and Keras's ways to double extents, odd channels, a kernel smaller
/// and larger than the stride, extents that differ along the axes; all with the device's choice, the corners of the
/// convolution's kernels for two of them.
pub fn cases() -> Vec<Case> {
    let base = ConvTranspose2d::default();
    let strided = |stride, pixels, more| ConvTranspose2d {
        stride: [stride; 2],
        padding: Padding::all(pixels),
        output_padding: [more; 2],
        ..base
    };
    let same = Padding { top: 0, bottom: 1, left: 0, right: 1 };
    let uneven = ConvTranspose2d {
        stride: [3, 2],
        padding: Padding { top: 1, bottom: 0, left: 2, right: 1 },
        output_padding: [2, 1],
        ..base
    };
    let shapes = [
        ("2x2 stride 2", [2, 5, 6, 12], [2, 2], 8, true, strided(2, 0, 0)),
        ("2x2 stride 2, odd channels", [2, 4, 7, 5], [2, 2], 3, true, strided(2, 0, 0)),
        ("3x3 stride 2 doubles", [2, 6, 5, 8], [3, 3], 12, true, strided(2, 1, 1)),
        (
            "3x3 stride 2 doubles as in Keras",
            [1, 7, 6, 8],
            [3, 3],
            4,
            true,
            ConvTranspose2d { padding: same, ..strided(2, 0, 0) },
        ),
        ("3x3, odd channels", [2, 5, 6, 7], [3, 3], 9, false, strided(1, 1, 0)),
        ("4x4 stride 2", [1, 6, 7, 16], [4, 4], 20, false, strided(2, 1, 0)),
        ("1x1", [2, 5, 4, 8], [1, 1], 12, true, base),
        ("1x1 stride 2", [2, 4, 5, 4], [1, 1], 8, true, strided(2, 0, 1)),
        ("one pixel", [3, 1, 1, 6], [3, 4], 5, true, base),
        ("uneven", [2, 5, 4, 4], [5, 3], 8, true, uneven),
        ("dilation", [1, 5, 6, 4], [3, 3], 8, false, ConvTranspose2d { dilation: [2, 3], ..strided(2, 1, 1) }),
        ("more than one tile", [2, 9, 11, 68], [3, 3], 36, true, strided(2, 1, 1)),
    ];
    let mut cases = vec![];
    for (name, x, [r, s], filters, bias, spec) in shapes {
        let all = [
            Backend::Auto,
            Backend::Plain,
            Backend::Direct,
            Backend::Subgroup,
            Backend::Texture,
            Backend::Coop(COOP_TILES[0]),
            Backend::Workgroup(WORKGROUP_TILES[WORKGROUP_TILES.len() - 1]),
        ];
        let every = ["3x3 stride 2 doubles", "uneven"].contains(&name);
        for backend in all.into_iter().take(if every { all.len() } else { 1 }) {
            let spec = ConvTranspose2d { backend, ..spec };
            let mut inputs = vec![CaseInput::normal(x), CaseInput::normal([r, s, filters, x[3]])];
            inputs.extend(bias.then(|| CaseInput::normal([filters])));
            let backend = backend.label();
            let twin = ConvTransposeTwin { spec };
            let case = Case::new("conv_transpose2d", format!("{name} {backend}"), inputs, twin, move |tape, x| {
                Ok(vec![conv_transpose2d(tape, x[0], x[1], x.get(2).copied(), spec)?])
            });
            // Cooperative matrices multiply f16 only.
            cases.push(if matches!(spec.backend, Backend::Coop(_)) { case.in_half(&[0, 1]) } else { case });
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [_, _, _, c] = image(x)?;
    let filters = draw.channels();
    // A window of the result.
    let window = draw.window([4, 5]);
    let tile = Backend::Workgroup(WORKGROUP_TILES[WORKGROUP_TILES.len() - 1]);
    let spec = ConvTranspose2d {
        stride: window.stride,
        padding: window.padding,
        output_padding: window.stride.map(|stride| draw.below(stride)),
        dilation: [1, 1],
        backend: draw.of(&[Backend::Auto, Backend::Auto, Backend::Plain, Backend::Direct, Backend::Subgroup, tile]),
    };
    let weight = CaseInput::weight([window.size[0], window.size[1], filters, c], c * window.size[0] * window.size[1]);
    let fits = spec.geometry(&CaseInput::normal(x).ty, &weight.ty).is_ok();
    let mut inputs = vec![CaseInput::normal(x), weight];
    inputs.extend(draw.flag().then(|| CaseInput::weight([filters], 4)));
    let name = name(x, (window.size, filters, spec));
    let case = Case::new("conv_transpose2d", name, inputs, ConvTransposeTwin { spec }, move |tape, x| {
        Ok(vec![conv_transpose2d(tape, x[0], x[1], x.get(2).copied(), spec)?])
    });
    fits.then_some(case)
}
