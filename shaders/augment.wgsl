// Random augmentation of a batch of packed RGBA8 pictures, and of the masks in their alpha bytes; one invocation a pixel
// of the result. All pixels of a workgroup belong to one picture, so some lanes make its random draws once for all.

struct Params {
    n: u32,
    height: u32,
    width: u32,
    seed: u32,
    stream: u32,
    more: u32, // the second stream
    hflip: u32,
    vflip: u32,
    rotation: f32,
    zoom: f32,
    shift: f32,
    shear: f32,
    brightness: f32,
    contrast: f32,
    saturation: f32,
    hue: f32,
    blur: f32,
    cutout: u32, // side of the square in pixels
    mean_r: f32,
    mean_g: f32,
    mean_b: f32,
    std_r: f32,
    std_g: f32,
    std_b: f32,
    bgr: u32,
}

const WG: u32 = 64u;
// Of the first stream: 0 hflip, 1 vflip, 2 rotation, 3 zoom, 4 brightness, 5 contrast.
const FIRST: u32 = 6u;
// Of the second, counted from FIRST: the two directions of the shift, shear, saturation, hue, blur, the cutout's centre.
const SHIFT_X: u32 = 6u;
const SHIFT_Y: u32 = 7u;
const SHEAR: u32 = 8u;
const SATURATION: u32 = 9u;
const HUE: u32 = 10u;
const BLUR: u32 = 11u;
const CUTOUT_X: u32 = 12u;
const CUTOUT_Y: u32 = 13u;
const DRAWS: u32 = 14u;

const LUMA: vec3f = vec3f(0.299, 0.587, 0.114);
// The quarter turn from I to Q, in red, green and blue: its columns are what becomes of each.
const QUARTER: mat3x3f = mat3x3f(
    0.16770325, -0.32813081, 1.24973261,
    0.32926815, 0.03552093, -1.04650843,
    -0.49697139, 0.29260989, -0.20322418,
);
const DEGREE: f32 = 0.017453292519943295;
const TURN: f32 = 6.283185307179586;

// forward, warp, mask
@group(0) @binding(1) var<storage, read> pixels: array<u32>; // [n, height, width]
// all
@group(0) @binding(2) var<storage, read> samples: array<u32>; // [n]
@group(0) @binding(3) var<storage, read> epoch: array<u32>; // [1]
// forward, mask, blur_columns
@group(0) @binding(4) var<storage, read_write> y: array<E>; // [n, height, width, 3]; of `mask` [n, height, width, 1]

var<workgroup> drawn: array<f32, DRAWS>; // each in [0, 1)

/// Sine and cosine of an angle in [-pi, pi]: Taylor polynomials at a quarter of it, then the double-angle rule twice.
/// The built-in functions may be off by 2^-11, a tenth of a pixel at the rim of a large picture.
fn sin_cos(angle: f32) -> vec2f {
    let t = 0.25 * angle;
    let q = t * t;
    var s = t * (1.0 + q * (-1.0 / 6.0 + q * (1.0 / 120.0 + q * (-1.0 / 5040.0 + q * (1.0 / 362880.0)))));
    var c = 1.0 + q * (-0.5 + q * (1.0 / 24.0 + q * (-1.0 / 720.0 + q * (1.0 / 40320.0))));
    for (var i = 0u; i < 2u; i++) {
        let doubled = 2.0 * s * c;
        c = 1.0 - 2.0 * s * s;
        s = doubled;
    }
    return vec2f(s, c);
}

/// An index mirrored into the picture; the border pixels themselves are not repeated.
fn mirror(i: i32, extent: u32) -> u32 {
    let last = i32(extent) - 1;
    let period = max(2 * last, 1);
    let m = ((i % period) + period) % period;
    return u32(min(m, 2 * last - m)); // a picture of one pixel: m is 0, so 0
}

/// Colour and mask at a row and a column inside the flipped picture, each in [0, 1].
fn pixel(image: u32, row: u32, column: u32) -> vec4f {
    let r = select(row, p.height - 1u - row, p.vflip != 0u && drawn[1] < 0.5);
    let c = select(column, p.width - 1u - column, p.hflip != 0u && drawn[0] < 0.5);
    let word = pixels[(image * p.height + r) * p.width + c];
    return vec4f(vec4u(word & 255u, (word >> 8u) & 255u, (word >> 16u) & 255u, word >> 24u)) / 255.0;
}

