// One element a lane, read as X and written as Y: any extent.

alias V = f32;
alias VX = X;
alias VY = Y;

fn first_of(v: V) -> f32 {
    return v;
}

fn sum_of(v: V) -> f32 {
    return v;
}

fn largest_of(v: V) -> f32 {
    return v;
}
