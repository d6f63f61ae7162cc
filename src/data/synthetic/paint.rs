//! Drawing one synthetic picture.

use image::{GrayImage, Luma, RgbImage};

use super::View;
use super::scene::{Curve, Draws, Noise, Outline, Rgb, mix, scale, smoothstep};

/// What the classes differ in, before chance varies it.
struct Traits {
    /// Range of the radius; the picture spans -1 to 1.
    radius: [f32; 2],
    /// Range of the outline's irregularity.
    irregular: [f32; 2],
    /// Range of the width of the transition to skin.
    blur: [f32; 2],
    /// Range of how strongly the lesion's colour covers the skin.
    cover: [f32; 2],
    /// Main colours, of which one is chosen.
    colours: &'static [Rgb],
}

/// In the order of the classes: akiec, bcc, bkl, df, mel, nv, vasc. The ranges overlap on purpose.
const TRAITS: [Traits; 7] = [
    Traits {
        radius: [0.38, 0.75],
        irregular: [0.08, 0.22],
        blur: [0.10, 0.24],
        cover: [0.55, 0.85],
        colours: &[[0.78, 0.45, 0.40], [0.74, 0.48, 0.40], [0.82, 0.50, 0.48]],
    },
    Traits {
        radius: [0.32, 0.68],
        irregular: [0.06, 0.18],
        blur: [0.06, 0.18],
        cover: [0.50, 0.80],
        colours: &[[0.84, 0.60, 0.58], [0.78, 0.54, 0.50], [0.72, 0.56, 0.56]],
    },
    Traits {
        radius: [0.36, 0.74],
        irregular: [0.06, 0.20],
        blur: [0.02, 0.06],
        cover: [0.70, 0.95],
        colours: &[[0.62, 0.44, 0.28], [0.52, 0.36, 0.25], [0.68, 0.53, 0.38]],
    },
    Traits {
        radius: [0.30, 0.52],
        irregular: [0.04, 0.12],
        blur: [0.12, 0.24],
        cover: [0.60, 0.90],
        colours: &[[0.64, 0.43, 0.33], [0.70, 0.48, 0.40]],
    },
    Traits {
        radius: [0.36, 0.76],
        irregular: [0.08, 0.26],
        blur: [0.03, 0.10],
        cover: [0.85, 1.00],
        colours: &[[0.36, 0.22, 0.17], [0.44, 0.28, 0.20], [0.30, 0.20, 0.19]],
    },
    Traits {
        radius: [0.28, 0.66],
        irregular: [0.03, 0.17],
        blur: [0.04, 0.14],
        cover: [0.70, 1.00],
        colours: &[[0.52, 0.34, 0.24], [0.43, 0.27, 0.19], [0.60, 0.40, 0.30], [0.64, 0.42, 0.36]],
    },
    Traits {
        radius: [0.26, 0.56],
        irregular: [0.04, 0.18],
        blur: [0.02, 0.08],
        cover: [0.80, 1.00],
        colours: &[[0.66, 0.20, 0.22], [0.52, 0.18, 0.26], [0.42, 0.17, 0.26]],
    },
];

/// How many lesions have much of another class's colour.
const ATYPICAL: f32 = 0.2;
/// Skin between fair and tan, as a dermatoscope shows it.
const SKIN: [Rgb; 3] = [[0.88, 0.70, 0.66], [0.82, 0.62, 0.56], [0.74, 0.56, 0.46]];
const BLUE_GRAY: Rgb = [0.38, 0.40, 0.48];
const SCALE_WHITE: Rgb = [0.93, 0.87, 0.78];
const VESSEL: Rgb = [0.66, 0.18, 0.20];

