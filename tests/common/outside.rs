//! What fuzz targets do with the bytes of datasets. A test of the quick suite takes this file too, and goes through it with
//! a few hundred changed inputs.
//!
//! Whatever the bytes are, reading them is an error or a dataset that keeps the promises made of it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a promise that is broken is what is looked for")]

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use tempfile::TempDir;

use super::data::{
    Cache, Dataset, ImageSize, Masks, OpenOptions, PixelStore, SplitSpec, check, decode_rgb, picture_size, split,
};
use super::error::{Error, Kind};
use super::files::workbook_of;

/// Datasets of which one file is to be replaced: the folder or file that is opened, that file, and how it is opened.
pub const TABLES: [Table; 12] = [
    Table { root: "ham10000", file: "ham10000/HAM10000_metadata.csv", masks: false },
    Table { root: "isic2018", file: "isic2018/ISIC2018_Task3_Training_GroundTruth.csv", masks: false },
    Table { root: "isic2018", file: "isic2018/ISIC2018_Task3_Training_LesionGroupings.csv", masks: false },
    Table { root: "isic2019", file: "isic2019/ISIC_2019_Training_GroundTruth.csv", masks: false },
    Table { root: "isic2019", file: "isic2019/ISIC_2019_Training_Metadata.csv", masks: false },
    Table { root: "ph2", file: "ph2/PH2_dataset.txt", masks: false },
    Table { root: "workbook", file: "workbook/PH2_dataset.xlsx", masks: false },
    Table { root: "classes/set.csv", file: "classes/set.csv", masks: false },
    Table { root: "masks/set.csv", file: "masks/set.csv", masks: true },
    Table { root: "classes/set.csv", file: SPLIT, masks: false },
    Table { root: "balanced", file: "balanced/balanced.csv", masks: false },
    // The sheet alone: in a workbook it has a checksum, which most changes end at.
    Table { root: "workbook", file: SHEET, masks: false },
];
const SHEET: &str = "workbook/PH2_dataset.xlsx";
const SPLIT: &str = "split.csv";

/// A dataset whose table comes from outside.
pub struct Table {
    pub root: &'static str,
    pub file: &'static str,
    masks: bool,
}

/// Writes a small picture.
fn picture(path: &Path, level: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(9, 6, |x, y| Rgb([level, x as u8 * 20, y as u8 * 30])).save(path).unwrap();
}

/// Folders with pictures and without tables, made once.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: String| dir.path().join(name);
        for i in 1..=3_u8 {
            for folder in ["ham10000/images", "isic2018/input", "isic2019/input"] {
                picture(&at(format!("{folder}/ISIC_{i}.png")), i * 60);
            }
            for folder in ["classes", "masks", "balanced"] {
                picture(&at(format!("{folder}/{i}.png")), i * 60);
                let mask = RgbImage::from_fn(9, 6, |x, _| Rgb([if x > 4 { 255 } else { 0 }; 3]));
                mask.save(at(format!("{folder}/{i}_mask.png"))).unwrap();
            }
            for folder in ["ph2", "workbook"] {
                picture(&at(format!("{folder}/images/IMD00{i}/IMD00{i}_Dermoscopic_Image/IMD00{i}.png")), i * 60);
            }
        }
        let rows = "path,label\n1.png,a\n2.png,b\n3.png,a\n";
        std::fs::write(at("classes/set.csv".into()), rows).unwrap();
        Self { dir }
    }

    /// Reads `bytes` as table number `kind`. Whether they were a dataset.
    pub fn table(&self, kind: usize, bytes: &[u8]) -> bool {
        let table = &TABLES[kind % TABLES.len()];
        let file = self.dir.path().join(table.file);
        // All but this table is as it should be, also behind another kind's table.
        let before = std::fs::read(&file).ok();
        if table.file.ends_with("LesionGroupings.csv") || table.file.ends_with("Metadata.csv") {
            let truth = match table.root {
                "isic2018" => "isic2018/ISIC2018_Task3_Training_GroundTruth.csv",
                _ => "isic2019/ISIC_2019_Training_GroundTruth.csv",
            };
            let rows = "image,MEL,NV,BCC,AK\nISIC_1,1,0,0,0\nISIC_2,0,1,0,0\nISIC_3,0,1,0,0\n";
            std::fs::write(self.dir.path().join(truth), rows).unwrap();
        }
        let packed = (kind % TABLES.len() == TABLES.len() - 1).then(|| workbook_of(bytes));
        std::fs::write(&file, packed.as_deref().unwrap_or(bytes)).unwrap();
        let options = OpenOptions {
            masks: if table.masks { Masks::OfDataset } else { Masks::Unused },
            splits: (table.file == SPLIT).then(|| file.clone()),
            ..OpenOptions::default()
        };
        let opened = self.open(self.dir.path().join(table.root), options);
        match before {
            Some(before) if table.root.ends_with(".csv") => std::fs::write(&file, before).unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        for other in ["isic2018/ISIC2018_Task3_Training_GroundTruth.csv", "isic2019/ISIC_2019_Training_GroundTruth.csv"]
        {
            let _ = std::fs::remove_file(self.dir.path().join(other));
        }
        opened.is_some()
    }

    /// Reads `bytes` as a zip archive of a dataset, and its pictures. Whether they were one.
    pub fn archive(&self, bytes: &[u8]) -> bool {
        let file = self.dir.path().join("archive.zip");
        std::fs::write(&file, bytes).unwrap();
        let mut found = false;
        for masks in [Masks::Unused, Masks::OfDataset] {
            let options = OpenOptions { masks, skip_bad: true, ..OpenOptions::default() };
            let Some(mut dataset) = self.open(file.clone(), options) else { continue };
            found = true;
            let report = check(&dataset, &mut |_, _, _| Ok(())).unwrap();
            assert!(report.images <= dataset.samples.len());
            match PixelStore::prepare(&mut dataset, 4, Cache::Off, &mut |_, _| Ok(())) {
                Ok(pixels) => assert_eq!(pixels.len(), dataset.samples.len()),
                Err(e) => named(&e),
            }
        }
        found
    }

    fn open(&self, root: PathBuf, options: OpenOptions) -> Option<Dataset> {
        let mut dataset = match Dataset::list(&root, &options) {
            Ok(dataset) => dataset,
            Err(e) => {
                named(&e);
                return None;
            }
        };
        let classes = dataset.classes.len();
        for sample in &dataset.samples {
            assert!(sample.all_labels().iter().all(|&label| label < classes), "{sample:?} of {classes} classes");
            assert!(!sample.id.is_empty() && !sample.group.is_empty(), "{sample:?}");
        }
        if let Err(e) = dataset.settle() {
            named(&e);
            return None;
        }
        assert!(!dataset.samples.is_empty());
        match split(&dataset, &SplitSpec::default()) {
            Ok(parts) => {
                let mut all = [parts.train, parts.val, parts.test].concat();
                all.sort_unstable();
                assert_eq!(all, (0..dataset.samples.len()).collect::<Vec<_>>(), "each sample is in one part");
            }
            Err(e) => named(&e),
        }
        Some(dataset)
    }
}

