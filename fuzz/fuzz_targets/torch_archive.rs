//! PyTorch's zip archives.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lesion_gpu_fuzz::read(bytes, b"PK\x03\x04"));