/// Everything about a lesion that its views share.
struct Lesion {
    label: usize,
    noise: Noise,
    outline: Outline,
    blur: f32,
    cover: f32,
    colour: Rgb,
    /// A second colour of the class, where it has one.
    accent: Rgb,
    skin: Rgb,
    /// How marked the class's own pattern is, from hinted at to plain.
    marked: f32,
    /// Where the darkest or palest part lies.
    focus: [f32; 2],
    vessels: Vec<Curve>,
    hairs: Vec<Curve>,
    hair_colour: Rgb,
}

impl Lesion {
    fn new(seed: u32, view: View) -> Self {
        let mut draws = Draws::new(seed, "synthetic scene", view.lesion);
        let d = &mut draws;
        let traits = &TRAITS[view.label];
        let between = |d: &mut Draws, [low, high]: [f32; 2]| d.range(low, high);
        let noise = Noise::new(d);
        let radius = between(d, traits.radius);
        let irregular = between(d, traits.irregular);
        let outline = Outline::new(d, radius, irregular);
        let pick = (d.range(0.0, traits.colours.len() as f32) as usize).min(traits.colours.len() - 1);
        let mut colour = d.near(traits.colours[pick], 0.14);
        if d.chance(ATYPICAL) {
            let other = &TRAITS[(d.range(0.0, 7.0) as usize).min(6)];
            colour = mix(colour, other.colours[0], 0.6);
        }
        let skin_tone = d.range(0.0, 2.0);
        let skin =
            if skin_tone < 1.0 { mix(SKIN[0], SKIN[1], skin_tone) } else { mix(SKIN[1], SKIN[2], skin_tone - 1.0) };
        let accent = match view.label {
            0 => SCALE_WHITE,
            1 => BLUE_GRAY,
            2 => [0.90, 0.78, 0.58],
            3 => [0.93, 0.84, 0.80],
            4 => [0.13, 0.10, 0.12],
            5 => scale(colour, 0.72),
            _ => [0.24, 0.08, 0.20],
        };
        let (angle, away) = (d.range(0.0, 6.3), radius * d.range(0.1, 0.45));
        let vessels = match view.label {
            1 => branching_vessels(d, radius),
            0 => short_vessels(d, radius),
            _ => Vec::new(),
        };
        let hair_count = if d.chance(0.45) { d.range(1.0, 11.0) as usize } else { 0 };
        let heading = d.range(0.0, 6.3);
        let hairs = (0..hair_count).map(|_| {
            let start = [d.range(-1.3, 1.3), d.range(-1.3, 1.3)];
            let (turn, length, width) = (d.range(-0.7, 0.7), d.range(0.7, 2.2), d.range(0.006, 0.013));
            Curve::wander(d, start, heading + turn, length, 0.12, width)
        });
        let hairs = hairs.collect();
        Self {
            label: view.label,
            noise,
            outline,
            blur: between(d, traits.blur),
            cover: between(d, traits.cover),
            colour,
            accent: d.near(accent, 0.06),
            skin: d.near(skin, 0.05),
            marked: d.range(0.15, 1.0),
            focus: [away * angle.cos(), away * angle.sin()],
            vessels,
            hairs,
            hair_colour: d.near([0.24, 0.17, 0.13], 0.10),
        }
    }

    /// The skin's colour at a point of the lesion's plane.
    fn skin_at(&self, x: f32, y: f32) -> Rgb {
        let n = &self.noise;
        let mottle = n.cloud(x * 1.6, y * 1.6, 1.0) - 0.5;
        // Fine furrows cross the skin: ridges of noise at a small scale.
        let furrow = (n.value(x * 9.0, y * 9.0, 2.0) - 0.5).abs() * 2.0;
        let red = [1.0 + 0.10 * mottle, 1.0 - 0.10 * mottle, 1.0 - 0.08 * mottle];
        let light = 1.0 - 0.025 * smoothstep(0.30, 0.0, furrow);
        [self.skin[0] * red[0] * light, self.skin[1] * red[1] * light, self.skin[2] * red[2] * light]
    }

