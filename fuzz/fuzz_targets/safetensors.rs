//! Safetensors.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(lesion_gpu_fuzz::weights::parse_safetensors(bytes)));
