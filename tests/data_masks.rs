//! Masks: found in every layout, decoded with their pictures, and every fault named in one error.

#[path = "common/files.rs"]
mod files;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use files::{put, zip};
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use lesion_gpu::data::{
    Batch, Cache, Dataset, ImageSize, LastBatch, Layout, Loader, LoaderOptions, Masks, OpenOptions, PixelStore,
    SampleReader, Split, split, synthetic,
};
use lesion_gpu::{Error, Kind};

const SIZE: ImageSize = ImageSize { width: 8, height: 6 };

fn png(picture: &image::DynamicImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

fn picture(value: u8) -> Vec<u8> {
    png(&RgbImage::from_pixel(16, 12, Rgb([value, 9, 9])).into())
}

/// A mask of 16x12 pixels, white in the first `columns`.
fn mask(columns: u32) -> Vec<u8> {
    png(&GrayImage::from_fn(16, 12, |x, _| Luma([if x < columns { 255 } else { 0 }])).into())
}

fn prepare(path: &Path, masks: Masks, skip_bad: bool, cache: Cache<'_>) -> Result<(Dataset, PixelStore), Error> {
    let mut dataset = Dataset::open(path, &OpenOptions { skip_bad, masks, ..OpenOptions::default() })?;
    let store = PixelStore::prepare(&mut dataset, SIZE, cache, &mut |_, _| Ok(()))?;
    Ok((dataset, store))
}

/// How many pixels of a sample are inside its mask.
fn inside(store: &PixelStore, sample: usize) -> usize {
    assert_eq!(store.channels(), 4);
    let alphas: Vec<u8> = store.pixels(sample).unwrap().chunks_exact(4).map(|p| p[3]).collect();
    assert!(alphas.len() == SIZE.area() && alphas.iter().all(|a| [0, 255].contains(a)), "{alphas:?}");
    alphas.iter().filter(|&&a| a == 255).count()
}

/// HAM10000 with two pictures, and its masks elsewhere.
fn ham10000(root: &Path) {
    put(root, "HAM10000_metadata.csv", "lesion_id,image_id,dx\nL1,ISIC_1,nv\nL2,ISIC_2,mel\n");
    put(root, "images/ISIC_1.png", picture(50));
    put(root, "images/ISIC_2.png", picture(90));
}

#[test]
fn masks_of_ham10000_are_found_wherever_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ham");
    ham10000(&root);
    let archive = dir.path().join("masks.zip");
    let nested = "HAM10000_segmentations_lesion_tschandl/";
    let of = |id: &str, columns| (format!("{nested}{id}_segmentation.png"), mask(columns));
    let entries = [of("ISIC_1", 4), of("ISIC_2", 10), of("ISIC_9", 1)];
    let entries: Vec<(&str, Vec<u8>)> = entries.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    zip(&archive, &entries);
    // As an archive, unpacked, and beside the pictures; named as the pictures are, too.
    let unpacked = dir.path().join("unpacked");
    let plain = dir.path().join("plain");
    for (name, bytes) in &entries {
        put(&unpacked, name, bytes);
        put(&plain, &name.replace("_segmentation", "").replace(nested, ""), bytes);
    }
    for place in [&archive, &unpacked, &plain] {
        let (dataset, store) = prepare(&root, Masks::In(place.clone()), false, Cache::Off).unwrap();
        assert_eq!([inside(&store, 0), inside(&store, 1)], [2 * 6, 5 * 6], "{}", place.display());
        assert_eq!(dataset.labels(), [5, 4]);
        assert!(dataset.notes.iter().any(|n| n.contains("belong to no picture") && n.contains("ISIC_9")));
    }
    let error = prepare(&root, Masks::OfDataset, false, Cache::Off).unwrap_err().to_string();
    assert!(error.contains("there are no masks") && error.contains("--masks"), "{error}");
    entries.iter().for_each(|(name, bytes)| put(&root, name, bytes));
    let (_, store) = prepare(&root, Masks::OfDataset, false, Cache::Off).unwrap();
    assert_eq!(inside(&store, 1), 30);
    // Not asked for, they are no pictures, and there are three channels.
    let (dataset, store) = prepare(&root, Masks::Unused, false, Cache::Off).unwrap();
    assert_eq!((dataset.samples.len(), store.channels()), (2, 3));
    let error = prepare(&root, Masks::In(dir.path().join("nowhere")), false, Cache::Off).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
}