/// An error about data says so and where; one of the program's own is a bug.
fn named(e: &Error) {
    assert!(matches!(e.kind(), Kind::Data | Kind::Io | Kind::Usage), "{e}");
    assert!(e.to_string().contains("where: "), "no place is named: {e}");
}

/// Decodes `bytes`. Whether they are a picture.
pub fn decoded(bytes: &[u8]) -> bool {
    let stated = picture_size(bytes, "x");
    // Larger ones only take longer.
    if stated.as_ref().is_ok_and(|size| size.area() > 1 << 20) {
        return false;
    }
    match (decode_rgb(bytes, "x"), stated) {
        (Ok(picture), Ok(stated)) => {
            let size = ImageSize::from(&picture);
            let turned = ImageSize { width: stated.height, height: stated.width };
            assert!(size.area() > 0 && (size == stated || size == turned), "{size} and not {stated}");
            assert_eq!(decode_rgb(bytes, "x").unwrap(), picture, "the second time it is another picture");
            true
        }
        (Ok(_), Err(e)) => panic!("a picture without a size: {e}"),
        (Err(e), _) => {
            assert!(e.kind() == Kind::Data && e.to_string().contains("where: x"), "{e}");
            false
        }
    }
}

/// A dataset with its decoded pixels in a cache folder.
pub struct Cached {
    dir: TempDir,
    pixels: Vec<Vec<u8>>,
    /// The files of the cache: the index of contents and the pixels.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Cached {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut rows = "path,label\n".to_owned();
        for i in 1..=3_u8 {
            let path = dir.path().join(format!("{i}.png"));
            picture(&path, i * 60);
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
            rows += &format!("{i}.png,{}\n", i % 2);
        }
        std::fs::write(dir.path().join("set.csv"), rows).unwrap();
        let mut cached = Self { dir, pixels: vec![], files: vec![] };
        cached.pixels = cached.prepare().0;
        let entries = std::fs::read_dir(cached.dir.path().join("cache")).unwrap();
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort_by_key(|path| path.extension().map(std::ffi::OsStr::to_owned));
        assert_eq!(names.len(), 2, "{names:?}");
        cached.files = names.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        cached
    }

    /// The files of the cache, first the index.
    pub fn seeds(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|(_, bytes)| bytes.as_slice())
    }

    fn prepare(&self) -> (Vec<Vec<u8>>, bool) {
        let mut dataset = Dataset::open(self.dir.path().join("set.csv"), &OpenOptions::default()).unwrap();
        let cache = self.dir.path().join("cache");
        let store = PixelStore::prepare(&mut dataset, 4, Cache::Dir(&cache), &mut |_, _| Ok(())).unwrap();
        ((0..store.len()).map(|i| store.pixels(i).unwrap()).collect(), store.reused())
    }

    /// Puts `bytes` into the place of file number `kind` of the cache: the pixels are the same. Whether the cache was used.
    pub fn replaced(&self, kind: usize, bytes: &[u8]) -> bool {
        let cache = self.dir.path().join("cache");
        std::fs::remove_dir_all(&cache).unwrap();
        std::fs::create_dir(&cache).unwrap();
        for (i, (path, intact)) in self.files.iter().enumerate() {
            std::fs::write(path, if i == kind % 2 { bytes } else { intact }).unwrap();
        }
        let (pixels, reused) = self.prepare();
        assert!(pixels == self.pixels, "other pixels from a changed cache");
        assert!(kind.is_multiple_of(2) || !reused || bytes == self.files[1].1, "a damaged cache file was used");
        // What was left there is found or rebuilt, and means the same.
        assert!(self.prepare().0 == self.pixels, "other pixels the second time");
        reused
    }
}
