//! The readers of what strangers send, weight files, datasets and images, by their sources, for the fuzz targets.

#![allow(dead_code, unused_imports, reason = "the readers are a part of a program")]

#[path = "../../src/data/mod.rs"]
pub mod data;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../tests/common/files.rs"]
pub mod files;
#[path = "../../tests/common/outside.rs"]
pub mod outside;
#[path = "../../src/rng.rs"]
pub mod rng;
#[cfg(feature = "library")]
#[path = "../../tests/common/runs.rs"]
pub mod runs;
pub mod serve;
#[path = "../../src/tensor/mod.rs"]
pub mod tensor;
#[path = "../../src/weights/mod.rs"]
pub mod weights;

/// Lets the panics of decoders pass that the readers catch: each is told, and the fuzzer goes on.
pub fn pass_what_is_caught() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match data::is_sheltered() {
            true => eprintln!("caught: {info}"),
            false => before(info),
        }));
    });
}

/// Reads a file of a format, told by how it begins; others are of no interest to the target.
pub fn read(bytes: &[u8], begins: &[u8]) {
    if bytes.starts_with(begins) {
        let _ = weights::parse(bytes);
    }
}
