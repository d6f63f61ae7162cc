//! The layouts of challenges, of PH2 and of plain folders, archives in archives, and what `check` tells of a dataset.

#[path = "common/files.rs"]
mod files;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use files::{put, workbook, zipped};
use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use lesion_gpu::data::{
    Cache, DataReport, Dataset, Layout, Masks, OpenOptions, Patient, PixelStore, Source, Split, check,
};
use lesion_gpu::rng::Stream;
use lesion_gpu::{Error, Kind};
use zip::CompressionMethod;

/// A picture that looks like no other.
fn picture(seed: u32) -> RgbImage {
    let stream = Stream::new(seed, 5);
    let spots: Vec<f32> = (0..4 * 16).map(|i| 255.0 * stream.uniform(i)).collect();
    RgbImage::from_fn(48, 32, |x, y| {
        let spot = (y / 8 * 4 + x / 12) as usize;
        Rgb([spots[spot] as u8, spots[16 + spot] as u8, spots[32 + spot] as u8])
    })
}

fn encoded(picture: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.into().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn jpeg(seed: u32) -> Vec<u8> {
    encoded(picture(seed), ImageFormat::Jpeg)
}

/// A mask of the pictures' size, white in its left half.
fn mask() -> GrayImage {
    GrayImage::from_fn(48, 32, |x, _| Luma([if x < 24 { 255 } else { 0 }]))
}

fn open_with(path: &Path, options: &OpenOptions) -> Result<Dataset, Error> {
    let mut dataset = Dataset::open(path, options)?;
    dataset.settle()?;
    Ok(dataset)
}

fn open(path: &Path) -> Result<Dataset, Error> {
    open_with(path, &OpenOptions::default())
}

fn with_masks() -> OpenOptions {
    OpenOptions { masks: Masks::OfDataset, ..OpenOptions::default() }
}

/// Id, class, split and lesion of each sample.
fn listed(dataset: &Dataset) -> Vec<(&str, &str, Option<Split>, &str)> {
    dataset.samples.iter().map(|s| (&*s.id, &*dataset.classes[s.label], s.split, &*s.group)).collect()
}

fn report(dataset: &Dataset) -> DataReport {
    check(dataset, &mut |_, _, _| Ok(())).unwrap()
}

const TRUTH_2019: &str = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n\
    ISIC_0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n\
    ISIC_1_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n\
    ISIC_2,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0\n";
const METADATA_2019: &str = "image,age_approx,anatom_site_general,lesion_id,sex\n\
    ISIC_0,55.0,anterior torso,BCN_1,female\n\
    ISIC_1_downsampled,,,,\n\
    ISIC_2,30,lower extremity,BCN_1,male\n";

/// ISIC 2019 below `root`, with its pictures in a folder of the same name twice over.
fn isic2019(root: &Path) {
    put(root, "ISIC_2019_Training_GroundTruth.csv", TRUTH_2019);
    put(root, "ISIC_2019_Training_Metadata.csv", METADATA_2019);
    for (seed, id) in ["ISIC_0", "ISIC_1_downsampled", "ISIC_2"].into_iter().enumerate() {
        put(root, &format!("ISIC_2019_Training_Input/ISIC_2019_Training_Input/{id}.jpg"), jpeg(seed as u32));
    }
    put(root, "ISIC_2019_Training_Input/LICENSE.txt", "x");
}

#[test]
fn isic_2019_has_eight_classes_lesions_and_patients() {
    let dir = tempfile::tempdir().unwrap();
    isic2019(dir.path());
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.layout, dataset.name.as_str()), (Layout::Isic2019, "ISIC 2019"));
    assert_eq!(dataset.classes, ["ak", "bcc", "bkl", "df", "mel", "nv", "scc", "vasc"]);
    assert_eq!(
        listed(&dataset),
        [
            ("ISIC_0", "nv", None, "BCN_1"),
            ("ISIC_1_downsampled", "mel", None, "image:ISIC_1_downsampled"),
            ("ISIC_2", "scc", None, "BCN_1"),
        ]
    );
    let patient = Patient { age: Some(55), sex: "female".into(), site: "anterior torso".into() };
    assert_eq!(dataset.samples[0].patient, patient);
    assert_eq!(dataset.samples[1].patient, Patient::default());
    assert!(dataset.notes.iter().any(|n| n.starts_with("1 image(s) have no lesion id")), "{:?}", dataset.notes);
    // Where something is unknown, that is a class.
    put(dir.path(), "ISIC_2019_Training_GroundTruth.csv", TRUTH_2019.replace("1.0,0.0\n", "0.0,1.0\n"));
    assert_eq!(open(dir.path()).unwrap().classes[7..], ["unk", "vasc"]);
}

