//! Files of run folders, and the tuning cache: the first byte says which is replaced.

#![no_main]

use lesion_gpu_fuzz::runs::Run;

thread_local! {
    static RUN: Run = Run::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, file)) = bytes.split_first() {
        RUN.with(|run| run.replaced(usize::from(*kind), file));
    }
});
