//! The cache of decoded pixels: the first byte says which of its files is replaced, the index or the pixels.

#![no_main]

use lesion_gpu_fuzz::outside::Cached;

thread_local! {
    static CACHED: Cached = Cached::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lesion_gpu_fuzz::pass_what_is_caught();
    if let Some((kind, file)) = bytes.split_first() {
        CACHED.with(|cached| cached.replaced(usize::from(*kind), file));
    }
});
