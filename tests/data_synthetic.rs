//! Generated pictures: pure functions of their number, plainly labelled, and written in a layout that opens again.

use lesion_gpu::data::{Cache, Dataset, Layout, OpenOptions, PixelStore, synthetic};

#[test]
fn a_picture_is_a_pure_function_of_seed_and_number() {
    let (a, mask) = synthetic::render(1, 7, 48);
    assert_eq!((a.clone(), mask), synthetic::render(1, 7, 48));
    assert_ne!(a, synthetic::render(1, 8, 48).0);
    assert_ne!(a, synthetic::render(2, 7, 48).0);
}

#[test]
fn every_lesion_has_a_mask_of_plausible_size_that_differs_from_skin() {
    for i in 0..60 {
        let (rgb, mask) = synthetic::render(0, i, 40);
        let inside = mask.pixels().filter(|p| p[0] == 255).count();
        assert!(mask.pixels().all(|p| p[0] == 0 || p[0] == 255));
        assert!((30..1400).contains(&inside), "picture {i}: {inside} of 1600 pixels");
        let mean = |want: u8, channel: usize| {
            let of = mask.pixels().zip(rgb.pixels()).filter(|(m, _)| m[0] == want).map(|(_, p)| f64::from(p[channel]));
            let (sum, n) = of.fold((0.0, 0.0), |(s, n), g| (s + g, n + 1.0));
            sum / n
        };
        let contrast: f64 = (0..3).map(|c| (mean(0, c) - mean(255, c)).abs()).sum();
        assert!(contrast > 3.0, "picture {i}: the lesion differs from the skin by {contrast}");
    }
}

#[test]
fn the_same_picture_at_two_sizes_shows_the_same() {
    let small = synthetic::render(0, 3, 32).0;
    let reduced = lesion_gpu::data::resize_rgb(synthetic::render(0, 3, 128).0, 32);
    let difference: f64 =
        small.as_raw().iter().zip(reduced.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    assert!(difference / (32.0 * 32.0 * 3.0) < 6.0, "{difference}");
}

#[test]
fn spec_counts_and_labels() {
    let open = |spec: &str| Dataset::open(spec, &OpenOptions::default());
    assert_eq!(open("synthetic").unwrap().samples.len(), 2000);
    let dataset = open("synthetic:30").unwrap();
    assert_eq!((dataset.samples.len(), dataset.layout), (30, Layout::Synthetic));
    assert!(dataset.name.contains("not patients") && dataset.notes[0].contains("generated"));
    for bad in ["synthetic:", "synthetic:0", "synthetic:many", "synthetic:99999999999"] {
        assert_eq!(open(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
}

#[test]
fn a_written_folder_opens_as_the_same_dataset() {
    let dir = tempfile::tempdir().unwrap();
    synthetic::write(dir.path(), 5, 20, 24).unwrap();
    let options = OpenOptions { synthetic_seed: 5, ..OpenOptions::default() };
    let mut written = Dataset::open(dir.path(), &options).unwrap();
    let mut direct = Dataset::open("synthetic:20", &options).unwrap();
    assert_eq!((written.layout, written.name.as_str()), (Layout::Ham10000, synthetic::NAME));
    assert!(written.notes.iter().any(|n| n == synthetic::NOTE), "{:?}", written.notes);
    let key = |d: &Dataset| d.samples.iter().map(|s| (s.id.clone(), s.label, s.group.clone())).collect::<Vec<_>>();
    assert_eq!(key(&written), key(&direct));
    let store = |d: &mut Dataset| PixelStore::prepare(d, 24, Cache::Off, &mut |_, _| Ok(())).unwrap();
    let (a, b) = (store(&mut written), store(&mut direct));
    assert!((0..20).all(|i| a.pixels(i).unwrap() == b.pixels(i).unwrap()));
    assert_eq!(synthetic::write(dir.path(), 5, 20, 24).unwrap_err().exit_code(), 2);
}
