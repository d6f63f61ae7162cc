//! Files and folders as users and disks have them, through the program: odd names, links, folders that cannot be written,
//! pictures that are damaged, vanish or change, a cache that goes away, a disk that is slow.

#![cfg_attr(
    not(target_os = "linux"),
    allow(
        dead_code,
        unused_imports,
        reason = "most of this needs signals, permissions or names that other systems do not have"
    )
)]

mod common;
#[cfg(target_os = "linux")]
#[path = "common/disk.rs"]
mod disk;
#[path = "common/files.rs"]
mod files;
#[path = "common/pictures.rs"]
mod pictures;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use common::{command, fails, ok, program, text};
use files::put;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use lesion_gpu::data::{Cache, Dataset, FaultKind, OpenOptions, PixelStore};
use pictures::{PngKind, flat_jpeg, png_that_claims};

/// A picture that looks like no other.
fn picture(seed: u32) -> DynamicImage {
    let wave = |x: u32, y: u32, k: u32| {
        let turn = f64::from(seed * 3 + k);
        (128.0 + 100.0 * ((f64::from(x) * turn.sin() + f64::from(y) * turn.cos()) / 3.0 + turn).sin()) as u8
    };
    RgbImage::from_fn(30, 26, |x, y| Rgb([wave(x, y, 0), wave(x, y, 1), wave(x, y, 2)])).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn jpeg(seed: u32) -> Vec<u8> {
    encoded(&picture(seed), ImageFormat::Jpeg)
}

/// A dataset with a folder for each of two classes.
fn classes(root: &Path, count: u32) {
    for seed in 0..count {
        put(root, &format!("{}/{seed:02}.jpg", ["mel", "nv"][seed as usize % 2]), jpeg(seed));
    }
}

const TRAIN: [&str; 10] =
    ["train", "--model", "simple-cnn", "--size", "24", "--batch", "4", "--no-report", "--no-tune", "--data"];

fn train<'a>(data: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], &[data], extra].concat()
}

/// A run that goes on until it is told to end, or for some minutes.
const LONG: [&str; 2] = ["--epochs", "2000"];