/// Colour and mask at a real position of the flipped picture, bilinear.
fn sample(image: u32, at: vec2f) -> vec4f {
    // Far-off positions of an extreme zoom stay within i32.
    let low = clamp(floor(at), vec2f(-1e9), vec2f(1e9));
    let f = clamp(at - low, vec2f(0.0), vec2f(1.0));
    let i = vec2i(low);
    let x0 = mirror(i.x, p.width);
    let x1 = mirror(i.x + 1, p.width);
    let y0 = mirror(i.y, p.height);
    let y1 = mirror(i.y + 1, p.height);
    let top = mix(pixel(image, y0, x0), pixel(image, y0, x1), f.x);
    let bottom = mix(pixel(image, y1, x0), pixel(image, y1, x1), f.x);
    return mix(top, bottom, f.y);
}

/// A draw, uniform in [-1, 1).
fn symmetric(draw: u32) -> f32 {
    return 2.0 * drawn[draw] - 1.0;
}

/// The picture and the pixel in it of an invocation; all of a workgroup call it, for it makes the picture's draws.
fn place(workgroup: vec3u, lane: u32) -> vec2u {
    let groups = (p.height * p.width + WG - 1u) / WG; // of one picture
    let group = group_index(workgroup);
    let image = group / groups;
    if lane < DRAWS && image < p.n {
        let first = lane < FIRST;
        let number = select(epoch[0] * 16u + lane - FIRST, epoch[0] * 8u + lane, first);
        let key = vec2u(p.seed, select(p.more, p.stream, first));
        drawn[lane] = unit_float(threefry(key, vec2u(samples[image], number)).x);
    }
    workgroupBarrier();
    return vec2u(image, (group % groups) * WG + lane);
}

/// Colour and mask of a pixel of the result, before blur and changes of colour.
fn warped(image: u32, at: u32) -> vec4f {
    let row = at / p.width;
    let column = at % p.width;
    if p.rotation == 0.0 && p.zoom == 0.0 && p.shift == 0.0 && p.shear == 0.0 {
        return pixel(image, row, column);
    }
    let turn = sin_cos(p.rotation * symmetric(2u) * DEGREE);
    let scale = 1.0 + p.zoom * symmetric(3u);
    let centre = 0.5 * vec2f(f32(p.width - 1u), f32(p.height - 1u));
    let shift = p.shift * vec2f(f32(p.width) * symmetric(SHIFT_X), f32(p.height) * symmetric(SHIFT_Y));
    let lean = sin_cos(p.shear * symmetric(SHEAR) * DEGREE);
    let dy = (f32(row) - centre.y - shift.y) / scale;
    let dx = (f32(column) - centre.x - shift.x) / scale - lean.x / lean.y * dy;
    return sample(image, vec2f(turn.y * dx - turn.x * dy, turn.x * dx + turn.y * dy) + centre);
}

/// Saturation and hue: the distance from the grey of the same luma, scaled and turned in the plane of YIQ's I and Q.
fn chroma(v: vec3f) -> vec3f {
    let grey = vec3f(dot(v, LUMA));
    let turn = sin_cos(TURN * p.hue * symmetric(HUE));
    let turned = turn.y * (v - grey) + turn.x * (QUARTER * v);
    return grey + (1.0 + p.saturation * symmetric(SATURATION)) * turned;
}

/// Whether a square covers a pixel of the result.
fn cut(at: u32) -> bool {
    let half_side = p.cutout / 2u;
    let centre = vec2u(vec2f(f32(p.width) * drawn[CUTOUT_X], f32(p.height) * drawn[CUTOUT_Y]));
    // From centre - half_side, below zero where it wraps.
    let inside = vec2u(at % p.width, at / p.width) + half_side - centre;
    return inside.x < p.cutout && inside.y < p.cutout;
}