/// Tables in one place, pictures in another, of which some are missing.
#[test]
fn pictures_may_lie_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "labels/ISIC_2019_Training_GroundTruth.csv", TRUTH_2019);
    put(dir.path(), "a/b/ISIC_0.jpg", jpeg(0));
    // The table of another dataset, which is none of this one.
    put(dir.path(), "a/HAM10000_metadata.csv", "lesion_id,image_id,dx\nL1,ISIC_0,mel\n");
    fs::write(dir.path().join("more.zip"), zipped(&[("ISIC_2.jpg", jpeg(2))], CompressionMethod::Stored)).unwrap();
    let images = vec![dir.path().join("a"), dir.path().join("more.zip")];
    let options = OpenOptions { images, skip_bad: true, ..OpenOptions::default() };
    let dataset = open_with(&dir.path().join("labels"), &options).unwrap();
    let ids: Vec<&str> = dataset.samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["ISIC_0", "ISIC_2"]);
    assert!(dataset.notes.iter().any(|n| n.contains("1 row without an image")), "{:?}", dataset.notes);
    let nowhere = OpenOptions { images: vec![dir.path().join("nowhere")], ..OpenOptions::default() };
    let error = open_with(&dir.path().join("labels"), &nowhere).unwrap_err();
    assert!(error.kind() == Kind::Io && error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn isic_2018_task_3_comes_in_parts_with_lesions() {
    let dir = tempfile::tempdir().unwrap();
    let head = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n";
    for (seed, part, id, row) in [
        (1, "Training", "ISIC_1", "0,1,0,0,0,0,0"),
        (2, "Training", "ISIC_2", "0.0,0.0,0.0,1.0,0.0,0.0,0.0"),
        (3, "Validation", "ISIC_3", "1,0,0,0,0,0,0"),
        (4, "Test", "ISIC_4", "0,0,0,0,0,0,1"),
    ] {
        put(dir.path(), &format!("ISIC2018_Task3_{part}_Input/{id}.jpg"), jpeg(seed));
        let table = format!("ISIC2018_Task3_{part}_GroundTruth/ISIC2018_Task3_{part}_GroundTruth.csv");
        let before = fs::read_to_string(dir.path().join(&table)).unwrap_or(head.to_owned());
        put(dir.path(), &table, format!("{before}{id},{row}\n"));
    }
    put(
        dir.path(),
        "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type\nISIC_1,HAM_7,histopathology\nISIC_2,HAM_8,consensus\n",
    );
    let dataset = open(dir.path()).unwrap();
    assert_eq!(dataset.layout, Layout::Isic2018Task3);
    assert_eq!(dataset.classes, lesion_gpu::data::HAM10000_CLASSES);
    assert_eq!(
        listed(&dataset),
        [
            ("ISIC_4", "vasc", Some(Split::Test), "image:ISIC_4"),
            ("ISIC_1", "nv", Some(Split::Train), "HAM_7"),
            ("ISIC_2", "akiec", Some(Split::Train), "HAM_8"),
            ("ISIC_3", "mel", Some(Split::Val), "image:ISIC_3"),
        ]
    );
}

#[test]
fn every_fault_of_ground_truth_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "image,MEL,NV\nA,1,0\nB,1,1\nC,0,0\nD,x,1\nA,0,1\n,1,0\nE,0,1\nF,0,1\n";
    put(dir.path(), "Training_GroundTruth.csv", rows);
    ["A", "B", "C", "D"].iter().enumerate().for_each(|(i, id)| put(dir.path(), &format!("{id}.png"), jpeg(i as u32)));
    put(dir.path(), "F.jpg", "");
    let text = open(dir.path()).unwrap_err().to_string();
    for what in [
        "line 3: has several classes: mel, nv",
        "line 4: has no class",
        "line 5: has `x` in the column of mel, which is no number",
        "line 6: names A, as line 2 does",
        "line 7: has an empty image",
        "line 8: there is no image E",
        "F.jpg: the image is empty",
    ] {
        assert!(text.contains(what), "no {what:?} in {text}");
    }
}

