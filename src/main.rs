//! The `lesion-gpu` program.
fn main() {}
