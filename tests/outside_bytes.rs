//! Bytes from outside, changed in many ways: what the fuzz targets of datasets and run folders do, with seeds and a number of mutations that
//! are the same each time. `LESION_MUTATIONS` says how many of each seed, `LESION_CORPUS` names a folder that the seeds are
//! written to, for the fuzzers to begin from.

#[path = "common/files.rs"]
mod files;
#[path = "common/outside.rs"]
mod outside;
#[path = "common/pictures.rs"]
mod pictures;
#[path = "common/runs.rs"]
mod runs;
#[path = "common/seeds.rs"]
mod seeds;

use std::path::Path;

use lesion_gpu::ops::Draw;
use lesion_gpu::{data, error};
use outside::{Cached, Place, TABLES, decoded};
use runs::Run;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// What stands in many formats for the largest, the smallest, or nothing.
const WORDS: [&[u8]; 12] = [
    b"\xFF\xFF\xFF\xFF",
    b"\x7F\xFF\xFF\xFF",
    b"\0\0\0\0",
    b"\0\0\x80\0",
    b"\n",
    b",",
    b"\"",
    b"\xE9",
    b"-1",
    b"1e999",
    b"NaN",
    b"/",
];

/// One to four changes of a seed: bits, bytes, words, parts that are cut, doubled, or taken from another seed.
fn mutated(seed: &[u8], other: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    // The first byte of some says what the rest is.
    for _ in 0..draw.between(1, 4) {
        if bytes.len() < 2 {
            break;
        }
        let at = draw.between(1, bytes.len() - 1);
        let to = at + draw.below((bytes.len() - at).min(64)) + 1;
        match draw.below(7) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = draw.word() as u8,
            2 => {
                let word = WORDS[draw.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                drop(bytes.splice(at..end, word.iter().copied()));
            }
            3 => drop(bytes.drain(at..to.min(bytes.len()))),
            4 => bytes.truncate(at),
            5 => {
                let part = bytes[at..to.min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => {
                let from = draw.below(other.len());
                let part = &other[from..(from + 1 + draw.below(64)).min(other.len())];
                drop(bytes.splice(at..at, part.iter().copied()));
            }
        }
    }
    bytes
}

/// Goes through all mutations of the seeds of a target; `read` says whether an input was what it should be.
fn go_through(target: &str, times: usize, read: &dyn Fn(&[u8]) -> bool) {
    let all = seeds::all();
    let seeds = &all.iter().find(|seeds| seeds.target == target).unwrap().inputs;
    for (i, seed) in seeds.iter().enumerate() {
        assert!(read(seed), "seed {i} of {target} is refused");
        if let Ok(corpus) = std::env::var("LESION_CORPUS") {
            let folder = Path::new(&corpus).join(target);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("seed-{i}")), seed).unwrap();
        }
    }
    let mut draw = Draw::new(number("LESION_SEED", 1) as u32, target);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..number("LESION_MUTATIONS", times) {
        for seed in seeds {
            let input = mutated(seed, &seeds[draw.below(seeds.len())], &mut draw);
            match read(&input) {
                true => taken += 1,
                false => refused += 1,
            }
        }
    }
    println!("{target}: {taken} inputs were read, {refused} were refused");
    assert!(refused > taken / 20, "most mutations changed nothing: {taken} of {}", taken + refused);
}

#[test]
fn tables_of_datasets() {
    let place = Place::new();
    let read = |bytes: &[u8]| bytes.split_first().is_some_and(|(&kind, table)| place.table(kind.into(), table));
    go_through("dataset", 30, &read);
    assert_eq!(seeds::all()[0].inputs.len(), TABLES.len(), "a seed for each table");
}

#[test]
fn archives_of_datasets() {
    let place = Place::new();
    go_through("archive", 60, &|bytes| place.archive(bytes));
}

#[test]
fn pictures_of_every_kind() {
    go_through("picture", 60, &decoded);
}

#[test]
fn caches_of_pixels() {
    let cached = Cached::new();
    // The index is a help only: what cannot be read of it is read from the pictures again.
    go_through("pixel_cache", 60, &|bytes| {
        bytes.split_first().is_some_and(|(&kind, file)| cached.replaced(kind.into(), file))
    });
}

#[test]
fn files_of_run_folders() {
    let run = Run::new();
    go_through("run_folder", 60, &|bytes| {
        bytes.split_first().is_some_and(|(&kind, file)| run.replaced(kind.into(), file))
    });
}

/// As a rectangle, a sheet with cells in two corners would take hundreds of gigabytes. And what a library makes of odd
/// numbers of rows and columns, be it a panic, is an error about the workbook.
#[test]
fn workbooks_with_odd_cells() {
    let place = Place::new();
    let last = TABLES.len() - 1;
    let tables = &seeds::all()[0].inputs;
    let seed = String::from_utf8(tables[last][1..].to_vec()).unwrap();
    let far = r#"<row r="1048576"><c r="XFD1048576" t="str"><v>far away</v></c></row>"#;
    assert!(place.table(last, seed.replace("</sheetData>", &format!("{far}</sheetData>")).as_bytes()));
    for (from, to) in [("A1", "ZZZZZZZZZZZZ1"), ("A2", "A99999999999"), ("A1", "")] {
        let read = place.table(last, seed.replace(from, to).as_bytes());
        // Where the library does not check for overflow, it is a row or a column like any other.
        assert!(!read || !cfg!(debug_assertions), "{to}");
    }
}