    /// The colour and the cover of the lesion at a point, and whether the point counts as lesion.
    fn lesion_at(&self, x: f32, y: f32) -> (Rgb, f32, bool) {
        let n = &self.noise;
        // Warping the plane a little breaks the smoothness of the outline.
        let ragged = if self.label == 4 { 0.07 } else { 0.03 };
        let wx = x + ragged * (n.cloud(x * 4.0, y * 4.0, 4.0) - 0.5) * 2.0;
        let wy = y + ragged * (n.cloud(x * 4.0, y * 4.0, 5.0) - 0.5) * 2.0;
        let (depth, place) = self.outline.depth(wx, wy);
        let edge = smoothstep(-self.blur, self.blur, depth);
        if edge == 0.0 {
            return (self.colour, 0.0, false);
        }
        let cloud = n.cloud(x * 3.0, y * 3.0, 6.0);
        let base = scale(self.colour, 0.86 + 0.28 * cloud);
        let (colour, cover) = match self.label {
            0 => self.akiec(base, x, y),
            1 => self.bcc(base, x, y, place),
            2 => self.bkl(base, x, y, depth),
            3 => self.df(base, x, y, place),
            4 => self.mel(base, x, y, place),
            5 => self.nv(base, x, y, place),
            _ => self.vasc(base, x, y, place),
        };
        (colour, edge * self.cover * cover, depth > 0.0)
    }

    /// Rough and pinkish: red mottling under pale scales.
    fn akiec(&self, base: Rgb, x: f32, y: f32) -> (Rgb, f32) {
        let n = &self.noise;
        let rough = n.value(x * 12.0, y * 12.0, 7.0);
        let scales = smoothstep(0.54, 0.72, n.cloud(x * 6.5, y * 6.5, 8.0)) * self.marked;
        let red = mix(base, [0.70, 0.30, 0.28], 0.5 * smoothstep(0.45, 0.75, n.cloud(x * 4.0, y * 4.0, 9.0)));
        (mix(scale(red, 0.90 + 0.2 * rough), self.accent, 0.85 * scales), 0.75 + 0.25 * scales)
    }

    /// Pearly and pale with a shining rim, blue-gray nests, sometimes a sore.
    fn bcc(&self, base: Rgb, x: f32, y: f32, place: f32) -> (Rgb, f32) {
        let n = &self.noise;
        let pearl = mix(base, [0.93, 0.80, 0.80], 0.45 * smoothstep(0.55, 0.9, place) * self.marked);
        let bend = 0.9 * (n.cloud(x * 5.0, y * 5.0, 17.0) - 0.5);
        let (near, _, own) = n.cells(x * 4.2 + bend, y * 3.6 - bend, 3.0);
        let nest = if own > 0.45 { smoothstep(0.48, 0.20, near) * smoothstep(1.0, 0.8, place) } else { 0.0 };
        let sore = smoothstep(0.22, 0.10, (x - self.focus[0]).hypot(y - self.focus[1]))
            * smoothstep(0.55, 0.75, self.noise.value(0.5, 0.5, 10.0));
        let colour = mix(pearl, self.accent, 0.80 * nest * self.marked);
        (mix(colour, [0.50, 0.16, 0.14], 0.8 * sore), 1.0)
    }

    /// Waxy, stuck on, sharply edged: pale and dark dots in a brain-like relief.
    fn bkl(&self, base: Rgb, x: f32, y: f32, depth: f32) -> (Rgb, f32) {
        let n = &self.noise;
        let relief = (n.cloud(x * 4.5, y * 4.5, 11.0) - 0.5).abs() * 2.0;
        let waxy = mix(
            scale(base, 0.80),
            scale(base, 1.12),
            smoothstep(0.02, 0.25, relief) * self.marked + 0.6 * (1.0 - self.marked),
        );
        let (near, _, own) = n.cells(x * 5.5, y * 5.5, 1.0);
        let dot = smoothstep(0.24, 0.12, near) * smoothstep(0.02, 0.08, depth) * self.marked;
        let dotted = match own {
            o if o > 0.68 => mix(waxy, self.accent, 0.85 * dot),
            o if o < 0.32 => mix(waxy, [0.24, 0.15, 0.10], 0.8 * dot),
            _ => waxy,
        };
        (dotted, 1.0)
    }

