//! Tables of datasets in each layout, with a workbook and a table of splits: the first byte says which, the rest is the file.

#![no_main]

use lesion_gpu_fuzz::outside::Place;

thread_local! {
    static PLACE: Place = Place::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lesion_gpu_fuzz::pass_what_is_caught();
    if let Some((kind, table)) = bytes.split_first() {
        PLACE.with(|place| place.table(usize::from(*kind), table));
    }
});
