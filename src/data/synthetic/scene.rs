//! What a picture shows: noise, colours, outlines and lines, all drawn from counter-based random numbers.

use crate::rng::Stream;

/// A colour as red, green, blue in [0, 1].
pub(super) type Rgb = [f32; 3];

/// Numbers drawn one after another from a stream.
pub(super) struct Draws {
    stream: Stream,
    next: u64,
}

impl Draws {
    pub fn new(seed: u32, name: &str, number: u64) -> Self {
        // The number's words key a stream of their own, so draws of different numbers never coincide.
        let [a, b] = Stream::named(seed, name).words([number as u32, (number >> 32) as u32]);
        Self { stream: Stream::new(a, b), next: 0 }
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        self.next += 1;
        low + (high - low) * self.stream.uniform(self.next)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.range(0.0, 1.0) < p
    }

    /// `colour` made lighter or darker by up to `by` of itself, and warmer or cooler by up to a third of that. Green
    /// moves with neither alone, so no tissue turns green.
    pub fn near(&mut self, colour: Rgb, by: f32) -> Rgb {
        let scale = 1.0 + self.range(-by, by);
        let warmth = self.range(-by, by) / 3.0;
        [colour[0] * scale + warmth, colour[1] * scale - 0.3 * warmth, colour[2] * scale - 0.6 * warmth]
    }
}

pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    let t = t.clamp(0.0, 1.0);
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

pub(super) fn scale(colour: Rgb, by: f32) -> Rgb {
    colour.map(|c| c * by)
}

/// 0 below `low`, 1 above `high`, smooth in between.
pub(super) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Side of the noise table, a power of two.
const SIDE: usize = 64;

/// Smooth noise over the plane: a table of random numbers, interpolated.
pub(super) struct Noise {
    table: Vec<f32>,
}

impl Noise {
    pub fn new(draws: &mut Draws) -> Self {
        Self { table: (0..SIDE * SIDE).map(|_| draws.range(0.0, 1.0)).collect() }
    }

    fn lattice(&self, x: i32, y: i32) -> f32 {
        let wrap = |v: i32| v.rem_euclid(SIDE as i32) as usize;
        self.table[wrap(y) * SIDE + wrap(x)]
    }

    /// Value in [0, 1], of feature size about 1. Different `layer`s look independent.
    pub fn value(&self, x: f32, y: f32, layer: f32) -> f32 {
        let (x, y) = (x + layer * 17.31, y + layer * 29.73);
        let (x0, y0) = (x.floor(), y.floor());
        let (u, v) = (smoothstep(0.0, 1.0, x - x0), smoothstep(0.0, 1.0, y - y0));
        let (i, j) = (x0 as i32, y0 as i32);
        let top = self.lattice(i, j) * (1.0 - u) + self.lattice(i + 1, j) * u;
        let bottom = self.lattice(i, j + 1) * (1.0 - u) + self.lattice(i + 1, j + 1) * u;
        top * (1.0 - v) + bottom * v
    }

    /// Four octaves of [`Self::value`], in [0, 1], mostly near 0.5.
    pub fn cloud(&self, x: f32, y: f32, layer: f32) -> f32 {
        let mut sum = 0.0;
        let mut weight = 0.5;
        let mut frequency = 1.0;
        for octave in 0..4 {
            sum += weight * self.value(x * frequency, y * frequency, layer + 3.7 * octave as f32);
            weight *= 0.5;
            frequency *= 2.03;
        }
        sum / 0.9375
    }

    /// Distances from the nearest and the second nearest of points strewn one a unit square, and the nearest's own
    /// random number.
    pub fn cells(&self, x: f32, y: f32, layer: f32) -> (f32, f32, f32) {
        let (x, y) = (x + layer * 17.0, y + layer * 29.0);
        let (i, j) = (x.floor() as i32, y.floor() as i32);
        let (mut first, mut second, mut own) = (f32::MAX, f32::MAX, 0.0);
        for (di, dj) in (-1..=1).flat_map(|dj| (-1..=1).map(move |di| (di, dj))) {
            let (ci, cj) = (i + di, j + dj);
            let px = ci as f32 + 0.15 + 0.7 * self.lattice(ci, cj);
            let py = cj as f32 + 0.15 + 0.7 * self.lattice(ci + 31, cj + 17);
            let d = (px - x).hypot(py - y);
            if d < first {
                (second, first, own) = (first, d, self.lattice(ci + 11, cj + 43));
            } else if d < second {
                second = d;
            }
        }
        (first, second, own)
    }
}

/// A closed outline around the origin: a radius for each angle.
pub(super) struct Outline {
    radius: f32,
    stretch: f32,
    tilt: f32,
    waves: Vec<(f32, f32, f32)>,
}

impl Outline {
    /// `irregular` is the size of the waves relative to the radius: 0.03 is round, 0.25 is ragged.
    pub fn new(draws: &mut Draws, radius: f32, irregular: f32) -> Self {
        let waves = (2..=7).map(|k| {
            let k = k as f32;
            (k, irregular * draws.range(0.3, 1.0) * 2.2 / k, draws.range(0.0, std::f32::consts::TAU))
        });
        let waves = waves.collect();
        Self { radius, stretch: draws.range(1.0, 1.0 + 0.15 + irregular), tilt: draws.range(0.0, 3.2), waves }
    }

    /// How far inside the outline a point is (negative outside), about in units of the plane; and its place from the
    /// middle (0) to the rim (1).
    pub fn depth(&self, x: f32, y: f32) -> (f32, f32) {
        let (sin, cos) = self.tilt.sin_cos();
        let (u, v) = ((x * cos + y * sin) / self.stretch, (y * cos - x * sin) * self.stretch.sqrt());
        let angle = v.atan2(u);
        let wave: f32 = self.waves.iter().map(|(k, a, phase)| a * (k * angle + phase).sin()).sum();
        let rim = self.radius * (1.0 + wave).max(0.3);
        let r = u.hypot(v);
        (rim - r, r / rim)
    }
}

/// A curved line of some width: a hair or a vessel.
pub(super) struct Curve {
    pub points: Vec<[f32; 2]>,
    /// Half width in units of the plane.
    pub half_width: f32,
    pub strength: f32,
}

impl Curve {
    /// A line that starts at `start` and wanders: `bend` is the largest turn a step in radians.
    pub fn wander(draws: &mut Draws, start: [f32; 2], heading: f32, length: f32, bend: f32, half_width: f32) -> Self {
        const STEPS: usize = 16;
        let (mut at, mut heading, drift) = (start, heading, draws.range(-bend, bend) * 0.4);
        let mut points = vec![at];
        for _ in 0..STEPS {
            heading += drift + draws.range(-bend, bend) * 0.6;
            let step = length / STEPS as f32;
            at = [at[0] + step * heading.cos(), at[1] + step * heading.sin()];
            points.push(at);
        }
        Self { points, half_width, strength: draws.range(0.6, 1.0) }
    }
}
