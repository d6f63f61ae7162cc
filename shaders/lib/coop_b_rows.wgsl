// Right-hand fragments of a slice whose rows lie one after the other.

const B_BY_ROWS: bool = true;

fn fragment_b(k: u32, column: u32) -> MatrixB {
    let at = k * LENGTH_B + column;
    let stride = LENGTH_B;
    return coopLoadT<MatrixB>(&slice_b[at], stride);
}
