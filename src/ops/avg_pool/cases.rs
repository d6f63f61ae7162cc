//! Shapes for tests, benchmarks and the self-test.

use super::avg_pool;
use super::reference::AvgPoolTwin;
use crate::ops::window::geometries;
use crate::ops::{
    Case, CaseInput, Draw,
    random::{image, name},
};

/// Every window geometry with both divisors.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (name, shape, window) in geometries() {
        for count_include_pad in [false, true] {
            let twin = AvgPoolTwin { window, count_include_pad };
            let divisor = if count_include_pad { "padding counts" } else { "padding does not count" };
            let inputs = vec![CaseInput::normal(shape)];
            cases.push(Case::new("avg_pool", format!("{name}, {shape:?}, {divisor}"), inputs, twin, move |tape, x| {
                Ok(vec![avg_pool(tape, x[0], window, count_include_pad)?])
            }));
        }
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let [_, height, width, _] = image(x)?;
    let (window, count_include_pad) = (draw.window([height, width]), draw.flag());
    let twin = AvgPoolTwin { window, count_include_pad };
    let name = name(x, (window, count_include_pad));
    Some(Case::new("avg_pool", name, vec![CaseInput::normal(x)], twin, move |tape, x| {
        Ok(vec![avg_pool(tape, x[0], window, count_include_pad)?])
    }))
}
