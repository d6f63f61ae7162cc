// Sliding windows along one axis. All extents are below 2^30, so nothing wraps.

/// The part of window `o` that lies inside the image, as offsets within the window: first, and one past the last.
fn window_inside(o: u32, stride: u32, window: u32, pad: u32, size: u32) -> vec2u {
    let start = o * stride;
    return vec2u(max(start, pad) - start, min(window, pad + size - start));
}

/// The windows that cover image position `i`: first, and one past the last.
fn windows_covering(i: u32, stride: u32, window: u32, pad: u32, windows: u32) -> vec2u {
    let at = i + pad;
    let first = select(0u, (at - window) / stride + 1u, at >= window);
    return vec2u(first, min(windows, at / stride + 1u));
}