#[test]
fn every_fault_of_a_mask_is_named_in_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (1..=6).map(|i| format!("L{i},ISIC_{i},nv\n")).collect();
    put(dir.path(), "HAM10000_metadata.csv", format!("lesion_id,image_id,dx\n{rows}"));
    (1..=5).for_each(|i| put(dir.path(), &format!("images/ISIC_{i}.png"), picture(i * 20)));
    let place = |i: usize| format!("masks/ISIC_{i}_segmentation.png");
    put(dir.path(), &place(1), mask(8));
    put(dir.path(), &place(2), png(&GrayImage::new(15, 12).into()));
    put(dir.path(), &place(3), png(&GrayImage::from_pixel(16, 12, Luma([1])).into()));
    put(dir.path(), &place(4), &mask(3)[..40]);
    let text = prepare(dir.path(), Masks::OfDataset, false, Cache::Off).unwrap_err().to_string();
    for part in [
        "1 row without an image, 1 picture without a mask, 3 bad masks",
        "there is no image ISIC_6",
        "ISIC_5.png: there is no mask of it",
        "ISIC_2_segmentation.png: the mask has 15x12 pixels, its picture 16x12",
        "ISIC_3_segmentation.png: the mask is not black and white: its brightest value is 1",
        "ISIC_4_segmentation.png: the mask: the image is corrupt or truncated",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let cache = dir.path().join("cache");
    for _ in 0..2 {
        let (dataset, store) = prepare(dir.path(), Masks::OfDataset, true, Cache::Dir(&cache)).unwrap();
        assert_eq!((dataset.samples.len(), store.len(), inside(&store, 0)), (1, 1, 24));
        assert!(dataset.notes.iter().any(|n| n.contains("3 bad masks")), "{:?}", dataset.notes);
    }
}

#[test]
fn isic_2018_task_1_is_told_by_its_folders() {
    let dir = tempfile::tempdir().unwrap();
    let entries = |part: &str, ids: std::ops::Range<usize>| -> Vec<(String, Vec<u8>)> {
        let of = |i: usize| {
            let image = format!("ISIC2018_Task1-2_{part}_Input/ISIC_{i:07}.jpg");
            let truth = format!("ISIC2018_Task1_{part}_GroundTruth/ISIC_{i:07}_segmentation.png");
            [(image, picture(i as u8 * 7)), (truth, mask(i as u32))]
        };
        let other = [("LICENSE.txt", b"CC".to_vec()), ("ISIC_0000001_superpixels.png", picture(1))];
        let other = other.map(|(name, bytes)| (format!("ISIC2018_Task1-2_{part}_Input/{name}"), bytes));
        ids.flat_map(of).chain(other).collect()
    };
    let write = |name: &str, files: &[(String, Vec<u8>)]| {
        let path = dir.path().join(name);
        zip(&path, &files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>());
        path
    };
    let training = write("training.zip", &entries("Training", 1..5));
    let (dataset, store) = prepare(&training, Masks::OfDataset, false, Cache::Off).unwrap();
    assert_eq!((dataset.layout, dataset.classes.as_slice()), (Layout::Isic2018Task1, &["lesion".to_owned()][..]));
    assert_eq!((dataset.samples.len(), inside(&store, 3)), (4, 2 * 6));
    assert!(dataset.samples.iter().all(|s| s.split.is_none()));
    let error = prepare(&training, Masks::Unused, false, Cache::Off).unwrap_err().to_string();
    assert!(error.contains("has masks and no classes") && error.contains("unet-small"), "{error}");
    // Several parts are a split. One without any mask (as long as a challenge runs) is left out.
    let mut all = [entries("Training", 1..5), entries("Validation", 5..7)].concat();
    all.extend(entries("Test", 8..10).into_iter().filter(|(name, _)| !name.contains("GroundTruth")));
    let (dataset, _) = prepare(&write("all.zip", &all), Masks::OfDataset, false, Cache::Off).unwrap();
    let parts = split(&dataset, &Default::default()).unwrap();
    assert!(parts.given && parts.train.len() == 4 && parts.val.len() == 2 && parts.test.is_empty());
    assert!(dataset.notes.iter().any(|n| n.contains("2 picture(s) of a part without any mask")));
}

#[test]
fn a_table_may_name_masks_instead_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "a.png", picture(1));
    put(dir.path(), "b.png", picture(2));
    put(dir.path(), "m/a.png", mask(16));
    let table = dir.path().join("set.csv");
    fs::write(&table, "path,mask,group,split\na.png,m/a.png,g,train\nb.png,m/b.png,h,val\nb.png,,h,val\n").unwrap();
    let text = prepare(&table, Masks::OfDataset, false, Cache::Off).unwrap_err().to_string();
    assert!(
        text.contains("line 3: ") && text.contains("m/b.png") && text.contains("1 picture without a mask"),
        "{text}"
    );
    assert!(text.contains("line 4: has an empty mask"), "{text}");
    put(dir.path(), "m/b.png", mask(4));
    fs::write(&table, "path,mask,group,split\na.png,m/a.png,g,train\nb.png,m/b.png,h,val\n").unwrap();
    let (dataset, store) = prepare(&table, Masks::OfDataset, false, Cache::Off).unwrap();
    assert_eq!((dataset.samples[1].split, inside(&store, 0), inside(&store, 1)), (Some(Split::Val), 48, 12));
    let error = prepare(&table, Masks::Unused, false, Cache::Off).unwrap_err().to_string();
    assert!(error.contains("lacks the column label"), "{error}");
    let (_, store) = prepare(&table, Masks::In(dir.path().join("m")), false, Cache::Off).unwrap();
    assert_eq!(inside(&store, 1), 12);
}

