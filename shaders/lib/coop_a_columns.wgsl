// Left-hand fragments of a slice whose columns lie one after the other.

const A_BY_ROWS: bool = false;

fn fragment_a(row: u32, k: u32) -> MatrixA {
    let at = k * LENGTH_A + row;
    let stride = LENGTH_A;
    return coopLoad<MatrixA>(&slice_a[at], stride);
}
