// The values of a tile's rows, each loaded by one lane of a subgroup and passed to the others.
// A workgroup is one subgroup of LANES_N lanes.

const SPREAD: u32 = LANES_N;

/// The block of the tile that a lane's load number j is for.
fn loaded_block(lane: u32, j: u32) -> u32 {
    return j * LANES_N + lane;
}

/// The value that `lane` of the SPREAD lanes loaded.
fn spread(value: f32, lane: u32) -> f32 {
    return subgroupShuffle(value, lane);
}
