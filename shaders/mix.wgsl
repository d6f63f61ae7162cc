// Pictures mixed with partners: one invocation an element. Inside a box the partner, outside a blend of both.

struct Params {
    count: u32, // elements
    width: u32,
    channels: u32,
    picture: u32, // elements of a picture
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> own: array<E>; // [N, H, W, C]
@group(0) @binding(2) var<storage, read> other: array<E>; // [N, H, W, C]
@group(0) @binding(3) var<storage, read> shares: array<f32>; // [N]: of the picture itself
@group(0) @binding(4) var<storage, read> boxes: array<u32>; // [N, 4]: top, left, bottom, right; the last two lie outside
@group(0) @binding(5) var<storage, read_write> y: array<E>; // [N, H, W, C]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let n = i / p.picture;
    let at = i % p.picture / p.channels;
    let row = at / p.width;
    let column = at % p.width;
    let b = 4u * n;
    let inside = row >= boxes[b] && column >= boxes[b + 1u] && row < boxes[b + 2u] && column < boxes[b + 3u];
    let share = select(shares[n], 0.0, inside);
    y[i] = E(share * f32(own[i]) + (1.0 - share) * f32(other[i]));
}
