// Index helpers. Grids of one dimension are folded into rows of GRID_WIDTH workgroups by the host.

const GRID_WIDTH: u32 = 32768u;

/// The linear index of a workgroup in a folded grid.
fn group_index(workgroup: vec3u) -> u32 {
    return workgroup.y * GRID_WIDTH + workgroup.x;
}
