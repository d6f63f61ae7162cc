//! Safetensors.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if bytes.get(8) == Some(&b'{') {
        let _ = lesion_gpu_fuzz::weights::parse(bytes);
    }
});