/// Starts a training and waits until `steps` steps more are in its table.
fn started(folder: &Path, args: &[&str], run: &str, steps: usize) -> Child {
    let said = std::fs::File::create(folder.join("said.txt")).unwrap();
    let table = folder.join(run).join("steps.csv");
    let rows = || std::fs::read_to_string(&table).map_or(0, |text| text.lines().count());
    let (before, begun) = (rows(), Instant::now());
    let child = command(folder, args).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    while rows() <= before + steps {
        assert!(begun.elapsed() < Duration::from_secs(120), "{args:?} does not come to step {steps}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Tells a training to end, if there is a signal, and returns its exit code and what it said.
#[cfg(unix)]
fn ended(folder: &Path, mut child: Child, signal: Option<&str>) -> (Option<i32>, String) {
    if let Some(signal) = signal {
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
    let status = child.wait().unwrap();
    (status.code(), std::fs::read_to_string(folder.join("said.txt")).unwrap())
}

/// Pictures with something the matter: their names, their bytes, and what is said of each.
fn damaged() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = jpeg(90);
    let mut scan = whole.clone();
    scan.truncate(whole.len() * 2 / 3);
    let png = encoded(&picture(91), ImageFormat::Png);
    vec![
        ("zero bytes.jpg", vec![], "is empty (0 bytes)"),
        ("truncated.jpg", scan, "truncated"),
        ("cut in the head.jpg", whole[..20].to_vec(), "truncated"),
        ("cut.png", png[..png.len() / 2].to_vec(), "corrupt or truncated"),
        ("text.png", b"this is no picture".to_vec(), "no image of a known format"),
        ("huge.png", png_that_claims(60_000, 60_000), "too large"),
        ("large.png", png_that_claims(19_999, 19_999), "too large"),
    ]
}

/// Pictures that are as good as any other, whatever they are called and however they are stored.
fn odd() -> Vec<(String, Vec<u8>)> {
    let deep: DynamicImage = picture(80).to_rgb16().into();
    let gray = PngKind { colour: 0, depth: 1, interlaced: true }.png(30, 26, |x, y| vec![(x * 3 + y * y) as u16 % 2]);
    let palette =
        PngKind { colour: 3, depth: 8, interlaced: true }.png(30, 26, |x, y| vec![((x * y + x) % 256) as u16]);
    let inks: [&[u8]; 3] = [&[255, 40, 60, 200], &[30, 200, 90, 255], &[140, 140, 140, 90]];
    vec![
        ("a PNG, by its bytes.jpg".into(), encoded(&picture(81), ImageFormat::Png)),
        ("16 bit.png".into(), encoded(&deep, ImageFormat::Png)),
        ("16 bit.tif".into(), encoded(&deep, ImageFormat::Tiff)),
        ("gray.png".into(), gray),
        ("palette.png".into(), palette),
        ("CMYK.jpg".into(), flat_jpeg(&inks, Some(0))),
        ("-dash.jpg".into(), jpeg(82)),
        ("--help.jpg".into(), jpeg(83)),
        ("läsion 皮肤 🔬.jpg".into(), jpeg(84)),
        ("e\u{301} decomposed.jpg".into(), jpeg(85)),
        ("[a-z]*?.jpg".into(), jpeg(86)),
        ("'quotes\" and, commas;.jpg".into(), jpeg(87)),
        ("two\nlines\tand a tab.jpg".into(), jpeg(88)),
        (format!("{}.jpg", "long".repeat(60)), jpeg(89)),
    ]
}

#[cfg(target_os = "linux")]
#[test]
fn odd_and_damaged_pictures_through_every_command() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ein Ordner, 文件夹 -x");
    let data = dir.join("- daten ü");
    classes(&data, 10);
    let odd = odd();
    odd.iter().for_each(|(name, bytes)| put(&data, &format!("nv/{name}"), bytes));
    // Two names that are no Unicode, and links: to a picture, to nothing, to the folder itself.
    for (name, seed) in [(&b"caf\xE9.jpg"[..], 70), (b"caf\xE8.jpg", 71)] {
        std::fs::write(data.join("mel").join(std::ffi::OsStr::from_bytes(name)), jpeg(seed)).unwrap();
    }
    put(&dir, "elsewhere.jpg", jpeg(72));
    symlink(dir.join("elsewhere.jpg"), data.join("nv/link.jpg")).unwrap();
    symlink("nowhere.jpg", data.join("nv/nothing.jpg")).unwrap();
    symlink("..", data.join("nv/around")).unwrap();
    symlink(&data, data.join("mel/around")).unwrap();
    let good = 10 + odd.len() + 3;
    let spec = "./- daten ü";

    let counted = |report: &str| -> usize {
        let line = report.lines().find(|line| line.starts_with("images ")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(counted(&ok(&dir, &["data", "check", spec])), good);
    let damaged = damaged();
    damaged.iter().for_each(|(name, bytes, _)| put(&data, &format!("nv/{name}"), bytes));
    // In memory for nothing that the headers claim: 60,000 pixels a side would take 10 GiB.
    let script = "ulimit -v 3000000; exec \"$0\" data check \"$1\" --json";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_lesion-gpu"), spec])
        .current_dir(&dir)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let images = report["images"].as_u64();
    assert_eq!((output.status.code(), images), (Some(8), Some(good as u64)), "{}", text(&output.stderr));
    let faults = report["faults"].as_array().unwrap();
    let fault = |name: &str| faults.iter().find(|fault| fault["place"].as_str().unwrap().ends_with(name));
    for (name, _, what) in &damaged {
        let said =
            fault(name).unwrap_or_else(|| panic!("nothing is said of {name}: {report}"))["what"].as_str().unwrap();
        assert!(said.contains(what), "{name}: {said}");
    }
    assert_eq!(faults.len(), damaged.len(), "{report}");

    if common::gpu().is_none() {
        return;
    }
    let refused = fails(&dir, 8, &train(spec, &["--epochs", "1", "--run", "läufe/-1 x"]));
    for (name, _, what) in &damaged {
        let line = refused.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {refused}"));
        assert!(line.contains(what), "{line}");
    }
    assert!(!dir.join("läufe").exists(), "a refused run left something behind");
    let cache = dir.join("- cache ñ").display().to_string();
    ok(&dir, &train(spec, &["--epochs", "1", "--run", "läufe/-1 x", "--skip-bad", "--cache", &cache]));
    let skipped = std::fs::read_to_string(dir.join("läufe/-1 x/skipped.csv")).unwrap();
    assert!(damaged.iter().all(|(name, ..)| skipped.contains(name)), "{skipped}");
    let table = std::fs::read(dir.join("läufe/-1 x/split.csv")).unwrap();
    let ids: std::collections::BTreeSet<String> =
        csv::Reader::from_reader(table.as_slice()).into_records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(ids.len(), good, "each picture has an id of its own: {ids:?}");
    // The split, with names of two lines and of no Unicode, is read again.
    ok(&dir, &["train", "--resume", "läufe/-1 x", "--no-report"]);
    ok(&dir, &["eval", "läufe/-1 x"]);
    let refused = fails(&dir, 8, &["eval", "läufe/-1 x", "--data", spec, "--split", "all"]);
    assert!(damaged.iter().all(|(name, ..)| refused.contains(name)), "{refused}");
    ok(&dir, &["eval", "läufe/-1 x", "--data", spec, "--split", "all", "--skip-bad"]);

    let mut names: Vec<PathBuf> = odd.iter().map(|(name, _)| Path::new("nv").join(name)).collect();
    names.push(Path::new("mel").join(std::ffi::OsStr::from_bytes(b"caf\xE9.jpg")));
    let alone = command(&data, &["predict", "../läufe/-1 x", "--format", "json"]).args(&names).output().unwrap();
    assert!(alone.status.success(), "{}", text(&alone.stderr));
    let answers: serde_json::Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(answers.as_array().unwrap().len(), names.len());
    // A name that begins with a dash stands behind two of them.
    ok(&data.join("nv"), &["predict", "../../läufe/-1 x", "--", "-dash.jpg", "--help.jpg"]);
    let all = program(&data, &["predict", "../läufe/-1 x", "nv"]);
    let said = text(&all.stderr);
    assert_eq!(all.status.code(), Some(8), "{said}");
    for (name, _, what) in &damaged {
        assert!(said.lines().any(|line| line.contains(name) && line.contains(what)), "{name}: {said}");
    }
    assert!(
        said.contains(&format!("{} of {} pictures could not be read", damaged.len(), damaged.len() + odd.len() + 6)),
        "{said}"
    );
}

fn prepared(table: &Path, skip_bad: bool, at_first: &dyn Fn()) -> lesion_gpu::Result<(Dataset, PixelStore)> {
    let mut dataset = Dataset::open(table, &OpenOptions { skip_bad, ..OpenOptions::default() })?;
    let cache = table.parent().unwrap().join("cache");
    // It is called before files are hashed, twice, and then before they are decoded.
    let mut calls = 0;
    let store = PixelStore::prepare(&mut dataset, 4, Cache::Dir(&cache), &mut |_, _| {
        calls += 1;
        if calls == 2 {
            at_first();
        }
        Ok(())
    })?;
    assert!(calls >= 2);
    Ok((dataset, store))
}

/// Between being looked at and being decoded, a picture vanishes, or becomes another one.
#[test]
fn pictures_that_vanish_or_change_while_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let level = |level: u8| encoded(&RgbImage::from_pixel(6, 6, Rgb([level; 3])).into(), ImageFormat::Png);
    for i in 0..4 {
        put(root, &format!("{i}.png"), level(i * 60));
    }
    put(root, "set.csv", "path,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n");
    let table = root.join("set.csv");
    let vanish = || std::fs::remove_file(root.join("2.png")).unwrap();
    let e = prepared(&table, false, &vanish).unwrap_err();
    assert!(e.kind() == lesion_gpu::Kind::Data && e.to_string().contains("2.png: could not open"), "{e}");
    put(root, "2.png", level(120));
    let (dataset, store) = prepared(&table, true, &vanish).unwrap();
    assert_eq!((dataset.samples.len(), store.len(), dataset.skipped.list()[0].kind), (3, 3, FaultKind::BadImage));
    assert!(store.cache_path().is_none(), "what may be there again is not kept");

    put(root, "2.png", level(120));
    let (_, store) = prepared(&table, false, &|| put(root, "2.png", level(7))).unwrap();
    assert_eq!(store.pixels(2).unwrap()[0], 7);
    assert!(store.cache_path().is_none() && store.notes()[0].contains("1 image(s) changed"), "{:?}", store.notes());
    // The first picture is found as it was, though a changed one was decoded in its place.
    put(root, "2.png", level(120));
    let (_, store) = prepared(&table, false, &|| {}).unwrap();
    assert_eq!((store.pixels(2).unwrap()[0], store.reused(), store.cache_path().is_some()), (120, false, true));
}

#[cfg(unix)]
#[test]
fn a_dataset_that_vanishes_under_a_run_and_one_that_changes_before_it_goes_on() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    classes(&dir.join("data"), 24);
    let child = started(dir, &train("data", &[&LONG[..], &["--run", "run", "--keep-every", "1"]].concat()), "run", 4);
    std::fs::rename(dir.join("data"), dir.join("away")).unwrap();
    // Steps go on and epochs end without it: training reads what was decoded before.
    let kept = dir.join("run/weights/epoch-004.safetensors");
    let begun = Instant::now();
    while !std::fs::read_dir(kept.parent().unwrap())
        .unwrap()
        .any(|f| f.unwrap().file_name().to_string_lossy().ends_with("4.safetensors"))
    {
        assert!(begun.elapsed() < Duration::from_secs(120), "no fourth epoch");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, said) = ended(dir, child, Some("-INT"));
    assert!(code == Some(130) && said.contains("train --resume run"), "{said}");

    let said = fails(dir, 11, &["train", "--resume", "run"]);
    assert!(said.contains("could not open the dataset") && said.contains("data"), "{said}");
    std::fs::rename(dir.join("away"), dir.join("data")).unwrap();
    let before = std::fs::read(dir.join("data/mel/04.jpg")).unwrap();
    put(dir, "data/mel/04.jpg", jpeg(40));
    let said = fails(dir, 10, &["train", "--resume", "run"]);
    assert!(said.contains("not those that the run began with") && said.contains("--weights"), "{said}");
    put(dir, "data/mel/04.jpg", &before);
    put(dir, "data/mel/more.jpg", jpeg(41));
    let said = fails(dir, 10, &["train", "--resume", "run"]);
    assert!(said.contains("the dataset has changed since the run began"), "{said}");
    std::fs::remove_file(dir.join("data/mel/more.jpg")).unwrap();
    let child = started(dir, &["train", "--resume", "run"], "run", 4);
    let (code, said) = ended(dir, child, Some("-INT"));
    assert_eq!(code, Some(130), "{said}");
}

/// It is read, and not mapped: what is missing is an error, and no signal.
#[cfg(unix)]
#[test]
fn a_cache_file_that_is_cut_or_deleted_under_a_run() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    classes(&dir.join("data"), 24);
    let pixels = || {
        let files = std::fs::read_dir(dir.join("pixels")).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|e| e == "pixels")).unwrap()
    };
    let args = |run| train("data", &[&LONG[..], &["--cache", "pixels", "--run", run]].concat());
    let child = started(dir, &args("cut"), "cut", 4);
    std::fs::File::options().write(true).open(pixels()).unwrap().set_len(1000).unwrap();
    let (code, said) = ended(dir, child, None);
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains("could not read the pixel cache") && said.contains("train --resume cut"), "{said}");
    // The damaged file is found and made again.
    let child = started(dir, &["train", "--resume", "cut", "--cache", "pixels"], "cut", 4);
    let (code, said) = ended(dir, child, Some("-INT"));
    assert!(code == Some(130) && said.contains("was damaged and is rebuilt"), "{said}");

    // Deleted, it is there until it is closed.
    let child = started(dir, &args("deleted"), "deleted", 4);
    std::fs::remove_dir_all(dir.join("pixels")).unwrap();
    let rows = || std::fs::read_to_string(dir.join("deleted/steps.csv")).unwrap().lines().count();
    let (before, begun) = (rows(), Instant::now());
    while rows() < before + 12 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, said) = ended(dir, child, Some("-INT"));
    assert_eq!(code, Some(130), "{said}");
}

