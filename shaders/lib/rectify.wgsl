// ReLU as the last step of a kernel, where the planner fused it.

/// max(value, 0) if RELU, else the value. NaN stays NaN.
fn rectify(value: vec4f) -> vec4f {
    if RELU {
        return select(value, vec4f(), value <= vec4f());
    }
    return value;
}