#[test]
fn ph2_is_read_by_its_table_of_bars() {
    let dir = tempfile::tempdir().unwrap();
    let table = "|| Name   || Histological Diagnosis || Clinical Diagnosis || Asymmetry ||\n\
        || IMD002 ||                        ||          0         || 0 || T ||\n\
        || IMD003 || Melanoma               ||          2         || 2 || AT ||\n\
        || IMD004 ||                        ||          1         || 1 || T ||\n\n\
        Legends:\nClinical Diagnosis: 0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.\n";
    put(dir.path(), "PH2Dataset/PH2_dataset.txt", table);
    for (seed, id) in ["IMD002", "IMD003", "IMD004"].into_iter().enumerate() {
        let case = format!("PH2Dataset/PH2 Dataset images/{id}");
        let bmp = encoded(picture(seed as u32), ImageFormat::Bmp);
        put(dir.path(), &format!("{case}/{id}_Dermoscopic_Image/{id}.bmp"), bmp);
        put(dir.path(), &format!("{case}/{id}_lesion/{id}_lesion.bmp"), encoded(mask(), ImageFormat::Bmp));
        put(dir.path(), &format!("{case}/{id}_roi/{id}_R1_Label2.bmp"), encoded(mask(), ImageFormat::Bmp));
    }
    for options in [OpenOptions::default(), with_masks()] {
        let dataset = open_with(dir.path(), &options).unwrap();
        assert_eq!((dataset.layout, dataset.name.as_str()), (Layout::Ph2, "PH2"));
        let classes: Vec<&str> = listed(&dataset).iter().map(|row| row.1).collect();
        assert_eq!(classes, ["common_nevus", "melanoma", "atypical_nevus"]);
        assert!(dataset.samples.iter().all(|s| s.mask.is_some() == (options.masks == Masks::OfDataset)));
    }
    put(dir.path(), "PH2Dataset/PH2_dataset.txt", table.replace("IMD003", "IMD005").replace("|| 1 || T", "|| 9 || T"));
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("line 3: there is no image IMD005"), "{text}");
    fs::remove_file(dir.path().join("PH2Dataset/PH2_dataset.txt")).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("there is no PH2_dataset.txt"));

    // The workbook, with rows of legends above the head, says the same.
    let head = ["Image Name", "Histological Diagnosis", "Common Nevus", "Atypical Nevus", "Melanoma", "Asymmetry"];
    let sheet = |rows: &[[&str; 6]]| workbook(&[&[["PH2", "", "", "", "", ""], head][..], rows].concat());
    let rows =
        [["IMD002", "", "X", "", "", "0"], ["IMD003", "Melanoma", "", "", "X", "2"], ["IMD004", "", "", "X", "", "1"]];
    let file = "PH2Dataset/PH2_dataset.xlsx";
    put(dir.path(), file, sheet(&rows));
    let classes: Vec<String> = listed(&open(dir.path()).unwrap()).iter().map(|row| row.1.to_owned()).collect();
    assert_eq!(classes, ["common_nevus", "melanoma", "atypical_nevus"]);
    put(dir.path(), file, sheet(&[rows[0], ["IMD003", "", "X", "", "X", "2"], rows[0]]));
    let text = open(dir.path()).unwrap_err().to_string();
    for fault in ["row 6: marks 2 of the columns", "row 7: names IMD002, as row 5 does"] {
        assert!(text.contains(fault), "{text}");
    }
    let columns = [["Image Name", "Histological Diagnosis", "Nevus", "", "", ""]];
    for (bytes, fault) in [(workbook(&columns), "no column `Common Nevus`"), (b"no zip".to_vec(), "no workbook")] {
        put(dir.path(), file, bytes);
        let e = open(dir.path()).unwrap_err();
        assert!(e.kind() == Kind::Data && e.to_string().contains(fault), "{e}");
    }
}