/// Training waits for a slow disk, tells how long, and computes the same.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_disk_costs_time_alone() {
    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    classes(&dir.join("data"), 24);
    let library = disk::library(dir);
    let waited = |run: &str, slow: &[(&str, &str)]| -> (f64, f64, String) {
        let args = train("data", &["--epochs", "2", "--run", run, "--workers", "2"]);
        let output = common::program_with(dir, &args, slow);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = std::fs::read(dir.join(run).join("results.csv")).unwrap();
        let mut csv = csv::Reader::from_reader(rows.as_slice());
        let header = csv.headers().unwrap().clone();
        let at = |name: &str| header.iter().position(|h| h == name).unwrap();
        let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        let sum = |name: &str| rows.iter().map(|row| row[at(name)].parse::<f64>().unwrap()).sum::<f64>();
        (sum("waited_seconds"), sum("seconds"), std::fs::read_to_string(dir.join(run).join("steps.csv")).unwrap())
    };
    let (quick, _, steps) = waited("quick", &[]);
    let (slow, seconds, slow_steps) = waited("slow", &[("LD_PRELOAD", &library), ("SLOW_DISK", ".pixels")]);
    assert_eq!(steps, slow_steps, "a slow disk changes nothing that is computed");
    // Two epochs of 4 batches of 4 pictures, each of which takes 20 ms; some are read while others are computed.
    assert!(slow > 0.3 && slow < seconds, "{slow} s of {seconds} s were waited for pictures");
    assert!(slow > 4.0 * quick, "{slow} s, and {quick} s from a quick disk");
    // A picture that is slow to come while it is decoded is no fault either.
    let report =
        common::program_with(dir, &["data", "check", "data"], &[("LD_PRELOAD", &library), ("SLOW_DISK", ".jpg")]);
    assert!(report.status.success() && text(&report.stdout).contains("no faults"), "{}", text(&report.stdout));
}

