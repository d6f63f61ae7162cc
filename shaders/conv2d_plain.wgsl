// 2-D convolution, one invocation for one result element: any kernel, stride, padding, dilation and groups.
// The plain path that every faster kernel is checked against. NHWC activations, weights [R, S, C / groups, K].

const WG: u32 = 64u;
const RUN: u32 = 32768u; // pixels that an invocation of the weight's gradient sums

@group(0) @binding(1) var<storage, read> a: array<E>; // x [N, H, W, C]; grad_input: d_y [N, P, Q, K]
@group(0) @binding(2) var<storage, read> b: array<E>; // weight [R, S, C / groups, K]; grad_weight: d_y [N, P, Q, K]

// forward; 5 residual [N, P, Q, K], if there is one, is declared by a library
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [K]; any tensor if !HAS_BIAS
@group(0) @binding(4) var<storage, read_write> y: array<E>; // [N, P, Q, K]

// gradients
@group(0) @binding(3) var<storage, read_write> d_x: array<E>; // [N, H, W, C]
@group(0) @binding(3) var<storage, read_write> d_weight: array<f32>; // [splits, R, S, C / groups, K]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.n * p.out_h * p.out_w * p.k {
        return;
    }
    let k = i % p.k;
    let q = (i / p.k) % p.out_w;
    let o = (i / p.k / p.out_w) % p.out_h;
    let n = i / p.k / p.out_w / p.out_h;
    let group_c = p.c / p.groups;
    let first_c = (k / (p.k / p.groups)) * group_c;
    var total = 0.0;
    for (var r = 0u; r < p.r; r++) {
        // Unsigned wrap-around makes a negative position a huge one, which the bounds test rejects.
        let h = o * p.stride_h + r * p.dilation_h - p.pad_top;
        for (var s = 0u; s < p.s; s++) {
            let w = q * p.stride_w + s * p.dilation_w - p.pad_left;
            if h < p.h && w < p.w {
                let pixel = ((n * p.h + h) * p.w + w) * p.c + first_c;
                let tap = (r * p.s + s) * group_c;
                for (var c = 0u; c < group_c; c++) {
                    total = fma(f32(a[pixel + c]), f32(b[(tap + c) * p.k + k]), total);
                }
            }
        }
    }
    if HAS_BIAS {
        total += bias[k];
    }
    y[i] = E(finished(i, total));
}

@compute @workgroup_size(WG)
fn grad_input(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.n * p.h * p.w * p.c {
        return;
    }
    let c = i % p.c;
    let w = (i / p.c) % p.w;
    let h = (i / p.c / p.w) % p.h;
    let n = i / p.c / p.w / p.h;
    let group_c = p.c / p.groups;
    let group_k = p.k / p.groups;
    let first_k = (c / group_c) * group_k;
    var total = 0.0;
    for (var r = 0u; r < p.r; r++) {
        let top = h + p.pad_top - r * p.dilation_h;
        let o = top / p.stride_h;
        for (var s = 0u; s < p.s; s++) {
            let left = w + p.pad_left - s * p.dilation_w;
            let q = left / p.stride_w;
            // Only positions that a window really starts at contribute; wrapped ones are far out of range.
            if o * p.stride_h == top && q * p.stride_w == left && o < p.out_h && q < p.out_w {
                let pixel = ((n * p.out_h + o) * p.out_w + q) * p.k + first_k;
                let tap = ((r * p.s + s) * group_c + c % group_c) * p.k + first_k;
                for (var k = 0u; k < group_k; k++) {
                    total = fma(f32(a[pixel + k]), f32(b[tap + k]), total);
                }
            }
        }
    }
    d_x[i] = E(total);
}

@compute @workgroup_size(WG)
fn grad_weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let group_c = p.c / p.groups;
    if i >= p.r * p.s * group_c * p.k {
        return;
    }
    let k = i % p.k;
    let c = (i / p.k) % group_c + (k / (p.k / p.groups)) * group_c;
    let s = (i / p.k / group_c) % p.s;
    let r = i / p.k / group_c / p.s;
    let begin = workgroup.z * RUN;
    var total = 0.0;
    var row = 0.0;
    for (var pixel = begin; pixel < min(p.n * p.out_h * p.out_w, begin + RUN); pixel++) {
        let q = pixel % p.out_w;
        // Row by row, so that the error of a long sum does not grow with the whole length.
        if q == 0u {
            total += row;
            row = 0.0;
        }
        let h = pixel / p.out_w % p.out_h * p.stride_h + r * p.dilation_h - p.pad_top;
        let w = q * p.stride_w + s * p.dilation_w - p.pad_left;
        if h < p.h && w < p.w {
            let v = a[((pixel / p.out_w / p.out_h * p.h + h) * p.w + w) * p.c + c];
            row = fma(f32(v), f32(b[pixel * p.k + k]), row);
        }
    }
    d_weight[workgroup.z * p.r * p.s * group_c * p.k + i] = total + row;
}
