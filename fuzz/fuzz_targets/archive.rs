//! Zip archives of datasets, also such with archives in them, and their pictures.

#![no_main]

use lesion_gpu_fuzz::outside::Place;

thread_local! {
    static PLACE: Place = Place::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lesion_gpu_fuzz::pass_what_is_caught();
    PLACE.with(|place| place.archive(bytes));
});