    /// A white, scar-like middle in a ring of thin brown network.
    fn df(&self, base: Rgb, x: f32, y: f32, place: f32) -> (Rgb, f32) {
        let n = &self.noise;
        let wobble = 0.25 * (n.cloud(x * 4.0, y * 4.0, 12.0) - 0.5);
        let scar = smoothstep(0.60, 0.28, place + wobble) * (0.2 + 0.8 * self.marked);
        let (first, second, _) = n.cells(x * 9.0, y * 9.0, 2.0);
        let net = smoothstep(0.22, 0.04, second - first);
        let ring = scale(base, 1.05 - 0.22 * net * self.marked);
        (mix(ring, self.accent, 0.9 * scar), 0.7 + 0.3 * scar)
    }

    /// Several colours in unequal parts, a dark eccentric mass, a blue-white veil, a rim that breaks off.
    fn mel(&self, base: Rgb, x: f32, y: f32, place: f32) -> (Rgb, f32) {
        let n = &self.noise;
        let patch = n.cloud(x * 2.2, y * 2.2, 13.0);
        let tan = mix(base, [0.56, 0.35, 0.24], smoothstep(0.50, 0.62, patch) * self.marked);
        let far = (x - self.focus[0]).hypot(y - self.focus[1]);
        let mass = smoothstep(0.50, 0.12, far + 0.6 * (n.cloud(x * 3.5, y * 3.5, 14.0) - 0.5));
        let dark = mix(tan, self.accent, (0.3 + 0.6 * self.marked) * mass);
        let veil = smoothstep(0.56, 0.66, n.cloud(x * 2.6, y * 2.6, 15.0)) * self.marked;
        let veiled = mix(dark, [0.46, 0.50, 0.60], 0.65 * veil * smoothstep(0.95, 0.6, place));
        let pink = smoothstep(0.60, 0.68, n.cloud(x * 2.4, y * 2.4, 16.0)) * self.marked;
        let (near, _, own) = n.cells(x * 7.0, y * 7.0, 4.0);
        let globule = if own > 0.6 { smoothstep(0.26, 0.14, near) * smoothstep(0.5, 0.9, place) } else { 0.0 };
        let coloured = mix(veiled, [0.70, 0.42, 0.40], 0.5 * pink);
        (mix(coloured, [0.16, 0.11, 0.10], 0.7 * globule * self.marked), 1.0)
    }

    /// One brown, evenly spread, a little darker in the middle, over a regular fine network.
    fn nv(&self, base: Rgb, x: f32, y: f32, place: f32) -> (Rgb, f32) {
        let (first, second, _) = self.noise.cells(x * 10.0, y * 10.0, 5.0);
        let net = smoothstep(0.25, 0.05, second - first);
        let middle = smoothstep(0.9, 0.1, place) * 0.5 * self.marked;
        (
            mix(scale(base, 1.04 - 0.16 * net * self.marked), self.accent, middle),
            1.0 - 0.25 * smoothstep(0.6, 1.0, place),
        )
    }

    /// Red to purple lagoons parted by paler walls.
    fn vasc(&self, base: Rgb, x: f32, y: f32, place: f32) -> (Rgb, f32) {
        let bend = 1.1 * (self.noise.cloud(x * 4.0, y * 4.0, 18.0) - 0.5);
        let (first, second, own) = self.noise.cells(x * 4.4 + bend, y * 4.4 - bend, 6.0);
        let wall = smoothstep(0.34, 0.02, second - first) * self.marked;
        let lagoon = mix(base, self.accent, smoothstep(0.35, 0.95, own) * 0.8);
        let shine = scale(lagoon, 1.12 - 0.30 * first);
        (mix(shine, [0.80, 0.44, 0.44], 0.5 * wall), 1.0 - 0.2 * smoothstep(0.7, 1.0, place))
    }
}

