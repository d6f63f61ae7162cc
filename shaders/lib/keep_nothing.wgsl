// The gradient behind a ReLU is used in passing only.

fn keep(i: u32, d: V) {}
