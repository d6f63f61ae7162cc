//! Tells the program what sources it was built of: processes that train together must be the same program, and one version has many
//! builds while it is worked on.

use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let mut files = vec![];
    for folder in ["src", "shaders"] {
        println!("cargo::rerun-if-changed={folder}");
        collect(Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Hash::new();
    for file in files {
        // A checkout may have other separators and ends of lines on another system.
        hash.add(file.to_string_lossy().replace('\\', "/").as_bytes());
        hash.add(&std::fs::read(&file)?);
    }
    println!("cargo::rustc-env=LESION_GPU_SOURCES={:016x}", hash.0);
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// FNV-1a with 64 bits (Fowler, Noll and Vo), which is the same on every system.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().filter(|byte| **byte != b'\r').chain(&[0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
