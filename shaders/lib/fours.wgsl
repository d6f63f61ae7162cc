// Element-by-element kernels: a lane takes EACH groups of four elements, a workgroup's width apart. Buffers are whole
// multiples of 16 bytes, so the last group may run past the tensor's end, but not past its buffer's.

const WG: u32 = 64u;
const EACH: u32 = 4u;

/// The groups of a lane: from the first, WG apart, to one past the last.
fn lane_fours(workgroup: vec3u, lane: u32, fours: u32) -> vec2u {
    let first = group_index(workgroup) * WG * EACH;
    return vec2u(first + lane, min(fours, first + WG * EACH));
}