#[test]
fn a_folder_for_each_class_with_or_without_parts() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("train/nv", 1), ("train/mel", 2), ("val/nv", 3), ("test/mel", 4)];
    for (folder, seed) in files {
        put(dir.path(), &format!("in_parts/data/{folder}/{seed}.jpg"), jpeg(seed));
        put(dir.path(), &format!("plain/{}/{seed}.jpg", folder.rsplit('/').next().unwrap()), jpeg(seed));
    }
    put(dir.path(), "plain/readme.txt", "x");
    let dataset = open(&dir.path().join("in_parts")).unwrap();
    assert_eq!((dataset.layout, dataset.classes.join(" ")), (Layout::ClassFolders, "mel nv".into()));
    let mut splits: Vec<_> = listed(&dataset).into_iter().map(|(_, class, split, _)| (class, split)).collect();
    splits.sort();
    let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(Some);
    assert_eq!(splits, [("mel", train), ("mel", test), ("nv", train), ("nv", val)]);

    let dataset = open(&dir.path().join("plain")).unwrap();
    assert!(dataset.class_counts() == [2, 2] && dataset.samples.iter().all(|s| s.split.is_none()));
    assert!(dataset.notes.iter().any(|n| n == "1 other file(s) are not used"), "{:?}", dataset.notes);
    // A copy of an ISIC picture in another part is the same lesion.
    put(dir.path(), "in_parts/data/train/nv/ISIC_9.jpg", jpeg(9));
    put(dir.path(), "in_parts/data/test/nv/ISIC_9.jpg", jpeg(9));
    let text = open(&dir.path().join("in_parts")).unwrap_err().to_string();
    assert!(text.contains("its group image:ISIC_9 is already in test"), "{text}");
    // Folders of pictures are no classes.
    for (folder, seed) in [("part/HAM10000_images_part_1", 1), ("part/HAM10000_images_part_2", 2)] {
        put(dir.path(), &format!("{folder}/{seed}.jpg"), jpeg(seed));
    }
    assert_eq!(open(&dir.path().join("part")).unwrap_err().kind(), Kind::Data);
}

#[test]
fn a_folder_of_pictures_beside_a_folder_of_masks() {
    let dir = tempfile::tempdir().unwrap();
    for (part, name, seed) in [("train", "a", 1), ("train", "b", 2), ("test", "a", 3)] {
        put(dir.path(), &format!("set/{part}/images/{name}.jpg"), jpeg(seed));
        put(dir.path(), &format!("set/{part}/masks/{name}_mask.png"), encoded(mask(), ImageFormat::Png));
    }
    let dataset = open_with(dir.path(), &with_masks()).unwrap();
    assert_eq!(dataset.layout, Layout::MaskFolders);
    for sample in &dataset.samples {
        let (Source::File(picture), Some(Source::File(mask))) = (&sample.source, &sample.mask) else { panic!() };
        assert_eq!(picture.parent().unwrap().parent(), mask.parent().unwrap().parent(), "{}", sample.id);
    }
    let splits: Vec<_> = dataset.samples.iter().map(|s| s.split.unwrap()).collect();
    assert_eq!(splits, [Split::Test, Split::Train, Split::Train]);
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("train a model for segmentation"), "{error}");
    fs::remove_file(dir.path().join("set/train/masks/b_mask.png")).unwrap();
    let text = open_with(dir.path(), &with_masks()).unwrap_err().to_string();
    assert!(text.contains("1 picture without a mask") && text.contains("b.jpg"), "{text}");
}

