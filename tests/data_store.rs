//! The pixel store, its cache file, and the loader on top of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{Rgb, RgbImage};
use lesion_gpu::data::{
    Batch, Cache, Dataset, LastBatch, Loader, LoaderOptions, OpenOptions, PixelStore, SplitSpec, Visit, balance_train,
    balanced_order, decode_image_file, epoch_order, list_images, split, write_set,
};
use lesion_gpu::{Error, Kind};

/// A table of `count` images of which image `i` is all of brightness `10 * i`.
fn images(root: &Path, count: usize) -> PathBuf {
    let mut rows = "path,label\n".to_owned();
    for i in 0..count {
        RgbImage::from_pixel(6, 5, Rgb([10 * i as u8, i as u8, 3])).save(root.join(format!("{i:02}.png"))).unwrap();
        rows.push_str(&format!("{i:02}.png,{}\n", if i % 3 == 0 { "a" } else { "b" }));
    }
    let table = root.join("set.csv");
    fs::write(&table, rows).unwrap();
    table
}

fn prepare(table: &Path, cache: Cache<'_>) -> PixelStore {
    let mut dataset = Dataset::open(table, &OpenOptions::default()).unwrap();
    PixelStore::prepare(&mut dataset, 4, cache, &mut |_, _| Ok(())).unwrap()
}

fn assert_pixels(store: &PixelStore, count: usize) {
    assert_eq!(store.len(), count);
    for i in 0..count {
        assert_eq!(store.pixels(i).unwrap(), [10 * i as u8, i as u8, 3].repeat(16), "picture {i}");
    }
}

#[test]
fn the_second_time_comes_from_the_cache_and_a_changed_image_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("made/on/demand");
    let table = images(dir.path(), 9);
    let first = prepare(&table, Cache::Dir(&cache));
    assert!(!first.reused() && first.notes().is_empty(), "{:?}", first.notes());
    assert_pixels(&first, 9);
    let second = prepare(&table, Cache::Dir(&cache));
    assert!(second.reused() && second.cache_path() == first.cache_path());
    assert_pixels(&second, 9);
    // The same bytes elsewhere are the same content.
    let copy = tempfile::tempdir().unwrap();
    assert!(prepare(&images(copy.path(), 9), Cache::Dir(&cache)).reused());
    RgbImage::from_pixel(6, 5, Rgb([1, 2, 3])).save(dir.path().join("04.png")).unwrap();
    let third = prepare(&table, Cache::Dir(&cache));
    assert!(!third.reused());
    assert_eq!(third.pixels(4).unwrap(), [1, 2, 3].repeat(16));
    // Deleting the cache hurts neither an open store nor the next.
    fs::remove_dir_all(&cache).ok();
    assert_eq!(third.pixels(4).unwrap(), [1, 2, 3].repeat(16));
    assert!(!prepare(&table, Cache::Dir(&cache)).reused());
}

#[test]
fn unchanged_old_files_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let table = images(dir.path(), 3);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let age =
        |name: &str| fs::File::options().write(true).open(dir.path().join(name)).unwrap().set_modified(old).unwrap();
    ["00.png", "01.png", "02.png"].iter().for_each(|n| age(n));
    prepare(&table, Cache::Dir(&cache));
    // Change a file behind the program's back: same length, same time. It is known by its stamp, so the cache holds.
    let path = dir.path().join("01.png");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    age("01.png");
    assert!(prepare(&table, Cache::Dir(&cache)).reused());
    fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let mut dataset = Dataset::open(&table, &OpenOptions::default()).unwrap();
    // With another time it is read, found changed, and decoded anew.
    let again = PixelStore::prepare(&mut dataset, 4, Cache::Dir(&cache), &mut |_, _| Ok(()));
    assert!(again.map_or(true, |store| !store.reused()));
}

#[test]
fn a_damaged_cache_file_is_found_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let table = images(dir.path(), 9);
    let path = prepare(&table, Cache::Dir(&cache)).cache_path().unwrap().to_owned();
    let intact = fs::read(&path).unwrap();
    let flip = |at: usize| {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let end = intact.len();
    let longer = [&intact[..], b"x"].concat();
    let damaged = [
        flip(0),
        flip(20),
        flip(9 * 48 + 12),
        flip(end - 36),
        flip(end - 1),
        intact[..end / 2].to_vec(),
        vec![],
        longer,
    ];
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        let store = prepare(&table, Cache::Dir(&cache));
        assert!(!store.reused() && store.notes()[0].contains("damaged"), "{:?}", store.notes());
        assert_pixels(&store, 9);
        assert_eq!(fs::read(&path).unwrap(), intact);
    }
    let names: Vec<_> = fs::read_dir(&cache).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().starts_with('.')), "left over: {names:?}");
}

