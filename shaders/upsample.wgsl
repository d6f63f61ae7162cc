// Resampling of images to another size. Positions are fractions of whole numbers, so which pixels a result is made of
// is exact, and the gradient finds the same ones. A lane has V, one channel or four.

struct Params {
    count: u32, // lanes that write
    inner: u32, // V in a pixel; grad_x: V from one position of the axis to the next
    height: u32, // H; grad_x: positions of the axis
    width: u32, // W
    out_height: u32, // P; grad_x: results along the axis
    out_width: u32, // Q
}

const WG: u32 = 64u;

/// The pixels of a result along one axis, and the share of the second.
struct Taps {
    first: u32,
    second: u32,
    share: f32,
}

fn taps(o: u32, size: u32, results: u32) -> Taps {
    if NEAREST {
        return Taps(o * size / results, o * size / results, 0.0);
    }
    // The position in pixels is `position / unit`.
    var position = o * (size - 1u);
    var unit = max(results, 2u) - 1u;
    if !ALIGN_CORNERS {
        // (o + 1/2) * size / results - 1/2, not before the first pixel's centre.
        position = max((2u * o + 1u) * size, results) - results;
        unit = 2u * results;
    }
    let first = position / unit;
    return Taps(first, min(first + 1u, size - 1u), f32(position % unit) / f32(unit));
}

/// The results along one axis that pixel `i` is part of: first, and one past the last.
fn fed(i: u32, size: u32, results: u32) -> vec2u {
    if NEAREST {
        return (vec2u(i, i + 1u) * results + size - 1u) / size;
    }
    if size == 1u || results == 1u {
        return vec2u(0u, select(0u, results, i == 0u || !ALIGN_CORNERS));
    }
    // Those strictly between the pixels before and behind.
    var range: vec2u;
    if ALIGN_CORNERS {
        range = vec2u((max(i, 1u) - 1u) * (results - 1u) / (size - 1u), ((i + 1u) * (results - 1u) - 1u) / (size - 1u));
        range += 1u;
    } else {
        range = vec2u(((2u * max(i, 1u) - 1u) * results / size + 1u) / 2u, (((2u * i + 3u) * results - 1u) / size + 1u) / 2u);
    }
    return vec2u(select(range.x, 0u, i == 0u), min(range.y, results));
}

// forward

@group(0) @binding(1) var<storage, read> x: array<VX>; // [N, H, W, C]
@group(0) @binding(2) var<storage, read_write> y: array<VY>; // [N, P, Q, C]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let c = i % p.inner;
    let row = i / (p.inner * p.out_width);
    let columns = taps(i / p.inner % p.out_width, p.width, p.out_width);
    let rows = taps(row % p.out_height, p.height, p.out_height);
    let top = (row / p.out_height * p.height + rows.first) * p.width;
    let at = vec2u(top + columns.first, top + columns.second) * p.inner + c;
    if NEAREST {
        y[i] = VY(V(x[at.x]));
        return;
    }
    let down = (rows.second - rows.first) * p.width * p.inner;
    let above = mix(V(x[at.x]), V(x[at.y]), V(columns.share));
    let below = mix(V(x[at.x + down]), V(x[at.y + down]), V(columns.share));
    y[i] = VY(mix(above, below, V(rows.share)));
}

// grad_x: along one axis; d_y is seen as [outer, results, inner], d_x as [outer, positions, inner]

@group(0) @binding(1) var<storage, read> d_y: array<VX>; // [outer, results, inner]
@group(0) @binding(2) var<storage, read_write> d_x: array<VY>; // [outer, positions, inner]

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let position = i / p.inner % p.height;
    let outer = i / (p.inner * p.height);
    let range = fed(position, p.height, p.out_height);
    var total = V();
    for (var o = range.x; o < range.y; o++) {
        let t = taps(o, p.height, p.out_height);
        // At an edge both pixels may be this one.
        var weight = select(0.0, 1.0 - t.share, t.first == position);
        weight += select(0.0, t.share, t.second == position);
        total += weight * V(d_y[(outer * p.out_height + o) * p.inner + i % p.inner]);
    }
    d_x[i] = VY(total);
}
