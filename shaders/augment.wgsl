// Random augmentation of a batch of packed RGBA8 pictures, and of the masks in their alpha bytes; one invocation a pixel
// of the result. All pixels of a workgroup belong to one picture, so six lanes make its random draws once for all.

struct Params {
    n: u32,
    height: u32,
    width: u32,
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
    bgr: u32,
}

const WG: u32 = 64u;
const DRAWS: u32 = 6u; // 0 hflip, 1 vflip, 2 rotation, 3 zoom, 4 brightness, 5 contrast

@group(0) @binding(1) var<storage, read> pixels: array<u32>; // [n, height, width]
@group(0) @binding(2) var<storage, read> samples: array<u32>; // [n]
@group(0) @binding(3) var<storage, read> epoch: array<u32>; // [1]
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
        let counter = vec2u(samples[image], epoch[0] * 8u + lane);
        drawn[lane] = unit_float(threefry(vec2u(p.seed, p.stream), counter).x);
    }
    workgroupBarrier();
    return vec2u(image, (group % groups) * WG + lane);
}

/// Colour and mask of a pixel of the result, before brightness and contrast.
fn warped(image: u32, at: u32) -> vec4f {
    let row = at / p.width;
    let column = at % p.width;
    if p.rotation == 0.0 && p.zoom == 0.0 {
        return pixel(image, row, column);
    }
    let turn = sin_cos(p.rotation * symmetric(2u) * 0.017453292519943295);
    let scale = 1.0 + p.zoom * symmetric(3u);
    let centre = 0.5 * vec2f(f32(p.width - 1u), f32(p.height - 1u));
    let dx = (f32(column) - centre.x) / scale;
    let dy = (f32(row) - centre.y) / scale;
    return sample(image, vec2f(turn.y * dx - turn.x * dy, turn.x * dx + turn.y * dy) + centre);
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let area = p.height * p.width;
    let to = place(workgroup, lane);
    if to.x < p.n && to.y < area {
        var v = warped(to.x, to.y).xyz;
        v *= 1.0 + p.brightness * symmetric(4u);
        let contrast = 1.0 + p.contrast * symmetric(5u);
        v = clamp(v * contrast + 0.5 * (1.0 - contrast), vec3f(0.0), vec3f(1.0));
        v = (v - vec3f(p.mean_r, p.mean_g, p.mean_b)) / vec3f(p.std_r, p.std_g, p.std_b);
        v = select(v, v.zyx, p.bgr != 0u);
        let first = (to.x * area + to.y) * 3u;
        y[first] = E(v.x);
        y[first + 1u] = E(v.y);
        y[first + 2u] = E(v.z);
    }
}

@compute @workgroup_size(WG)
fn mask(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let area = p.height * p.width;
    let to = place(workgroup, lane);
    if to.x < p.n && to.y < area {
        y[to.x * area + to.y] = E(warped(to.x, to.y).w);
    }
}