#[test]
fn an_unusable_cache_folder_is_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let table = images(dir.path(), 5);
    let blocked = dir.path().join("set.csv/cache");
    let store = prepare(&table, Cache::Dir(&blocked));
    assert!(store.cache_path().is_none() && store.notes()[0].contains("kept in memory"), "{:?}", store.notes());
    assert_pixels(&store, 5);
}

#[test]
fn two_builders_at_once_both_get_the_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let table = images(dir.path(), 20);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_pixels(&prepare(&table, Cache::Dir(&cache)), 20));
        }
    });
    assert!(prepare(&table, Cache::Dir(&cache)).reused());
}

#[test]
fn progress_can_stop_the_work_and_sizes_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut dataset = Dataset::open(images(dir.path(), 4), &OpenOptions::default()).unwrap();
    let mut stop = |_, _| Err(Error::new(Kind::Interrupted, "interrupted"));
    let error = PixelStore::prepare(&mut dataset, 4, Cache::Off, &mut stop).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    let mut calls = Vec::new();
    PixelStore::prepare(&mut dataset, 4, Cache::Off, &mut |done, total| {
        calls.push((done, total));
        Ok(())
    })
    .unwrap();
    assert_eq!((calls[0], *calls.last().unwrap()), ((0, 4), (4, 4)));
    for size in [0, 5000] {
        let error = PixelStore::prepare(&mut dataset, size, Cache::Off, &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }
}

#[test]
fn prediction_sees_the_pixels_that_training_saw() {
    let dir = tempfile::tempdir().unwrap();
    let store = prepare(&images(dir.path(), 4), Cache::Off);
    let paths = list_images(dir.path()).unwrap();
    assert_eq!(
        paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>(),
        ["00.png", "01.png", "02.png", "03.png"]
    );
    for (i, path) in paths.iter().enumerate() {
        assert_eq!(decode_image_file(path, 4).unwrap().into_raw(), store.pixels(i).unwrap());
    }
    let error = decode_image_file(&dir.path().join("set.csv"), 4).unwrap_err().to_string();
    assert!(error.contains("set.csv") && error.contains("no image of a known format"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(list_images(empty.path()).unwrap_err().kind(), Kind::Data);
}

fn loader(
    store: &Arc<PixelStore>,
    order: impl IntoIterator<Item = impl Into<Visit>>,
    workers: usize,
    last: LastBatch,
) -> Result<Loader, Error> {
    let labels: Vec<u32> = (0..store.len() as u32).map(|i| 100 + i).collect();
    Loader::new(store.clone(), labels, order, LoaderOptions { batch: 4, workers, prefetch: 1, last })
}

#[test]
fn batches_come_in_order_whatever_the_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(prepare(&images(dir.path(), 22), Cache::Off));
    let order = epoch_order(&(0..22).collect::<Vec<_>>(), 5, 1, true);
    for workers in [1, 2, 3, 16] {
        let batches: Vec<Batch> =
            loader(&store, order.clone(), workers, LastBatch::Pad).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(batches.iter().map(|b| b.valid).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 2]);
        let seen: Vec<Visit> =
            batches.iter().flat_map(|b| &b.samples[..b.valid]).map(|&s| (s as usize).into()).collect();
        assert_eq!(seen, order);
        for batch in &batches {
            assert_eq!((batch.pixels.len(), batch.labels.len(), batch.samples.len()), (64, 4, 4));
            for row in 0..batch.valid {
                let sample = batch.samples[row];
                assert_eq!(batch.labels[row], 100 + sample);
                let word = 0xFF03_0000 | (sample << 8) | ((10 * sample) & 0xFF);
                assert_eq!(batch.pixels[row * 16..][..16], [word; 16]);
            }
        }
        let last = &batches[5];
        assert!(last.pixels[32..].iter().all(|&p| p == 0) && last.labels[2..] == [0, 0] && last.samples[2..] == [0, 0]);
        let dropped = loader(&store, order.clone(), workers, LastBatch::Drop).unwrap();
        assert_eq!((dropped.batches(), dropped.count()), (5, 5));
    }
}

#[test]
fn a_loader_may_be_dropped_early_or_be_empty_and_refuses_what_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(prepare(&images(dir.path(), 22), Cache::Off));
    let mut early = loader(&store, 0..22, 3, LastBatch::Pad).unwrap();
    assert!(early.next().unwrap().is_ok());
    drop(early);
    assert_eq!(Arc::strong_count(&store), 1, "a worker outlived its loader");
    assert!(loader(&store, 0..0, 2, LastBatch::Pad).unwrap().next().is_none());
    assert!(loader(&store, vec![1, 2], 2, LastBatch::Drop).unwrap().next().is_none());
    assert_eq!(loader(&store, vec![22], 2, LastBatch::Pad).unwrap_err().kind(), Kind::Internal);
    assert_eq!(loader(&store, vec![1], 0, LastBatch::Pad).unwrap_err().kind(), Kind::Usage);
}

