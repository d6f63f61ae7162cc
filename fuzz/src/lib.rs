//! The readers of what strangers send, weight files and images, by their sources, for the fuzz targets.

#![allow(dead_code, unused_imports, reason = "the readers are a part of a program")]

#[path = "../../src/data/mod.rs"]
pub mod data;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/rng.rs"]
pub mod rng;
pub mod serve;
#[path = "../../src/tensor/mod.rs"]
pub mod tensor;
#[path = "../../src/weights/mod.rs"]
pub mod weights;

/// Reads a file of a format, told by how it begins; others are of no interest to the target.
pub fn read(bytes: &[u8], begins: &[u8]) {
    if bytes.starts_with(begins) {
        let _ = weights::parse(bytes);
    }
}
