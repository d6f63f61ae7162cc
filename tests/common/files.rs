//! Files that tests make.

#![allow(dead_code, reason = "not every test file uses every helper")]

use std::io::{Cursor, Write};
use std::path::Path;

use zip::CompressionMethod;

/// Writes a file below `root`, with its folders.
pub fn put(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A zip archive of these entries.
pub fn zipped(entries: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Writes a compressed zip archive of these entries.
pub fn zip(path: &Path, entries: &[(&str, Vec<u8>)]) {
    std::fs::write(path, zipped(entries, CompressionMethod::Deflated)).unwrap();
}