/// A tree of thin red lines that thins out as it branches.
fn branching_vessels(d: &mut Draws, radius: f32) -> Vec<Curve> {
    let mut vessels = Vec::new();
    for _ in 0..d.range(1.0, 4.0) as usize {
        let (angle, inward) = (d.range(0.0, 6.3), d.range(-0.5, 0.5));
        let start = [radius * 0.95 * angle.cos(), radius * 0.95 * angle.sin()];
        let heading = angle + std::f32::consts::PI + inward;
        let length = radius * d.range(0.8, 1.5);
        let trunk = Curve::wander(d, start, heading, length, 0.45, 0.016);
        for joint in [4, 7, 10] {
            let turn = if d.chance(0.5) { 0.8 } else { -0.8 };
            let length = radius * d.range(0.25, 0.6);
            vessels.push(Curve::wander(d, trunk.points[joint], heading + turn, length, 0.5, 0.010));
        }
        vessels.push(trunk);
    }
    vessels
}

/// Short curled red lines strewn over the lesion.
fn short_vessels(d: &mut Draws, radius: f32) -> Vec<Curve> {
    let count = d.range(0.0, 14.0) as usize;
    let vessel = |_| {
        let (angle, r) = (d.range(0.0, 6.3), radius * d.range(0.0, 0.9));
        let (heading, length) = (d.range(0.0, 6.3), d.range(0.04, 0.12));
        Curve::wander(d, [r * angle.cos(), r * angle.sin()], heading, length, 1.2, 0.013)
    };
    (0..count).map(vessel).collect()
}

/// How a view looks at the lesion: a similarity from picture to lesion plane, and the light.
struct Camera {
    /// Cosine and sine of the rotation, divided by the magnification.
    turn: [f32; 2],
    centre: [f32; 2],
    /// Change of brightness across the picture.
    slope: [f32; 2],
    exposure: Rgb,
    /// How dark the corners are.
    vignette: f32,
}

impl Camera {
    fn new(seed: u32, picture: u64, view: u64) -> Self {
        let mut d = Draws::new(seed, "synthetic view", picture);
        // The first view is as the lesion was drawn; the others differ from it by a little.
        let (angle, zoom) = if view == 0 { (0.0, 1.0) } else { (d.range(-0.5, 0.5), d.range(0.85, 1.2)) };
        let exposure = d.range(0.92, 1.06);
        Self {
            turn: [f32::cos(angle) / zoom, f32::sin(angle) / zoom],
            centre: [d.range(-0.14, 0.14), d.range(-0.14, 0.14)],
            slope: [d.range(-0.07, 0.07), d.range(-0.07, 0.07)],
            exposure: [exposure * d.range(0.97, 1.03), exposure, exposure * d.range(0.96, 1.04)],
            vignette: d.range(0.0, 0.28),
        }
    }

    fn to_lesion(&self, u: f32, v: f32) -> [f32; 2] {
        let (u, v) = (u - self.centre[0], v - self.centre[1]);
        [u * self.turn[0] - v * self.turn[1], u * self.turn[1] + v * self.turn[0]]
    }

    fn to_picture(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let norm = self.turn[0].powi(2) + self.turn[1].powi(2);
        let (u, v) = ((x * self.turn[0] + y * self.turn[1]) / norm, (y * self.turn[0] - x * self.turn[1]) / norm);
        [u + self.centre[0], v + self.centre[1]]
    }

    fn light(&self, u: f32, v: f32) -> f32 {
        let corner = smoothstep(0.75, 1.5, u.hypot(v));
        (1.0 + self.slope[0] * u + self.slope[1] * v) * (1.0 - self.vignette * corner)
    }
}

