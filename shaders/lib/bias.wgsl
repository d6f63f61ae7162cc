// A bias per column, or none.

@group(0) @binding(3) var<storage, read> bias: array<f32>; // [width]; any tensor if !HAS_BIAS

fn load_bias(column: u32) -> vec4f {
    if !HAS_BIAS {
        return vec4f();
    }
    let last = width() - 1u;
    return vec4f(bias[min(column, last)], bias[min(column + 1u, last)], bias[min(column + 2u, last)], bias[min(column + 3u, last)]);
}