/// Runs the program as a user who may not write everywhere: permissions stop everybody but root.
#[cfg(unix)]
fn as_nobody(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    use std::os::unix::process::CommandExt as _;

    let mut command = command(dir, args);
    if std::fs::metadata(dir).unwrap().uid() == 0 {
        // The program may lie where nobody may look.
        let copy = dir.join("lesion-gpu");
        if !copy.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_lesion-gpu"), &copy).unwrap();
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut nobody = std::process::Command::new(copy);
        nobody.args(args).current_dir(dir).uid(65_534).gid(65_534);
        for (name, value) in command.get_envs() {
            nobody.env(name, value.unwrap());
        }
        command = nobody;
    }
    let output = command.output().unwrap();
    (output.status.code(), text(&output.stderr) + &text(&output.stdout))
}

#[cfg(unix)]
#[test]
fn folders_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;

    if common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let allow =
        |name: &str, mode: u32| std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
    classes(&dir.join("data"), 24);
    for name in ["closed", "open"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    for (name, mode) in
        [("", 0o755), ("open", 0o777), ("closed", 0o555), ("data/mel", 0o555), ("data/nv", 0o555), ("data", 0o555)]
    {
        allow(name, mode);
    }
    let run = |data: &str, run: &str, cache: &str| {
        as_nobody(dir, &train(data, &["--epochs", "1", "--run", run, "--cache", cache]))
    };
    // From a dataset that cannot be written, with its cache elsewhere, or nowhere.
    for (name, cache) in [("open/a", "open/cache"), ("open/b", "closed/cache")] {
        let (code, said) = run("data", name, cache);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("decoded pixels are kept in memory"), cache.starts_with("closed"), "{said}");
    }
    // Said before anything is prepared: the dataset is not looked at.
    let (code, said) = run("no such data", "closed/run", "open/cache");
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains("could not write to the folder of the run") && said.contains("closed/run"), "{said}");
    // A run whose folder has been closed does not go on, and says why.
    for name in ["open/a/weights", "open/a"] {
        allow(name, 0o555);
    }
    let (code, said) = as_nobody(dir, &["train", "--resume", "open/a"]);
    assert!(code == Some(11) && said.contains("open/a"), "{said}");
    // A picture that may not be read is named.
    allow("data/mel/04.jpg", 0o000);
    let (code, said) = run("data", "open/c", "open/cache");
    assert!(code == Some(8) && said.contains("04.jpg: could not") && said.contains("ermission"), "{said}");
    for name in ["open/a", "open/a/weights", "data", "data/mel", "data/nv", "closed"] {
        allow(name, 0o755);
    }
}
