//! A disk that is slow, full or closed, or on which a program is killed: a library that is loaded before the program's own.

use std::path::Path;
use std::process::Command;

/// Builds the library into `folder`, for `LD_PRELOAD`. What it reads from the environment is told in its source.
pub fn library(folder: &Path) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk.c");
    let library = folder.join("disk.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("a C compiler, which Rust links with").success());
    library.display().to_string()
}
