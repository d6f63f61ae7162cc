//! Dataset layouts: what opens, and that every fault is named in one error.

#[path = "common/files.rs"]
mod files;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use files::{put, zip};
use image::{ImageFormat, Rgb, RgbImage};
use lesion_gpu::data::{Cache, Dataset, Fold, Layout, OpenOptions, PixelStore, Split, SplitSpec, split};
use lesion_gpu::{Error, Kind};

fn skip() -> OpenOptions {
    OpenOptions { skip_bad: true, ..OpenOptions::default() }
}

fn picture(value: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    RgbImage::from_fn(12, 9, |x, y| Rgb([value, x as u8 * 9, y as u8 * 9]))
        .write_to(&mut Cursor::new(&mut bytes), format)
        .unwrap();
    bytes
}

fn jpeg(value: u8) -> Vec<u8> {
    picture(value, ImageFormat::Jpeg)
}

fn open(path: &Path) -> Result<Dataset, Error> {
    let mut dataset = Dataset::open(path, &OpenOptions::default())?;
    dataset.settle()?;
    Ok(dataset)
}

const TABLE: &str = "lesion_id,image_id,dx,dx_type,age,sex,localization\n\
    L1,ISIC_1,nv,histo,,male,back\nL1,ISIC_2,nv,histo,50.0,male,back\nL2,ISIC_3,mel,histo,60,female,face\n";

#[test]
fn the_same_dataset_in_every_form_it_is_distributed_in() {
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<(String, Vec<u8>)> = (1..=3).map(|i| (format!("ISIC_{i}.jpg"), jpeg(i * 50))).collect();
    let folder = |name: &str, table_name: &str, table: &str, image_folders: &[&str]| {
        let root = dir.path().join(name);
        put(&root, table_name, table);
        for (image, bytes) in &images {
            image_folders.iter().for_each(|f| put(&root, &format!("{f}/{image}"), bytes));
        }
        root
    };
    let tabs = format!("\u{FEFF}{}", TABLE.replace(',', "\t").replace("back\n", "back\tvidir\n"))
        .replace("localization\n", "localization\tdataset\n")
        .replace("face\n", "face\tvidir\n");
    let with_twins = ["HAM10000_images_part_1", "ham10000_images_part_1_again", "__MACOSX"];
    let mut roots = vec![
        folder("plain", "HAM10000_metadata.csv", TABLE, &["HAM10000_images_part_1"]),
        folder("twins", "HAM10000_metadata.csv", TABLE, &with_twins),
        folder("nested", "archive/HAM10000_metadata", TABLE, &["archive/all/images"]),
        folder("tabs", "HAM10000_metadata.tab", &tabs, &["HAM10000_images_part_2"]),
        folder("packed", "HAM10000_metadata.csv", TABLE, &[]),
        dir.path().join("whole.zip"),
    ];
    put(&roots[0], "HAM10000_segmentations_lesion_tschandl/ISIC_1_segmentation.png", picture(0, ImageFormat::Png));
    put(&roots[0], "hmnist_8_8_L.csv", "pixel0000\n1\n");
    let entry = |i: usize, folder: &str| (format!("{folder}/{}", images[i].0), images[i].1.clone());
    let parts = [vec![entry(0, "a"), entry(1, "a")], vec![entry(2, "")]];
    for (n, part) in parts.iter().enumerate() {
        let part: Vec<(&str, Vec<u8>)> =
            part.iter().map(|(name, bytes)| (name.trim_start_matches('/'), bytes.clone())).collect();
        zip(&roots[4].join(format!("HAM10000_images_part_{}.zip", n + 1)), &part);
    }
    let whole: Vec<(String, Vec<u8>)> = [("data/HAM10000_metadata.csv".to_owned(), TABLE.as_bytes().to_vec())]
        .into_iter()
        .chain((0..3).map(|i| entry(i, "data/HAM10000_images_part_1")))
        .chain((0..3).map(|i| entry(i, "data/ham10000_images_part_1")))
        .chain([("__MACOSX/data/._ISIC_1.jpg".to_owned(), b"finder".to_vec())])
        .collect();
    let whole: Vec<(&str, Vec<u8>)> = whole.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    zip(roots.last().unwrap(), &whole);
    // A zip whose ending is in capitals is a zip.
    let capitals = dir.path().join("CAPITALS.ZIP");
    fs::copy(roots.last().unwrap(), &capitals).unwrap();
    roots.push(capitals);

    let mut first = None;
    for root in roots {
        let mut dataset = open(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        assert_eq!((dataset.name.as_str(), dataset.layout), ("HAM10000", Layout::Ham10000));
        assert_eq!(dataset.classes, ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]);
        assert!(dataset.notes.is_empty(), "{}: {:?}", root.display(), dataset.notes);
        let rows: Vec<_> = dataset.samples.iter().map(|s| (s.id.clone(), s.label, s.group.clone())).collect();
        let store = PixelStore::prepare(&mut dataset, 8, Cache::Off, &mut |_, _| Ok(())).unwrap();
        let pixels: Vec<Vec<u8>> = (0..3).map(|i| store.pixels(i).unwrap()).collect();
        let seen = (rows, pixels);
        assert_eq!(first.get_or_insert(seen.clone()), &seen, "{}", root.display());
    }
    let (rows, _) = first.unwrap();
    assert_eq!(rows[1], ("ISIC_2".into(), 5, "L1".into()));
}

