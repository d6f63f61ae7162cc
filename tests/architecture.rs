//! Layers point one way: every `crate::` path in `src/` is checked against the table of allowed edges.

use std::path::{Path, PathBuf};

/// The layers from the bottom up, and what each may use besides itself and the [`LEAVES`]. A layer names only layers
/// above it in this list, so there are no cycles. `lib.rs` and `main.rs` may use everything.
const LAYERS: &[(&str, &[&str])] = &[
    // wgpu: adapter, device, kernels, pipelines, buffers, recording, timing.
    ("gpu", &[]),
    // Shapes, element types, host tensors.
    ("tensor", &[]),
    // ONNX graphs: a builder and the file format. Host types only.
    ("onnx", &["tensor"]),
    // The tape, backward, the planner. Knows no op by name.
    ("autograd", &["gpu", "tensor", "onnx"]),
    // One folder an op: shape rule, forward, backward, kernels, CPU twin, ONNX form, cases.
    ("ops", &["gpu", "tensor", "onnx", "autograd"]),
    // Layers and initialisation.
    ("nn", &["gpu", "tensor", "autograd", "ops"]),
    // Optimizers and schedules.
    ("optim", &["gpu", "tensor", "autograd", "ops"]),
    // Networks.
    ("models", &["gpu", "tensor", "autograd", "ops", "nn"]),
    // Weight files. Host types only.
    ("weights", &["tensor"]),
    // Published weight files and how to get them. Host types only.
    ("hub", &["weights"]),
    // Datasets, decoding, augmentation, loading. Host types only.
    ("data", &[]),
    // Classification, segmentation, calibration. Host types only.
    ("metrics", &[]),
    // Which kernels are the fastest on a device. Knows no op by name.
    ("tune", &["gpu", "tensor", "autograd", "weights"]),
    // How several processes reach each other. Knows nothing of training.
    ("parallel", &[]),
    // Recipes, engine, checkpoints, run folders.
    (
        "train",
        &[
            "gpu", "tensor", "autograd", "ops", "nn", "optim", "models", "weights", "data", "metrics", "tune",
            "parallel",
        ],
    ),
    // Probes of the device, timed steps, their report.
    (
        "bench",
        &[
            "gpu", "tensor", "autograd", "ops", "nn", "optim", "models", "weights", "data", "metrics", "tune",
            "parallel", "train",
        ],
    ),
    // Trained models for other programs: ONNX, bare weights.
    ("export", &["tensor", "onnx", "nn", "models", "weights", "data", "train"]),
    // Where in a picture a model looks.
    ("explain", &["gpu", "tensor", "autograd", "ops", "nn", "models", "weights", "data", "metrics", "tune", "train"]),
    // Tables and charts of runs. Host types only.
    ("report", &["weights", "data", "metrics", "train"]),
    // A web page and an HTTP API; the only layer with an asynchronous runtime.
    ("serve", &["gpu", "models", "data", "metrics", "train", "explain", "tune"]),
    // Subcommands.
    (
        "cli",
        &[
            "gpu", "tensor", "onnx", "autograd", "ops", "nn", "optim", "models", "weights", "hub", "data", "metrics",
            "tune", "parallel", "train", "bench", "export", "explain", "report", "serve",
        ],
    ),
];

/// What every layer may use; they use nothing.
const LEAVES: [&str; 2] = ["error", "rng"];

/// The only layer that may name wgpu and naga.
const WGPU_LAYER: &str = "gpu";

/// Source text without line comments, so that documentation may name anything.
fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split_once("//").map_or(line, |(code, _)| code).to_owned();
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The positions after every `path` (such as `crate::`) that is not the end of a longer name or of a macro's
/// `$crate::`.
fn after<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(path).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let whole = before.is_none_or(|c| !is_name(c) && c != '$' && c != ':');
        whole.then_some(at + path.len())
    })
}

