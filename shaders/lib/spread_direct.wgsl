// The values of a tile's rows, all loaded by every lane itself.

const LOADS: u32 = ROWS;
const SPREAD: u32 = 1u;

/// The tile row that a lane's load number j is for.
fn loaded_row(lane: u32, j: u32) -> u32 {
    return j;
}

fn spread(value: f32, lane: u32) -> f32 {
    return value;
}