/// Archives in an archive, stored as they are and compressed, and once more in another.
#[test]
fn archives_in_archives_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let table = "lesion_id,image_id,dx\nL1,ISIC_1,nv\nL2,ISIC_2,mel\nL3,ISIC_3,mel\n";
    let part = |id: &str, seed| zipped(&[(&format!("part/{id}.jpg"), jpeg(seed))], CompressionMethod::Deflated);
    let inner = [
        ("HAM10000_metadata", table.as_bytes().to_vec()),
        ("HAM10000_images_part_1.zip", part("ISIC_1", 1)),
        (
            "HAM10000_images_part_2.zip",
            zipped(&[("deep.zip", part("ISIC_2", 2)), ("ISIC_3.jpg", jpeg(3))], CompressionMethod::Stored),
        ),
    ];
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let path = dir.path().join(format!("{method:?}.zip"));
        let mut files = inner.clone();
        files[2].1 = zipped(&[("ISIC_2.jpg", jpeg(2)), ("ISIC_3.jpg", jpeg(3))], CompressionMethod::Stored);
        fs::write(&path, zipped(&files, method)).unwrap();
        let mut dataset = open(&path).unwrap();
        let store = PixelStore::prepare(&mut dataset, 16, Cache::Off, &mut |_, _| Ok(())).unwrap();
        for (i, seed) in [1, 2, 3].into_iter().enumerate() {
            let alone = lesion_gpu::data::decode_image_bytes(&jpeg(seed), "x", 16).unwrap();
            assert_eq!(store.pixels(i).unwrap(), alone.into_raw(), "{method:?} {seed}");
        }
        assert!(dataset.samples[0].source.to_string().contains(".zip!HAM10000_images_part_1.zip!part/ISIC_1.jpg"));
    }
    // Nothing but archives: all are looked into, and those in them.
    let whole = zipped(&[("any.zip", zipped(&inner, CompressionMethod::Deflated))], CompressionMethod::Stored);
    fs::write(dir.path().join("whole.zip"), whole).unwrap();
    assert_eq!(open(&dir.path().join("whole.zip")).unwrap_err().kind(), Kind::Data);
    // A damaged inner archive is named by its place in the outer one.
    let mut cut = part("ISIC_1", 1);
    cut.truncate(cut.len() / 2);
    fs::write(dir.path().join("cut.zip"), zipped(&[("HAM10000_images_part_1.zip", cut)], CompressionMethod::Stored))
        .unwrap();
    let text = open(&dir.path().join("cut.zip")).unwrap_err().to_string();
    assert!(text.contains("cut.zip!HAM10000_images_part_1.zip"), "{text}");
}

#[test]
fn a_check_counts_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    isic2019(dir.path());
    let report = report(&Dataset::list(dir.path(), &OpenOptions::default()).unwrap());
    let counts = |counts: &[lesion_gpu::data::Count]| -> String {
        counts.iter().map(|c| format!("{} {}/{} ", c.name, c.images, c.lesions)).collect()
    };
    assert_eq!((report.images, report.lesions, report.masks), (3, 2, 0));
    assert_eq!(counts(&report.classes), "ak 0/0 bcc 0/0 bkl 0/0 df 0/0 mel 1/1 nv 1/1 scc 1/1 vasc 0/0 ");
    assert_eq!(counts(&report.sexes), "female 1/1 male 1/1 unknown 1/1 ");
    assert_eq!(counts(&report.ages), "20-39 1/1 40-59 1/1 unknown 1/1 ");
    assert_eq!(counts(&report.sites), "anterior torso 1/1 lower extremity 1/1 unknown 1/1 ");
    assert_eq!(counts(&report.sizes), "48x32 3/2 ");
    assert!(report.faults.is_empty() && report.duplicates.is_empty() && !report.faulty(), "{report}");
    assert!(report.to_string().ends_with("no faults"), "{report}");
}

