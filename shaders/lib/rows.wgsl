// Rows of a matrix: LANES lanes side by side take a row, LANES being a power of two of at most WG, and a workgroup
// takes WG / LANES rows. What the lanes of a row have is combined as a tree, so in an order that LANES alone decides.

const WG: u32 = 64u;

var<workgroup> row_lanes: array<f32, WG>;

/// The row of a lane (past the end in the last workgroups), and the lane's number in it.
fn row_and_lane(workgroup: vec3u, lane: u32) -> vec2u {
    return vec2u(group_index(workgroup) * (WG / LANES) + lane / LANES, lane % LANES);
}

/// The sum of the lanes of a row, in each of them. All lanes of the workgroup have to call it.
fn row_sum(value: f32, lane: u32) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    row_lanes[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane % LANES < half {
            row_lanes[lane] += row_lanes[lane + half];
        }
        workgroupBarrier();
    }
    return row_lanes[lane - lane % LANES];
}

/// The largest of the lanes of a row, likewise.
fn row_max(value: f32, lane: u32) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    row_lanes[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane % LANES < half {
            row_lanes[lane] = max(row_lanes[lane], row_lanes[lane + half]);
        }
        workgroupBarrier();
    }
    return row_lanes[lane - lane % LANES];
}