/// How much of each pixel the curves cover, shape `[size, size]`.
fn coverage(curves: &[Curve], camera: &Camera, size: usize) -> Vec<f32> {
    let mut cover = vec![0.0_f32; size * size];
    let half = size as f32 / 2.0;
    for curve in curves {
        let to_pixel = |p: &[f32; 2]| camera.to_picture(*p).map(|c| (c + 1.0) * half - 0.5);
        let width = curve.half_width * half;
        // A line thinner than a pixel covers a part of it.
        let (reach, strength) = (width.max(0.5) + 0.5, curve.strength * (width / 0.5).min(1.0));
        for pair in curve.points.windows(2) {
            let (a, b) = (to_pixel(&pair[0]), to_pixel(&pair[1]));
            let span = |i: usize| {
                let low = (a[i].min(b[i]) - reach).floor().clamp(0.0, size as f32) as usize;
                let high = (a[i].max(b[i]) + reach).ceil().clamp(-1.0, size as f32 - 1.0);
                low..(high + 1.0) as usize
            };
            let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
            let length2 = (dx * dx + dy * dy).max(1e-12);
            for (py, px) in span(1).flat_map(|py| span(0).map(move |px| (py, px))) {
                let (x, y) = (px as f32 - a[0], py as f32 - a[1]);
                let t = ((x * dx + y * dy) / length2).clamp(0.0, 1.0);
                let distance = (x - t * dx).hypot(y - t * dy);
                let here = strength * (reach - distance).clamp(0.0, 1.0);
                let pixel = &mut cover[py * size + px];
                *pixel = pixel.max(here);
            }
        }
    }
    cover
}

/// Picture number `picture` of `seed` at `size` x `size` pixels, and its lesion mask (255 inside, 0 outside).
///
/// The lesion has its class's colour, outline and pattern: akiec is rough, pinkish and scaly; bcc pearly with
/// branching vessels and blue-gray nests; bkl waxy and sharply edged with dots; df has a white middle in a brown ring;
/// mel is dark, ragged, asymmetric and of many colours; nv round and evenly brown; vasc has red to purple lagoons.
/// The traits vary and overlap. Views of one lesion differ by a rotation, a scale, a shift and the light.
pub fn render(seed: u32, picture: u64, size: usize) -> (RgbImage, GrayImage) {
    let view = View::of(seed, picture);
    let lesion = Lesion::new(seed, view);
    let camera = Camera::new(seed, picture, view.view);
    let grain = crate::rng::Stream::named(seed ^ picture as u32, "synthetic grain");
    let vessels = coverage(&lesion.vessels, &camera, size);
    let hairs = coverage(&lesion.hairs, &camera, size);
    let side = size as u32;
    let (mut rgb, mut mask) = (RgbImage::new(side, side), GrayImage::new(side, side));
    for (px, py, pixel) in rgb.enumerate_pixels_mut() {
        let place = |p: u32| (p as f32 + 0.5) / size as f32 * 2.0 - 1.0;
        let (u, v) = (place(px), place(py));
        let [x, y] = camera.to_lesion(u, v);
        let (colour, cover, inside) = lesion.lesion_at(x, y);
        let index = py as usize * size + px as usize;
        let mut seen = mix(lesion.skin_at(x, y), colour, cover);
        seen = mix(seen, VESSEL, 0.75 * vessels[index] * lesion.marked);
        seen = mix(seen, lesion.hair_colour, 0.9 * hairs[index]);
        let light = camera.light(u, v);
        let noise = 0.02 * (grain.uniform(index as u64) - 0.5);
        pixel.0 = std::array::from_fn(|c| ((seen[c] * light * camera.exposure[c] + noise) * 255.0 + 0.5) as u8);
        if inside {
            mask.put_pixel(px, py, Luma([255]));
        }
    }
    (rgb, mask)
}