#[cfg(unix)]
#[test]
fn an_error_in_a_worker_reaches_the_consumer_and_ends_the_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let store = Arc::new(prepare(&images(dir.path(), 22), Cache::Dir(&cache)));
    fs::File::options().write(true).open(store.cache_path().unwrap()).unwrap().set_len(10).unwrap();
    let mut broken = loader(&store, 0..22, 2, LastBatch::Pad).unwrap();
    let error = broken.next().unwrap().unwrap_err();
    assert!(error.kind() == Kind::Io && error.to_string().contains("pixel cache"), "{error}");
    assert!(broken.next().is_none());
}

#[test]
fn epoch_orders_depend_on_seed_and_epoch_alone() {
    let indices: Vec<usize> = (100..160).collect();
    let order = epoch_order(&indices, 1, 0, true);
    assert_eq!(order, epoch_order(&indices, 1, 0, true));
    assert_ne!(order, epoch_order(&indices, 1, 1, true));
    assert_ne!(order, epoch_order(&indices, 2, 0, true));
    let samples = |order: Vec<Visit>| order.into_iter().map(|visit| visit.sample).collect::<Vec<_>>();
    assert_eq!(samples(epoch_order(&indices, 1, 0, false)), indices);
    let mut sorted = samples(order);
    sorted.sort_unstable();
    assert_eq!(sorted, indices);
}

/// Classes of 40, 15 and 5 samples, 60 visits: 20 each, every sample as often as any other of its class, within one.
#[test]
fn a_balanced_order_visits_classes_alike() {
    let labels: Vec<u32> = (0..70).map(|i| if i < 45 { 0 } else { 1 + u32::from(i >= 62) }).collect();
    let indices: Vec<usize> = (5..65).collect();
    let order = balanced_order(&indices, &labels, 3, 7);
    assert_eq!(order, balanced_order(&indices, &labels, 3, 7));
    assert_ne!(order, balanced_order(&indices, &labels, 3, 8));
    let mut visits = vec![0_u32; 70];
    for visit in &order {
        assert!(indices.contains(&visit.sample));
        visits[visit.sample] += 1;
    }
    for class in 0..3 {
        let of_class = |i: &usize| labels[*i] == class;
        let counts: Vec<u32> = indices.iter().copied().filter(of_class).map(|i| visits[i]).collect();
        assert_eq!(counts.iter().sum::<u32>(), 20, "class {class}");
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "class {class}: {counts:?}");
    }
    // Each visit draws numbers of its own.
    let mut keys: Vec<u32> = order.iter().map(|visit| visit.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 60);
    // The classes are mixed, not one after the other.
    let changes = order.windows(2).filter(|w| labels[w[0].sample] != labels[w[1].sample]).count();
    assert!(changes > 25, "{changes}");
    // What is left over goes to other classes in other epochs.
    let shares = |epoch| {
        let order = balanced_order(&indices[..59], &labels, 3, epoch);
        [0, 1, 2].map(|class| order.iter().filter(|v| labels[v.sample] == class).count())
    };
    assert_eq!(shares(0).iter().sum::<usize>(), 59);
    assert!([1, 2].iter().any(|&epoch| shares(epoch) != shares(0)));
    assert_eq!(balanced_order(&[], &labels, 3, 0), []);
}

/// A picture with some detail, another one for each seed.
fn waves(seed: u32) -> RgbImage {
    let s = f64::from(seed);
    RgbImage::from_fn(80, 60, |x, y| {
        let wave = |a: f64, b: f64| ((a * f64::from(x) + b * f64::from(y)) / 5.0 + s).sin() * 40.0;
        let value = 128.0 + wave((s * 1.7).sin(), (s * 2.3).cos()) + wave((s * 3.1).cos(), (s * 0.9).sin());
        Rgb([value as u8, (value * 0.8) as u8, (value * 0.6) as u8])
    })
}

