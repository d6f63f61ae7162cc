// Weight gradient of a depthwise 2-D convolution (groups = C = K, a multiple of four): d_w[(r, s), c] = sum over output
// pixels of x[pixel at tap (r, s), c] * d_y[pixel, c]. An invocation sums four channels of one tap over a run of
// pixels; workgroup z is the run, and sum_splits.wgsl adds the partial results in order.

const WG: u32 = 64u;
const OUT: u32 = 3u; // binding of the result

alias Result = f32;
alias Result4 = vec4f;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: d_y [N, P, Q, C]; 3 partial [splits, R * S, C]

@compute @workgroup_size(WG)
fn grad_weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let fours = p.c / 4u;
    let tap = i / fours;
    if tap >= p.r * p.s {
        return;
    }
    let c = i % fours * 4u;
    let tap_h = tap / p.s * p.dilation_h - p.pad_top;
    let tap_w = tap % p.s * p.dilation_w - p.pad_left;
    let begin = workgroup.z * p.run;
    let end = min(p.n * p.out_h * p.out_w, begin + p.run);
    var total = vec4f();
    for (var pixel = begin; pixel < end; pixel++) {
        let h = pixel / p.out_w % p.out_h * p.stride_h + tap_h;
        let w = pixel % p.out_w * p.stride_w + tap_w;
        if h < p.h && w < p.w {
            let x = load_activation(((pixel / p.out_w / p.out_h * p.h + h) * p.w + w) * p.c + c);
            total = fma(x, load_columns(pixel, c), total);
        }
    }
    store_columns(workgroup.z * p.r * p.s + tap, c, total);
}

/// Columns of d_y and of the result.
fn width() -> u32 {
    return p.c;
}
