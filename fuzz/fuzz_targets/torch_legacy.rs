//! PyTorch's files from before 1.6, and with them the unpickler and views of storages.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lesion_gpu_fuzz::read(bytes, b"\x80"));
