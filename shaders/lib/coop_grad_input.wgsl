// d_x[pixel, c] = sum over (r, s, k) of d_y[window at tap (r, s), k] * w[(r, s, c), k], by stride phase as in
// conv2d_grad_input.wgsl. Of a phase, the taps are FIRST, FIRST + stride, ..: either the stride or the dilation is 1.

// 1 factor_a: d_y [N, P, Q, K]; 2 factor_b: w [R, S, C, K]
@group(0) @binding(3) var<storage, read_write> d_x: array<f16>; // [N, H, W, C]

var<private> phase: vec2u; // of this workgroup, which is also the first tap
var<private> first: vec2u; // the first row and column of the image in it
var<private> extent: vec2u; // how many there are
var<private> taps: vec2u;

fn rows() -> u32 {
    return p.n * extent.x * extent.y;
}

fn width() -> u32 {
    return p.c;
}

fn begin(z: u32) -> vec3u {
    let stride = vec2u(p.stride_h, p.stride_w);
    let pad = vec2u(p.pad_top, p.pad_left);
    let phases = p.stride_h * p.stride_w;
    phase = vec2u(z % phases / p.stride_w, z % phases % p.stride_w);
    first = (phase + stride - pad % stride) % stride;
    extent = (max(vec2u(p.h, p.w), first) - first + stride - 1u) / stride;
    taps = (max(vec2u(p.r, p.s), phase) - phase + stride - 1u) / stride;
    return vec3u(z / phases, 0u, taps.x * taps.y * p.k);
}

/// First row of the image of d_y, position in the padded image.
fn locate(row: u32) -> vec3u {
    let w = first.y + row % extent.y * p.stride_w;
    let h = first.x + row / extent.y % extent.x * p.stride_h;
    let left = select(FAR, w + p.pad_left, row < rows());
    return vec3u(row / extent.y / extent.x * p.out_h, h + p.pad_top, left);
}

/// The tap that reduction element k belongs to.
fn tap_of(k: u32) -> vec2u {
    let tap = k / p.k;
    return phase + vec2u(tap / taps.y, tap % taps.y) * vec2u(p.stride_h, p.stride_w);
}

fn index_a(located: vec3u, k: u32) -> u32 {
    let tap = tap_of(k);
    // Exact divisions, but for wrapped (negative) positions, which stay out of range.
    let o = (located.y - tap.x * p.dilation_h) / p.stride_h;
    let q = (located.z - tap.y * p.dilation_w) / p.stride_w;
    let inside = o < p.out_h && q < p.out_w && tap.x < p.r;
    return select(NOWHERE, ((located.x + o) * p.out_w + q) * p.k + k % p.k, inside);
}

fn index_b(k: u32, column: u32) -> u32 {
    let tap = tap_of(k);
    let at = ((tap.x * p.s + tap.y) * p.c + column) * p.k + k % p.k;
    return select(NOWHERE, at, tap.x < p.r && column < p.c);
}

fn store(row: u32, column: u32, value: f32) -> f32 {
    let w = first.y + row % extent.y * p.stride_w;
    let h = first.x + row / extent.y % extent.x * p.stride_h;
    d_x[((row / extent.y / extent.x * p.h + h) * p.w + w) * p.c + column] = f16(value);
    return value;
}