/// Changes the colours of a pixel of the result, normalises and stores them.
fn finish(to: vec2u, colour: vec3f) {
    var v = colour;
    if p.saturation != 0.0 || p.hue != 0.0 {
        v = chroma(v);
    }
    v *= 1.0 + p.brightness * symmetric(4u);
    let contrast = 1.0 + p.contrast * symmetric(5u);
    v = clamp(v * contrast + 0.5 * (1.0 - contrast), vec3f(0.0), vec3f(1.0));
    v = (v - vec3f(p.mean_r, p.mean_g, p.mean_b)) / vec3f(p.std_r, p.std_g, p.std_b);
    v = select(v, v.zyx, p.bgr != 0u);
    if p.cutout > 0u && cut(to.y) {
        v = vec3f(0.0);
    }
    let first = (to.x * p.height * p.width + to.y) * 3u;
    y[first] = E(v.x);
    y[first + 1u] = E(v.y);
    y[first + 2u] = E(v.z);
}

/// Whether an invocation has a pixel.
fn is_pixel(to: vec2u) -> bool {
    return to.x < p.n && to.y < p.height * p.width;
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let to = place(workgroup, lane);
    if is_pixel(to) {
        finish(to, warped(to.x, to.y).xyz);
    }
}

@compute @workgroup_size(WG)
fn mask(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let to = place(workgroup, lane);
    if is_pixel(to) {
        y[to.x * p.height * p.width + to.y] = E(warped(to.x, to.y).w);
    }
}

// With blur, in the place of forward: warp, blur_rows, blur_columns.

// blur_rows, blur_columns
@group(0) @binding(1) var<storage, read> sharp: array<f32>; // [n, height, width, 3]
// warp, blur_rows
@group(0) @binding(4) var<storage, read_write> colours: array<f32>; // [n, height, width, 3]

var<workgroup> bell: array<f32, WG>; // weights of the distances 0, 1, .. up to three standard deviations

/// Stores a colour that is not the result yet.
fn keep(to: vec2u, v: vec3f) {
    let first = (to.x * p.height * p.width + to.y) * 3u;
    colours[first] = v.x;
    colours[first + 1u] = v.y;
    colours[first + 2u] = v.z;
}

fn sharp_at(image: u32, row: u32, column: u32) -> vec3f {
    let first = ((image * p.height + row) * p.width + column) * 3u;
    return vec3f(sharp[first], sharp[first + 1u], sharp[first + 2u]);
}

/// Fills `bell` for the workgroup's picture, of which the draws are there; returns its largest distance, below WG.
fn ring(lane: u32) -> u32 {
    // Below a tenth of a pixel the neighbours weigh nothing anyhow.
    let sigma = max(p.blur * drawn[BLUR], 0.1);
    let distance = f32(lane) / sigma;
    bell[lane] = exp(-0.5 * distance * distance);
    workgroupBarrier();
    return min(u32(ceil(3.0 * sigma)), WG - 1u);
}

/// The mean of a pixel and its neighbours along `step`, weighted by their distance.
fn blurred(to: vec2u, step: vec2i, radius: u32) -> vec3f {
    let at = vec2i(i32(to.y % p.width), i32(to.y / p.width));
    var sum = sharp_at(to.x, u32(at.y), u32(at.x));
    var weight = 1.0;
    for (var i = 1u; i <= radius; i++) {
        let before = at - i32(i) * step;
        let behind = at + i32(i) * step;
        let pair = sharp_at(to.x, mirror(before.y, p.height), mirror(before.x, p.width))
            + sharp_at(to.x, mirror(behind.y, p.height), mirror(behind.x, p.width));
        sum += bell[i] * pair;
        weight += 2.0 * bell[i];
    }
    return sum / weight;
}

@compute @workgroup_size(WG)
fn warp(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let to = place(workgroup, lane);
    if is_pixel(to) {
        keep(to, warped(to.x, to.y).xyz);
    }
}

@compute @workgroup_size(WG)
fn blur_rows(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let to = place(workgroup, lane);
    let radius = ring(lane);
    if is_pixel(to) {
        keep(to, blurred(to, vec2i(1, 0), radius));
    }
}

@compute @workgroup_size(WG)
fn blur_columns(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let to = place(workgroup, lane);
    let radius = ring(lane);
    if is_pixel(to) {
        finish(to, blurred(to, vec2i(0, 1), radius));
    }
}
