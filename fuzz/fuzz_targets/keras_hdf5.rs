//! Keras's HDF5 files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lesion_gpu_fuzz::read(bytes, b"\x89HDF\r\n\x1a\n"));
