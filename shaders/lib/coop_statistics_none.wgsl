// Nobody asks for the statistics of the results.

alias Moments = u32;

fn noted(before: Moments, value: f32) -> Moments {
    return before;
}

fn keep_moments(lane: u32, row: u32, column: u32, moments: Moments) {}
