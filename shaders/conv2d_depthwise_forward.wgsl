// Depthwise 2-D convolution, a filter for each channel (groups = C = K, a multiple of four): y[pixel, c] = sum over
// (r, s) of x[pixel at tap (r, s), c] * w[(r, s), c]. An invocation computes four channels of one pixel, and neighbours
// in a workgroup are neighbours in memory.

const WG: u32 = 64u;
const OUT: u32 = 4u; // binding of the result

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: w [R, S, 1, C]; 3 bias [C] (any tensor if !HAS_BIAS); 4 y [N, P, Q, C];
// 5 residual [N, P, Q, C], if there is one

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let fours = p.c / 4u;
    let pixel = i / fours;
    if pixel >= p.n * p.out_h * p.out_w {
        return;
    }
    let c = i % fours * 4u;
    let q = pixel % p.out_w;
    let o = (pixel / p.out_w) % p.out_h;
    let n = pixel / p.out_w / p.out_h;
    var total = load_bias(c);
    for (var r = 0u; r < p.r; r++) {
        // Unsigned wrap-around makes a negative position a huge one, which the bounds test rejects.
        let h = o * p.stride_h + r * p.dilation_h - p.pad_top;
        for (var s = 0u; s < p.s; s++) {
            let w = q * p.stride_w + s * p.dilation_w - p.pad_left;
            if h < p.h && w < p.w {
                let x = load_activation(((n * p.h + h) * p.w + w) * p.c + c);
                total = fma(x, load_columns(r * p.s + s, c), total);
            }
        }
    }
    store_columns(pixel, c, tail(pixel, c, total));
}

/// Columns of the weight and of the result.
fn width() -> u32 {
    return p.c;
}
