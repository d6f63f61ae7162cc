// Threefry-2x32 with 20 rounds (Salmon et al., SC 2011): the twin of src/rng.rs, bit for bit.

fn threefry_rotate(v: u32, by: u32) -> u32 {
    return (v << by) | (v >> (32u - by));
}

fn threefry_rounds(x: vec2u, r: vec4u) -> vec2u {
    var s = x;
    s.x += s.y; s.y = threefry_rotate(s.y, r.x) ^ s.x;
    s.x += s.y; s.y = threefry_rotate(s.y, r.y) ^ s.x;
    s.x += s.y; s.y = threefry_rotate(s.y, r.z) ^ s.x;
    s.x += s.y; s.y = threefry_rotate(s.y, r.w) ^ s.x;
    return s;
}

/// Two random words for a two-word key and a two-word counter.
fn threefry(key: vec2u, counter: vec2u) -> vec2u {
    let even = vec4u(13u, 15u, 26u, 6u);
    let odd = vec4u(17u, 29u, 16u, 24u);
    let k2 = 0x1BD11BDAu ^ key.x ^ key.y;
    var x = threefry_rounds(counter + key, even);
    x = threefry_rounds(x + vec2u(key.y, k2 + 1u), odd);
    x = threefry_rounds(x + vec2u(k2, key.x + 2u), even);
    x = threefry_rounds(x + vec2u(key.x, key.y + 3u), odd);
    x = threefry_rounds(x + vec2u(key.y, k2 + 4u), even);
    return x + vec2u(k2, key.x + 5u);
}

/// A word as a float in [0, 1): its top 24 bits.
fn unit_float(word: u32) -> f32 {
    return f32(word >> 8u) * (1.0 / 16777216.0);
}