#[test]
fn every_fault_of_a_listing_is_named_at_once_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let table =
        "lesion_id,image_id,dx\nL1,A,nv\nL1,A,nv\nL2,B,wart\nL3,C\nL4,GONE,mel\nL5,EMPTY,mel\n,D,bcc\n,E,nv\n,,nv\n";
    put(dir.path(), "HAM10000_metadata.csv", table);
    ["A", "B", "C", "D", "E", "EXTRA"].iter().for_each(|id| put(dir.path(), &format!("i/{id}.jpg"), jpeg(9)));
    put(dir.path(), "i/EMPTY.jpg", []);
    let text = open(dir.path()).unwrap_err().to_string();
    for part in [
        "2 malformed rows, 1 unknown class, 1 duplicate image, 1 row without an image, 1 bad image",
        "line 3: names A, as line 2 does",
        "line 4: has the unknown dx `wart`",
        "line 5: has 2 fields where the header has 3",
        "line 6: there is no image GONE",
        "EMPTY.jpg: the image is empty (0 bytes)",
        "line 10: has an empty image_id or dx",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let dataset = Dataset::open(dir.path(), &skip()).unwrap();
    let ids: Vec<&str> = dataset.samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["A", "D", "E"]);
    assert_ne!(dataset.samples[1].group, dataset.samples[2].group, "a blank lesion is a group of its own");
    let notes = dataset.notes.join("\n");
    assert!(notes.contains("skipped: 2 malformed rows"), "{notes}");
    assert!(notes.contains("2 image(s) have no row") && notes.contains("for example C"), "{notes}");
}

#[test]
fn faults_of_the_listing_and_of_the_pictures_are_one_report() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "path,label\na.png,x\nbad.png,y\ngone.png,x\n./a.png,x\nc.png,y,z\n";
    put(dir.path(), "set.csv", rows);
    put(dir.path(), "a.png", picture(1, ImageFormat::Png));
    put(dir.path(), "bad.png", &picture(2, ImageFormat::Png)[..60]);
    let mut dataset = Dataset::open(dir.path().join("set.csv"), &OpenOptions::default()).unwrap();
    let error = PixelStore::prepare(&mut dataset, 8, Cache::Off, &mut |_, _| Ok(())).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Data);
    for part in [
        "1 malformed row, 1 duplicate image, 1 row without an image, 1 bad image",
        "line 4: ",
        "line 5: names ./a.png, as line 2 does",
        "line 6: has 3 fields",
        "bad.png: the",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn bad_images_are_all_named_when_decoding_or_skipped_also_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "HAM10000_metadata.csv", "lesion_id,image_id,dx\na,A,nv\nb,B,nv\nc,C,mel\nd,D,mel\n");
    put(dir.path(), "A.jpg", "this is text");
    put(dir.path(), "B.jpg", jpeg(40));
    put(dir.path(), "C.jpg", &jpeg(80)[..200]);
    put(dir.path(), "D.png", picture(200, ImageFormat::Png));
    let cache = tempfile::tempdir().unwrap();
    let mut dataset = open(dir.path()).unwrap();
    let prepare = |d: &mut Dataset| PixelStore::prepare(d, 8, Cache::Dir(cache.path()), &mut |_, _| Ok(()));
    let error = prepare(&mut dataset).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Data);
    assert!(text.contains("2 bad images") && text.contains("A.jpg: the file is no image"), "{text}");
    assert!(text.contains("C.jpg: the JPEG is truncated"), "{text}");
    // That these contents do not decode is in the cache as well.
    for _ in 0..2 {
        let mut dataset = Dataset::open(dir.path(), &skip()).unwrap();
        let store = prepare(&mut dataset).unwrap();
        assert!(store.reused());
        assert_eq!(dataset.samples.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["B", "D"]);
        assert!(store.len() == 2 && store.pixels(1).unwrap()[0] > 150 && store.pixels(0).unwrap()[0] < 90);
        assert!(dataset.notes.iter().any(|n| n.contains("skipped: 2 bad images")), "{:?}", dataset.notes);
    }
}

