// The parameters of every convolution: x [N, H, W, C], weight [R, S, C / groups, K], y [N, OUT_H, OUT_W, K].

struct Params {
    n: u32, h: u32, w: u32, c: u32,
    k: u32, r: u32, s: u32,
    out_h: u32, out_w: u32,
    stride_h: u32, stride_w: u32,
    pad_top: u32, pad_left: u32,
    dilation_h: u32, dilation_w: u32,
    groups: u32,
    run: u32, // elements of a reduction that is cut into runs, or strips; else 0
}
