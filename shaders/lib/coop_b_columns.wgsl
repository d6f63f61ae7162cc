// Right-hand fragments of a slice whose columns lie one after the other.

const B_BY_ROWS: bool = false;

fn fragment_b(k: u32, column: u32) -> MatrixB {
    let at = column * LENGTH_B + k;
    let stride = LENGTH_B;
    return coopLoad<MatrixB>(&slice_b[at], stride);
}
