// Data gradient of a depthwise 2-D convolution (groups = C = K, a multiple of four): d_x[pixel, c] = sum over (r, s) of
// d_y[window at tap (r, s), c] * w[(r, s), c]. An invocation computes four channels of one pixel.

const WG: u32 = 64u;
const OUT: u32 = 3u; // binding of the result

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: d_y [N, P, Q, C]; 2 columns_in: w [R, S, 1, C]; 3 d_x [N, H, W, C]

@compute @workgroup_size(WG)
fn grad_input(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let fours = p.c / 4u;
    let pixel = i / fours;
    if pixel >= p.n * p.h * p.w {
        return;
    }
    let c = i % fours * 4u;
    let w = pixel % p.w;
    let h = (pixel / p.w) % p.h;
    let n = pixel / p.w / p.h;
    var total = vec4f();
    for (var r = 0u; r < p.r; r++) {
        let above = h + p.pad_top - r * p.dilation_h;
        let o = above / p.stride_h;
        for (var s = 0u; s < p.s; s++) {
            let before = w + p.pad_left - s * p.dilation_w;
            let q = before / p.stride_w;
            // Only positions that a window really starts at contribute; wrapped ones are far out of range.
            if o * p.stride_h == above && q * p.stride_w == before && o < p.out_h && q < p.out_w {
                let d = load_activation(((n * p.out_h + o) * p.out_w + q) * p.c + c);
                total = fma(d, load_columns(r * p.s + s, c), total);
            }
        }
    }
    store_columns(pixel, c, total);
}

/// Columns of the weight and of the result.
fn width() -> u32 {
    return p.c;
}
