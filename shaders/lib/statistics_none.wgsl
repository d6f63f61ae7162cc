// Nobody asks for the statistics of the results.

alias Moments = u32;

fn noted(before: Moments, value: vec4f) -> Moments {
    return before;
}

fn keep_moments(run: u32, column: u32, moments: Moments) {}

fn keep_moments_of_tile(local: u32, row: u32, column: u32, rows: u32, moments: array<Moments, VECTORS>) {}