#[test]
fn masks_belong_to_the_pictures_of_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("set.csv");
    fs::write(&table, "path,label\na/p.png,x\nb/p.png,y\n").unwrap();
    put(dir.path(), "a/p.png", picture(10));
    put(dir.path(), "b/p.png", picture(20));
    // Beside the pictures: the ending makes the mask.
    put(dir.path(), "a/p_mask.png", mask(4));
    put(dir.path(), "b/p_mask.png", mask(12));
    let (_, store) = prepare(&table, Masks::In(dir.path().to_owned()), false, Cache::Off).unwrap();
    assert_eq!([inside(&store, 0), inside(&store, 1)], [12, 36]);
    let masks = tempfile::tempdir().unwrap();
    let text = |masks: &Path| prepare(&table, Masks::In(masks.to_owned()), false, Cache::Off).unwrap_err().to_string();
    put(masks.path(), "b/p.png", mask(12));
    let one = text(masks.path());
    assert!(one.contains("1 picture without a mask") && one.contains("a/p.png: there is no mask of it"), "{one}");
    fs::rename(masks.path().join("b/p.png"), masks.path().join("p.png")).unwrap();
    let both = text(masks.path());
    assert!(both.contains("2 pictures without a mask") && both.contains("of this picture or of b/p.png"), "{both}");
}

#[test]
fn the_cache_knows_a_changed_mask_and_another_shape() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ham");
    ham10000(&root);
    let write = |columns| {
        (1..=2).for_each(|i| put(&root, &format!("masks/ISIC_{i}_segmentation.png"), mask(columns)));
    };
    let cache = dir.path().join("cache");
    let open = |masks: Masks| prepare(&root, masks, false, Cache::Dir(&cache)).unwrap().1;
    write(4);
    assert!(!open(Masks::OfDataset).reused() && open(Masks::OfDataset).reused());
    assert!(!open(Masks::Unused).reused() && open(Masks::Unused).reused());
    write(8);
    let store = open(Masks::OfDataset);
    assert!(!store.reused() && inside(&store, 0) == 24);
    let mut dataset = Dataset::open(&root, &OpenOptions { masks: Masks::OfDataset, ..Default::default() }).unwrap();
    let turned = ImageSize { width: SIZE.height, height: SIZE.width };
    let store = PixelStore::prepare(&mut dataset, turned, Cache::Dir(&cache), &mut |_, _| Ok(())).unwrap();
    assert!(!store.reused() && store.pixels(0).unwrap().len() == 48 * 4);
}

#[test]
fn masks_travel_in_the_alpha_byte() {
    let open = OpenOptions { masks: Masks::OfDataset, ..OpenOptions::default() };
    let mut dataset = Dataset::open("synthetic:5", &open).unwrap();
    let size = ImageSize { width: 20, height: 12 };
    let store = Arc::new(PixelStore::prepare(&mut dataset, size, Cache::Off, &mut |_, _| Ok(())).unwrap());
    let options = LoaderOptions { batch: 3, workers: 2, prefetch: 1, last: LastBatch::Pad };
    let batches: Vec<Batch> =
        Loader::new(store.clone(), dataset.labels(), vec![4, 1, 0, 2], options).unwrap().map(Result::unwrap).collect();
    let bytes: Vec<u8> = batches[0].pixels.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes, [4, 1, 0].map(|i| store.pixels(i).unwrap()).concat());
    assert!(batches[1].pixels[size.area()..].iter().all(|&word| word == 0));
    // What is scored against is the mask as it was drawn, of which these are the reduced ones.
    let drawn = SampleReader::default().mask(&dataset.samples[4], size).unwrap();
    assert_eq!(drawn, synthetic::render(0, 4, 20).1);
    let share = |inside: usize, all: usize| inside as f64 / all as f64;
    let large = share(drawn.pixels().filter(|p| p[0] == 255).count(), 400);
    let small = share(store.pixels(4).unwrap().chunks(4).filter(|p| p[3] == 255).count(), size.area());
    assert!(large > 0.02 && (large - small).abs() < 0.03, "{large} {small}");
}
