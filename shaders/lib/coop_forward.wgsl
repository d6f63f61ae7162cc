// y[pixel, k] = sum over (r, s, c) of x[pixel at tap (r, s), c] * w[(r, s, c), k] + bias[k]

// 1 factor_a: x [N, H, W, C]; 2 factor_b: w [R, S, C, K]
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [K]; any tensor if !HAS_BIAS
@group(0) @binding(4) var<storage, read_write> y: array<f16>; // [N, P, Q, K]

fn rows() -> u32 {
    return p.n * p.out_h * p.out_w;
}

fn width() -> u32 {
    return p.k;
}

fn begin(z: u32) -> vec3u {
    return vec3u(z, 0u, p.r * p.s * p.c);
}

/// First row of the image, position of tap (0, 0).
fn locate(row: u32) -> vec3u {
    let q = row % p.out_w;
    let o = row / p.out_w % p.out_h;
    let top = select(FAR, o * p.stride_h - p.pad_top, row < rows());
    return vec3u(row / p.out_w / p.out_h * p.h, top, q * p.stride_w - p.pad_left);
}

fn index_a(located: vec3u, k: u32) -> u32 {
    let tap = k / p.c;
    let h = located.y + tap / p.s * p.dilation_h;
    let w = located.z + tap % p.s * p.dilation_w;
    return select(NOWHERE, ((located.x + h) * p.w + w) * p.c + k % p.c, h < p.h && w < p.w && tap < p.r * p.s);
}

fn index_b(k: u32, column: u32) -> u32 {
    return select(NOWHERE, k * p.k + column, k < p.r * p.s * p.c && column < p.k);
}

fn store(row: u32, column: u32, value: f32) -> f32 {
    var total = value;
    if HAS_BIAS {
        total += bias[column];
    }
    let i = row * p.k + column;
    let rounded = f16(finished(i, total));
    y[i] = rounded;
    return f32(rounded);
}
