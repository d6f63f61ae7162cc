// Weights [R, S, C, K] four reduction elements at a time: goes with activation_vec4. The linker declares `reduction_in`.

fn load_reduction(at: u32) -> vec4f {
    return reduction_in_at(at / 4u);
}
