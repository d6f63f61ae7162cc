// Four elements a lane, read as X and written as Y: extents are multiples of four, and counted in fours.

alias V = vec4f;
alias VX = vec4<X>;
alias VY = vec4<Y>;

fn first_of(v: V) -> f32 {
    return v.x;
}

fn sum_of(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn largest_of(v: V) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}