#[test]
fn lesions_whose_images_look_the_same_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let mut rows = "path,label,group\n".to_owned();
    for i in 0..12_u32 {
        // Images 4 and 5 show lesion 2; image 9, of lesion 9, is image 4 again, mirrored and a little darker.
        let (seed, group) = match i {
            5 => (50, 4),
            9 => (4, 9),
            _ => (i, i),
        };
        let mut picture = waves(seed);
        if i == 9 {
            picture = image::imageops::flip_horizontal(&picture);
            picture.iter_mut().for_each(|v| *v = (f32::from(*v) * 0.9) as u8);
        }
        picture.save(dir.path().join(format!("{i}.png"))).unwrap();
        rows.push_str(&format!("{i}.png,{},lesion {group}\n", if i % 2 == 0 { "a" } else { "b" }));
    }
    let table = dir.path().join("set.csv");
    fs::write(&table, rows).unwrap();
    let prepared = |cache| {
        let mut dataset = Dataset::open(&table, &OpenOptions::default()).unwrap();
        let store = PixelStore::prepare(&mut dataset, 8, cache, &mut |_, _| Ok(())).unwrap();
        (dataset, store.reused())
    };
    for (cache, reused) in [(Cache::Off, false), (Cache::Dir(&cache), false), (Cache::Dir(&cache), true)] {
        let (dataset, found) = prepared(cache);
        assert_eq!(found, reused);
        let groups: Vec<&str> = dataset.samples.iter().map(|s| s.group.as_str()).collect();
        assert_eq!((groups[4], groups[5], groups[9]), ("lesion 4", "lesion 4", "lesion 4"));
        assert_eq!(dataset.group_count(), 10, "{groups:?}");
        assert!(dataset.notes.iter().any(|note| note.contains("look the same")), "{:?}", dataset.notes);
        let parts = split(&dataset, &SplitSpec::default()).unwrap();
        let home = |i: usize| [&parts.train, &parts.val, &parts.test].iter().position(|part| part.contains(&i));
        assert_eq!((home(4), home(5)), (home(9), home(9)));
        assert_eq!(parts.leak(&dataset), None);
    }
    // In a split that is given, they are a leak.
    let lines: Vec<String> = fs::read_to_string(&table).unwrap().lines().map(str::to_owned).collect();
    let of = |(i, line): (usize, &String)| match i {
        0 => format!("{line},split\n"),
        10 => format!("{line},test\n"),
        _ => format!("{line},train\n"),
    };
    fs::write(&table, lines.iter().enumerate().map(of).collect::<String>()).unwrap();
    let (dataset, _) = prepared(Cache::Dir(&cache));
    let leak = split(&dataset, &SplitSpec::default()).unwrap().leak(&dataset).unwrap();
    assert_eq!((leak.torn, leak.groups, leak.example.as_str()), (1, 10, "lesion 4"));
}

#[test]
fn a_balanced_set_is_written_as_training_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = "path,label,group,age,sex,site\n".to_owned();
    for i in 0..30_u32 {
        waves(i).save(dir.path().join(format!("{i}.png"))).unwrap();
        rows.push_str(&format!("{i}.png,{},lesion {},50,male,back\n", if i % 5 == 0 { "rare" } else { "b" }, i / 2));
    }
    let table = dir.path().join("set.csv");
    fs::write(&table, rows).unwrap();
    let mut dataset = Dataset::open(&table, &OpenOptions::default()).unwrap();
    let mut parts = split(&dataset, &SplitSpec::default()).unwrap();
    balance_train(&mut dataset, &mut parts, 12, 4);
    let out = dir.path().join("out");
    let stopped = write_set(&dataset, &parts, &out, &mut |_, _| Err(Error::new(Kind::Interrupted, "stop")));
    assert_eq!(stopped.unwrap_err().kind(), Kind::Interrupted);
    assert!(!out.exists() && fs::read_dir(dir.path()).unwrap().count() == 31, "something is left behind");
    write_set(&dataset, &parts, &out, &mut |_, _| Ok(())).unwrap();
    assert_eq!(write_set(&dataset, &parts, &out, &mut |_, _| Ok(())).unwrap_err().kind(), Kind::Usage);

    let mut read = Dataset::open(&out, &OpenOptions::default()).unwrap();
    let pixels = PixelStore::prepare(&mut read, 16, Cache::Off, &mut |_, _| Ok(())).unwrap();
    let found = split(&read, &SplitSpec::default()).unwrap();
    assert!(found.given && found.leak(&read).is_none());
    assert_eq!(read.class_counts_of(found.train.iter().copied()), [12, 12]);
    assert_eq!((found.val.len(), found.test.len()), (parts.val.len(), parts.test.len()));
    let groups = |of: &Dataset| of.samples.iter().map(|s| s.group.clone()).collect::<Vec<_>>();
    assert_eq!(groups(&read), groups(&dataset));
    assert_eq!((read.samples[0].patient.age, read.samples[0].patient.site.as_str()), (Some(50), "back"));
    // The files hold what a training on the fly sees, but for JPEG.
    let direct = PixelStore::prepare(&mut dataset, 16, Cache::Off, &mut |_, _| Ok(())).unwrap();
    let distance = |i: usize| {
        let (a, b) = (pixels.pixels(i).unwrap(), direct.pixels(i).unwrap());
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>() / a.len() as f64
    };
    let worst = (0..direct.len()).map(distance).fold(0.0, f64::max);
    assert!(worst < 4.0, "{worst}");
    assert!(dataset.samples.iter().enumerate().filter(|(_, s)| !s.id.contains('~')).all(|(i, _)| distance(i) == 0.0));
}
