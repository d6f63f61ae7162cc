// Random augmentation of a batch of packed RGBA8 pictures, one invocation a pixel of the result. All pixels of a
// workgroup belong to one picture, so six lanes make its random draws once for all.

struct Params {
    n: u32,
    size: u32,
    seed: u32,
    stream: u32,
    hflip: u32,
    vflip: u32,
    rotation: f32,
    zoom: f32,
    brightness: f32,
    contrast: f32,
    mean_r: f32,
    mean_g: f32,
    mean_b: f32,
    std_r: f32,
    std_g: f32,
    std_b: f32,
}

const WG: u32 = 64u;
const DRAWS: u32 = 6u; // 0 hflip, 1 vflip, 2 rotation, 3 zoom, 4 brightness, 5 contrast

@group(0) @binding(1) var<storage, read> pixels: array<u32>; // [n, size, size]
@group(0) @binding(2) var<storage, read> samples: array<u32>; // [n]
@group(0) @binding(3) var<storage, read> epoch: array<u32>; // [1]
@group(0) @binding(4) var<storage, read_write> y: array<E>; // [n, size, size, 3]

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
fn mirror(i: i32) -> u32 {
    let last = i32(p.size) - 1;
    let period = max(2 * last, 1);
    let m = ((i % period) + period) % period;
    return u32(min(m, 2 * last - m)); // a picture of one pixel: m is 0, so 0
}

/// The colour at a row and a column inside the flipped picture, each channel in [0, 1].
fn colour(image: u32, row: u32, column: u32) -> vec3f {
    let last = p.size - 1u;
    let r = select(row, last - row, p.vflip != 0u && drawn[1] < 0.5);
    let c = select(column, last - column, p.hflip != 0u && drawn[0] < 0.5);
    let word = pixels[(image * p.size + r) * p.size + c];
    return vec3f(vec3u(word & 255u, (word >> 8u) & 255u, (word >> 16u) & 255u)) / 255.0;
}

/// The colour at a real position of the flipped picture, bilinear.
fn sample(image: u32, at: vec2f) -> vec3f {
    // Far-off positions of an extreme zoom stay within i32.
    let low = clamp(floor(at), vec2f(-1e9), vec2f(1e9));
    let f = clamp(at - low, vec2f(0.0), vec2f(1.0));
    let i = vec2i(low);
    let x0 = mirror(i.x);
    let x1 = mirror(i.x + 1);
    let y0 = mirror(i.y);
    let y1 = mirror(i.y + 1);
    let top = mix(colour(image, y0, x0), colour(image, y0, x1), f.x);
    let bottom = mix(colour(image, y1, x0), colour(image, y1, x1), f.x);
    return mix(top, bottom, f.y);
}

/// A draw, uniform in [-1, 1).
fn symmetric(draw: u32) -> f32 {
    return 2.0 * drawn[draw] - 1.0;
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let area = p.size * p.size;
    let groups = (area + WG - 1u) / WG; // of one picture
    let group = group_index(workgroup);
    let image = group / groups;
    if lane < DRAWS && image < p.n {
        let counter = vec2u(samples[image], epoch[0] * 8u + lane);
        drawn[lane] = unit_float(threefry(vec2u(p.seed, p.stream), counter).x);
    }
    workgroupBarrier();
    let at = (group % groups) * WG + lane;
    if image < p.n && at < area {
        let row = at / p.size;
        let column = at % p.size;
        var v: vec3f;
        if p.rotation == 0.0 && p.zoom == 0.0 {
            v = colour(image, row, column);
        } else {
            let turn = sin_cos(p.rotation * symmetric(2u) * 0.017453292519943295);
            let scale = 1.0 + p.zoom * symmetric(3u);
            let centre = 0.5 * f32(p.size - 1u);
            let dx = (f32(column) - centre) / scale;
            let dy = (f32(row) - centre) / scale;
            v = sample(image, vec2f(turn.y * dx - turn.x * dy, turn.x * dx + turn.y * dy) + centre);
        }
        v *= 1.0 + p.brightness * symmetric(4u);
        let contrast = 1.0 + p.contrast * symmetric(5u);
        v = clamp(v * contrast + 0.5 * (1.0 - contrast), vec3f(0.0), vec3f(1.0));
        v = (v - vec3f(p.mean_r, p.mean_g, p.mean_b)) / vec3f(p.std_r, p.std_g, p.std_b);
        let to = (image * area + at) * 3u;
        y[to] = E(v.x);
        y[to + 1u] = E(v.y);
        y[to + 2u] = E(v.z);
    }
}