#[test]
fn a_damaged_zip_entry_and_a_damaged_zip_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.zip");
    // Noise does not compress, so the damage is in its bytes and not in the archive's structure.
    let noise_bmp = || {
        let noise = |x: u32, y: u32| Rgb([1, 7, 77].map(|k| ((x * 7919 + y * 104_729) * k % 251) as u8));
        let mut bytes = Vec::new();
        RgbImage::from_fn(40, 40, noise).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Bmp).unwrap();
        bytes
    };
    zip(
        &path,
        &[
            ("HAM10000_metadata.csv", TABLE.into()),
            ("ISIC_1.jpg", noise_bmp()),
            ("ISIC_2.jpg", jpeg(2)),
            ("ISIC_3.jpg", jpeg(3)),
        ],
    );
    let intact = fs::read(&path).unwrap();
    let mut bytes = intact.clone();
    let at = bytes.windows(10).position(|w| w == b"ISIC_1.jpg").unwrap() + 300;
    bytes[at..at + 20].iter_mut().for_each(|b| *b ^= 0x55);
    fs::write(&path, &bytes).unwrap();
    let cache = dir.path().join("cache");
    let prepare = |skip_bad| {
        let mut dataset = Dataset::open(&path, &OpenOptions { skip_bad, ..OpenOptions::default() }).unwrap();
        PixelStore::prepare(&mut dataset, 8, Cache::Dir(&cache), &mut |_, _| Ok(()))
    };
    let error = prepare(false).unwrap_err().to_string();
    assert!(error.contains("1 bad image") && error.contains("h.zip!ISIC_1.jpg: the entry is corrupt"), "{error}");
    // An intact copy states the same CRC: what was damaged before must not be found again in the cache.
    assert_eq!(prepare(true).unwrap().len(), 2);
    fs::write(&path, intact).unwrap();
    assert_eq!(prepare(true).unwrap().len(), 3);
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(&path).unwrap_err();
    assert!(error.kind() == Kind::Data && error.to_string().contains("damaged or incomplete"), "{error}");
}

#[test]
fn an_entry_that_lies_about_its_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.zip");
    let big = vec![7_u8; 3_000_000];
    zip(&path, &[("HAM10000_metadata.csv", "lesion_id,image_id,dx\nL,BOMB,nv\n".into()), ("BOMB.jpg", big)]);
    // Claim one byte, in the local header and in the directory.
    let mut bytes = fs::read(&path).unwrap();
    let claim = 3_000_000_u32.to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == claim).collect();
    assert_eq!(places.len(), 2);
    places.iter().for_each(|&i| bytes[i..i + 4].copy_from_slice(&1_u32.to_le_bytes()));
    fs::write(&path, bytes).unwrap();
    let mut dataset = open(&path).unwrap();
    let error = PixelStore::prepare(&mut dataset, 8, Cache::Off, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("BOMB.jpg: the entry"), "{error}");
}

#[test]
fn a_table_in_any_column_order_with_given_splits() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "split,Label,path,group\ntrain,wart,img/a.png,p1\nvalid,mole,img/b.png,\nTEST,mole,img/c.png,p2\nvalidation,wart,img/d.png,p3\n";
    put(dir.path(), "set.csv", rows);
    ["a", "b", "c", "d"].iter().for_each(|n| put(dir.path(), &format!("img/{n}.png"), picture(1, ImageFormat::Png)));
    let dataset = open(&dir.path().join("set.csv")).unwrap();
    assert_eq!((dataset.layout, dataset.name.as_str()), (Layout::Table, "set"));
    assert_eq!(dataset.classes, ["mole", "wart"]);
    assert_eq!(dataset.labels(), [1, 0, 0, 1]);
    assert_eq!(dataset.samples[2].split, Some(Split::Test));
    let parts = split(&dataset, &Default::default()).unwrap();
    assert!(parts.given);
    assert_eq!((parts.train, parts.val, parts.test), (vec![0], vec![1, 3], vec![2]));
}

