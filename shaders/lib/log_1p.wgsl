// log(1 + e), which WGSL lacks.

/// log(1 + e) for e in [0, 1], to f32's relative accuracy however small e is: 2 artanh(z) with z = e / (2 + e) <= 1/3,
/// by its series up to z^15. (The usual correction by (1 + e) - 1 does not survive a compiler that reassociates.)
fn log_1p(e: f32) -> f32 {
    let z = e / (2.0 + e);
    let q = z * z;
    var sum = 1.0 / 15.0;
    sum = sum * q + 1.0 / 13.0;
    sum = sum * q + 1.0 / 11.0;
    sum = sum * q + 1.0 / 9.0;
    sum = sum * q + 1.0 / 7.0;
    sum = sum * q + 1.0 / 5.0;
    sum = sum * q + 1.0 / 3.0;
    return 2.0 * z + 2.0 * z * (sum * q);
}
