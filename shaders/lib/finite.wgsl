// Numbers that are not finite, by bits, so that a compiler that assumes there are none cannot drop the question: the
// exponent of infinities and NaN is all ones.

/// Which of the elements of a group of four are not finite. What lies beyond the `count` elements of a tensor is nobody's.
fn not_finite(group: u32, count: u32, x: vec4f) -> vec4<bool> {
    let inside = vec4u(4u * group) + vec4u(0u, 1u, 2u, 3u) < vec4u(count);
    return inside & ((bitcast<vec4u>(x) & vec4u(0x7f800000u)) == vec4u(0x7f800000u));
}
