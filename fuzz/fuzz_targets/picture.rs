//! Pictures of every format that is read.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lesion_gpu_fuzz::pass_what_is_caught();
    lesion_gpu_fuzz::outside::decoded(bytes);
});