#[test]
fn a_check_names_odd_pictures_and_every_fault() {
    let dir = tempfile::tempdir().unwrap();
    let png = |picture: image::DynamicImage| encoded(picture, ImageFormat::Png);
    let rgb = image::DynamicImage::from(picture(1));
    put(dir.path(), "sixteen.png", png(image::DynamicImage::from(picture(2)).to_rgb16().into()));
    put(dir.path(), "gray.png", png(image::DynamicImage::from(picture(3)).to_luma8().into()));
    put(dir.path(), "alpha.png", png(image::DynamicImage::from(picture(4)).to_rgba8().into()));
    put(
        dir.path(),
        "wide.jpg",
        encoded(rgb.resize_exact(60, 20, image::imageops::FilterType::Triangle), ImageFormat::Jpeg),
    );
    put(dir.path(), "cut.jpg", &jpeg(6)[..200]);
    put(dir.path(), "text.jpg", "no picture");
    put(dir.path(), "upright.jpg", jpeg(7));
    let mut turned = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut turned);
    image::ImageEncoder::set_exif_metadata(
        &mut encoder,
        b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec(),
    )
    .unwrap();
    encoder.encode_image(&image::DynamicImage::from(picture(8))).unwrap();
    put(dir.path(), "turned.jpg", turned);
    let names = [
        "sixteen.png",
        "gray.png",
        "alpha.png",
        "wide.jpg",
        "cut.jpg",
        "text.jpg",
        "upright.jpg",
        "turned.jpg",
        "none.jpg",
    ];
    let rows: String = names.iter().enumerate().map(|(i, name)| format!("{name},{}\n", ["a", "b"][i % 2])).collect();
    put(dir.path(), "set.csv", format!("path,label\n{rows}"));
    let report = report(&Dataset::list(dir.path().join("set.csv"), &OpenOptions::default()).unwrap());
    let modes: Vec<(&str, usize)> = report.modes.iter().map(|c| (c.name.as_str(), c.images)).collect();
    assert_eq!(modes, [("RGB", 3), ("16-bit RGB", 1), ("RGB with alpha", 1), ("gray", 1)]);
    let sizes: Vec<(&str, usize)> = report.sizes.iter().map(|c| (c.name.as_str(), c.images)).collect();
    assert_eq!(sizes, [("48x32", 4), ("32x48", 1), ("60x20", 1)]);
    assert_eq!(report.turned, 1);
    assert_eq!(report.fault_counts["bad image"], 2);
    assert_eq!(report.fault_counts["row without an image"], 1);
    assert!(report.faulty() && report.error().to_string().contains("1 row without an image, 2 bad images"));
}

#[test]
fn a_check_finds_copies_across_lesions_classes_and_splits() {
    let dir = tempfile::tempdir().unwrap();
    let large = image::imageops::resize(&picture(1), 192, 128, image::imageops::FilterType::Nearest);
    let smaller = image::imageops::resize(&large, 96, 64, image::imageops::FilterType::Triangle);
    let large = encoded(large, ImageFormat::Jpeg);
    let files = [
        ("a.jpg", large.clone(), "nv", "L1", "train"),
        ("b.jpg", large, "mel", "L2", "test"),
        ("c.png", encoded(image::imageops::rotate90(&smaller), ImageFormat::Png), "nv", "L1", "train"),
        ("d.jpg", jpeg(2), "mel", "L3", "train"),
        ("e.jpg", jpeg(3), "mel", "L4", "val"),
        ("f.jpg", jpeg(3), "mel", "L4", "val"),
    ];
    let mut table = "path,label,group,split\n".to_owned();
    for (name, bytes, class, lesion, split) in files {
        put(dir.path(), name, bytes);
        table += &format!("{name},{class},{lesion},{split}\n");
    }
    put(dir.path(), "set.csv", table);
    let report = report(&Dataset::list(dir.path().join("set.csv"), &OpenOptions::default()).unwrap());
    let [first, second] = &report.duplicates[..] else { panic!("{report}") };
    assert_eq!(first.images, ["a.jpg", "b.jpg", "c.png"]);
    assert!(!first.exact && first.likeness > 0.98 && first.conflict());
    assert_eq!((first.lesions.join(" "), first.classes.join(" ")), ("L1 L2".into(), "mel nv".into()));
    assert_eq!(first.splits, ["test", "train"]);
    assert_eq!(second.images, ["e.jpg", "f.jpg"]);
    assert!(second.exact && !second.conflict());
    let text = report.to_string();
    assert!(text.contains("the same file: 1 set(s) of 2 images"), "{text}");
    assert!(
        text.contains(
            "near duplicates: 1 set(s) of 3 images\n  1 across lesions\n  1 across classes\n  1 across splits"
        ),
        "{text}"
    );
}

#[test]
fn a_check_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    isic2019(dir.path());
    let dataset = Dataset::list(dir.path(), &OpenOptions::default()).unwrap();
    let stop = Error::new(Kind::Interrupted, "stop");
    assert_eq!(check(&dataset, &mut |_, _, _| Err(stop.clone())).unwrap_err().kind(), Kind::Interrupted);
}
