// Left-hand fragments of a slice whose rows lie one after the other.

const A_BY_ROWS: bool = true;

fn fragment_a(row: u32, k: u32) -> MatrixA {
    let at = row * LENGTH_A + k;
    let stride = LENGTH_A;
    return coopLoadT<MatrixA>(&slice_a[at], stride);
}