/// The names that the path ending before `rest` goes on with: one, or those of a `{...}` group.
fn heads(rest: &str) -> Vec<String> {
    let head = |item: &str| -> Option<String> {
        let item = item.trim_start();
        let name: String = item.chars().take_while(|&c| is_name(c)).collect();
        let is_macro = item[name.len()..].starts_with('!');
        // Types and macros at the root are re-exports of leaves and helpers, not layers.
        let is_layer = name.starts_with(|c: char| c.is_lowercase()) && !is_macro;
        is_layer.then_some(name).or_else(|| item.starts_with('*').then(|| "*".to_owned()))
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else { return head(rest).into_iter().collect() };
    let (mut depth, mut names, mut start) = (0, vec![], 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.extend(head(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

/// The layers (or leaves) that a source file names, by `crate::` or by `super::` up to the root.
fn used(path: &Path, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut names: Vec<String> = after(&code, "crate::").flat_map(|at| heads(&code[at..])).collect();
    let is_folder = path.file_stem().is_some_and(|stem| stem == "mod");
    let depth = path.components().count() - usize::from(is_folder);
    let known = |name: &String| LAYERS.iter().any(|(layer, _)| layer == name) || LEAVES.contains(&name.as_str());
    let root = "super::".repeat(depth);
    names.extend(after(&code, &root).flat_map(|at| heads(code[at..].trim_start_matches("super::"))).filter(known));
    names
}

/// What is wrong with a source file; `path` is relative to `src/`.
fn violations(path: &Path, text: &str) -> Vec<String> {
    let first = path.iter().next().map(|c| c.to_string_lossy().trim_end_matches(".rs").to_owned()).unwrap_or_default();
    if ["lib", "main"].contains(&first.as_str()) {
        return vec![];
    }
    let place = format!("src/{}", path.display());
    let allowed: &[&str] = match LAYERS.iter().find(|(layer, _)| *layer == first) {
        Some((_, allowed)) => allowed,
        None if LEAVES.contains(&first.as_str()) => &[],
        None => return vec![format!("{place}: '{first}' is not in the table of layers")],
    };
    let is_leaf = LEAVES.contains(&first.as_str());
    let mut found: Vec<String> = used(path, text)
        .into_iter()
        .filter(|name| *name != first && !allowed.contains(&name.as_str()))
        .filter(|name| is_leaf || !LEAVES.contains(&name.as_str()))
        .map(|name| format!("{place}: '{first}' may not use '{name}'"))
        .collect();
    let code = without_comments(text);
    for library in ["wgpu::", "naga::"] {
        if first != WGPU_LAYER && after(&code, library).next().is_some() {
            found.push(format!("{place}: only '{WGPU_LAYER}' may name {library}"));
        }
    }
    found
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn layers_point_one_way() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    source_files(&root, &mut files);
    files.sort();
    assert!(files.len() > 10, "the scan found only {files:?}");
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).expect("a readable source file");
            violations(file.strip_prefix(&root).expect("a file under src"), &text)
        })
        .collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_table_has_no_cycles() {
    for (i, (layer, allowed)) in LAYERS.iter().enumerate() {
        for name in *allowed {
            assert!(LAYERS[..i].iter().any(|(below, _)| below == name), "{layer} names {name}, which is not below it");
        }
    }
}

#[test]
fn the_scanner_finds_violations() {
    let cases = [
        ("gpu/device.rs", "use crate::autograd::Tape;", "may not use 'autograd'"),
        ("data/loader.rs", "use crate::{error::Error, ops::{add, mul}};", "may not use 'ops'"),
        ("data/loader.rs", "use crate::{\n    error::{Error, Kind},\n    gpu,\n};", "may not use 'gpu'"),
        ("autograd/plan.rs", "fn f() -> crate::ops::Case { todo!() }", "may not use 'ops'"),
        ("error.rs", "use crate::rng::Stream;", "may not use 'rng'"),
        ("tensor/mod.rs", "use super::gpu::Gpu;", "may not use 'gpu'"),
        ("ops/add/mod.rs", "use super::super::nn::Linear;", "may not use 'nn'"),
        ("ops/add/mod.rs", "mod tests { use super::super::super::nn::Linear; }", "may not use 'nn'"),
        ("ops/add/mod.rs", "use crate::*;", "may not use '*'"),
        ("nn/linear.rs", "let usage = wgpu::BufferUsages::STORAGE;", "only 'gpu' may name wgpu::"),
        ("surprise/mod.rs", "", "not in the table"),
    ];
    for (path, text, expected) in cases {
        let found = violations(Path::new(path), text);
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {text}: {found:?}");
    }
}

#[test]
fn the_scanner_lets_the_rest_pass() {
    let cases = [
        ("ops/add/mod.rs", "use crate::autograd::{Op, Tape};\nuse crate::error::Result;\nuse crate::ops::Case;"),
        ("ops/add/mod.rs", "static S: Source = crate::wgsl!(\"add.wgsl\");\nuse crate::{Error, Kind};"),
        ("gpu/kernel.rs", "//! See [`train`](crate::train).\n/// [`crate::ops`]\nuse wgpu::Device; // crate::nn::x"),
        ("gpu/kernel.rs", "macro_rules! m { () => { $crate::ops::RANDOM } }"),
        ("gpu/kernel.rs", "mod tests { use super::*; }"),
        ("rng.rs", "mod tests { use super::*; }"),
        ("nn/mod.rs", "fn f(device: my_wgpu::Device) {}"),
        ("cli/train.rs", "use crate::train::Engine; use super::common;"),
        ("main.rs", "use crate::anything::at_all;"),
    ];
    for (path, text) in cases {
        assert_eq!(violations(Path::new(path), text), Vec::<String>::new(), "{path}: {text}");
    }
}

/// Where code is not checked for memory safety, and how often. What stands here has a `SAFETY` comment and a reason.
const UNSAFE: [(&str, usize); 2] = [("gpu/device.rs", 1), ("gpu/pipeline.rs", 2)];

#[test]
fn unsafe_code_is_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    let mut found: Vec<(String, usize)> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let count = |word: &str| code.iter().filter(|line| line.contains(word)).count();
        let blocks = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].map(count).iter().sum::<usize>();
        let expected = count("#[expect(unsafe_code, reason = ");
        assert_eq!((blocks, count("allow(unsafe_code")), (expected, 0), "{}", file.display());
        assert_eq!(blocks, text.matches("// SAFETY: ").count(), "{}: a comment for each", file.display());
        if blocks > 0 {
            found.push((file.strip_prefix(&root).expect("a file under src").display().to_string(), blocks));
        }
    }
    found.sort();
    let listed = UNSAFE.map(|(file, count)| (file.to_owned(), count));
    assert_eq!(found, listed, "unsafe code is somewhere else: is it needed there?");
    // The compiler lets nothing else pass.
    let lib = std::fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
    assert!(lib.contains("#![deny(unsafe_code)]"));
}
