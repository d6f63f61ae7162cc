//! Requests with images, as `serve` reads them: the first line is the content type, the rest is the body.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lesion_gpu_fuzz::pass_what_is_caught();
    if let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        lesion_gpu_fuzz::serve::upload(&bytes[..end], &bytes[end + 1..]);
    }
});
