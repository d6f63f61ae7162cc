// The values of a tile's rows, all loaded by every lane itself.

const SPREAD: u32 = 1u;

/// The block of the tile that a lane's load number j is for.
fn loaded_block(lane: u32, j: u32) -> u32 {
    return j;
}

/// The value that `lane` of the SPREAD lanes loaded.
fn spread(value: f32, lane: u32) -> f32 {
    return value;
}
