// d_w[(r, s, c), k] = sum over output pixels of x[pixel at tap (r, s), c] * d_y[pixel, k], in runs of pixels, each into a
// partial result of its own.

// 1 factor_a: x [N, H, W, C]; 2 factor_b: d_y [N, P, Q, K]
@group(0) @binding(3) var<storage, read_write> partial_sums: array<f32>; // [runs, R * S * C, K]

var<private> run_number: u32;

fn pixels() -> u32 {
    return p.n * p.out_h * p.out_w;
}

fn rows() -> u32 {
    return p.r * p.s * p.c;
}

fn width() -> u32 {
    return p.k;
}

fn begin(z: u32) -> vec3u {
    let runs = (pixels() + p.run - 1u) / p.run;
    run_number = z % runs;
    let from_pixel = run_number * p.run;
    return vec3u(z / runs, from_pixel, min(pixels(), from_pixel + p.run));
}

/// The tap's offset from the window's corner, and the channel.
fn locate(row: u32) -> vec3u {
    let tap = row / p.c;
    let top = select(FAR, tap / p.s * p.dilation_h - p.pad_top, row < rows());
    return vec3u(top, tap % p.s * p.dilation_w - p.pad_left, row % p.c);
}

fn index_a(located: vec3u, k: u32) -> u32 {
    let h = k / p.out_w % p.out_h * p.stride_h + located.x;
    let w = k % p.out_w * p.stride_w + located.y;
    let n = k / p.out_w / p.out_h;
    return select(NOWHERE, ((n * p.h + h) * p.w + w) * p.c + located.z, h < p.h && w < p.w);
}

fn index_b(k: u32, column: u32) -> u32 {
    return select(NOWHERE, k * p.k + column, column < p.k);
}

fn store(row: u32, column: u32, value: f32) -> f32 {
    partial_sums[(run_number * rows() + row) * p.k + column] = value;
    return value;
}