#[test]
fn faults_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.csv");
    put(dir.path(), "a.png", picture(1, ImageFormat::Png));
    put(dir.path(), "b.png", picture(2, ImageFormat::Png));
    put(dir.path(), "c.png", []);
    let rows = "path,label,group,split\na.png,x,g,train\nb.png,y,g,test\nc.png,x,,val\ngone.png,x,,val\na.png,x,g,train\nb.png,,,val\n\"b.png\",y,,later\n";
    fs::write(&path, rows).unwrap();
    let text = open(&path).unwrap_err().to_string();
    for part in [
        "line 4: ",
        "line 5: ",
        "line 6: names a.png, as line 2",
        "line 7: has an empty",
        "line 8: has the unknown split `later`",
        "b.png: is in test, but its group g is already in train",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(Dataset::open(&path, &skip()).unwrap().samples.len(), 1);
    fs::write(&path, "path,label,split\na.png,x,train\nb.png,y,\n").unwrap();
    let error = split(&open(&path).unwrap(), &Default::default()).unwrap_err().to_string();
    assert!(error.contains("only 1 of 2 samples give a split"), "{error}");
    for (rows, part) in [
        ("file,label\na.png,x\n", "lacks the column path"),
        ("path,label\na.png,x\n", "1 class(es)"),
        ("", "lacks the column"),
    ] {
        fs::write(&path, rows).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{rows:?}: {error}");
    }
}

#[test]
fn a_lesion_with_two_diagnoses_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "HAM10000_metadata.csv", "lesion_id,image_id,dx\nL1,A,nv\nL1,B,mel\n");
    ["A", "B"].iter().for_each(|id| put(dir.path(), &format!("{id}.JPG"), jpeg(9)));
    let dataset = open(dir.path()).unwrap();
    assert!(dataset.notes.iter().any(|n| n.contains("different classes, for example L1")), "{:?}", dataset.notes);
}

#[test]
fn anything_else_says_what_was_looked_for_and_found() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "nv/a.jpg", jpeg(1));
    put(dir.path(), "notes.docx", "x");
    let error = open(dir.path()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Data);
    assert!(
        text.contains("looked for HAM10000_metadata") && text.contains("found 2 files (1 .docx, 1 .jpg)"),
        "{text}"
    );
    assert!(open(&dir.path().join("notes.docx")).unwrap_err().to_string().contains("looked for a folder, a .zip"));
    assert_eq!(open(&dir.path().join("nowhere")).unwrap_err().kind(), Kind::Io);
    put(dir.path(), "not.zip", "plain text");
    assert_eq!(open(&dir.path().join("not.zip")).unwrap_err().kind(), Kind::Data);
}

/// A table of splits, as a run leaves one, in the place of the dataset's own; and what it must not do.
#[test]
fn splits_from_a_table() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "HAM10000_metadata.csv", TABLE);
    (1..=3).for_each(|i| put(dir.path(), &format!("ISIC_{i}.jpg"), jpeg(i * 50)));
    let with = |table: &str, leaky, skip_bad| {
        put(dir.path(), "split.csv", table);
        let splits = Some(dir.path().join("split.csv"));
        let mut dataset =
            Dataset::open(dir.path(), &OpenOptions { splits, leaky, skip_bad, ..OpenOptions::default() })?;
        dataset.settle()?;
        Ok::<Dataset, Error>(dataset)
    };
    let rows =
        "image_id,label,group,split\nISIC_3,mel,L2,test\nISIC_1,nv,L1,train\nISIC_2,nv,L1,train\nISIC_9,nv,L9,val\n";
    let dataset = with(rows, false, false).unwrap();
    let s = split(&dataset, &SplitSpec::default()).unwrap();
    assert_eq!((s.train, s.val, s.test, s.given), (vec![0, 1], vec![], vec![2], true));
    assert!(dataset.notes.iter().any(|n| n.starts_with("1 image(s) of ") && n.ends_with("for example ISIC_9")));
    let fold = SplitSpec { fold: Some(Fold { number: 1, of: 2 }), ..SplitSpec::default() };
    assert_eq!(split(&dataset, &fold).unwrap_err().kind(), Kind::Usage);

    let torn = rows.replace("ISIC_2,nv,L1,train", "ISIC_2,nv,L1,val");
    let text = with(&torn, false, false).unwrap_err().to_string();
    assert!(text.contains("1 sample that leaks between splits") && text.contains("L1"), "{text}");
    let leaky = with(&torn, true, false).unwrap();
    let leak = split(&leaky, &SplitSpec::default()).unwrap().leak(&leaky).unwrap();
    assert_eq!((leak.torn, leak.example.as_str()), (1, "L1"));
    assert_eq!(with(&torn, false, true).unwrap().samples.len(), 2);

    let short = with("image,split\nISIC_1,train\nISIC_2,sometimes\n", false, false).unwrap_err().to_string();
    assert!(short.contains("2 pictures without a split") && short.contains("unknown split `sometimes`"), "{short}");
    let unnamed = with("id,split\nISIC_1,train\n", false, false).unwrap_err();
    assert!(unnamed.to_string().contains("no column `image_id`"), "{unnamed}");
    let nowhere = OpenOptions { splits: Some(dir.path().join("none.csv")), ..OpenOptions::default() };
    assert_eq!(Dataset::open(dir.path(), &nowhere).unwrap_err().kind(), Kind::Io);
}
