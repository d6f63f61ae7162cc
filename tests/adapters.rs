//! Several GPUs in one machine. Two drivers in software will do: name their manifests in `VK_ICD_FILENAMES`.

mod common;
#[path = "common/training.rs"]
mod training;

use std::path::Path;

use common::{fails, ok, program_with, text};
use lesion_gpu::gpu::list_adapters;
use training::{TRAIN, assert_equal, table};

/// What is said of the device in a run's folder.
fn device(run: &Path) -> (String, String) {
    let environment: serde_json::Value = serde_json::from_str(&table(run, "environment.json")).unwrap();
    let field = |name: &str| environment[name].as_str().unwrap().to_owned();
    (field("adapter"), field("driver"))
}

/// Whether the Vulkan loader is told of two drivers or more: then two GPUs are wanted. The first variable counts if it is set.
fn several_drivers_are_named() -> bool {
    let mut set = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(std::env::var_os).into_iter().flatten();
    let named = set.find(|files| !files.is_empty());
    named.is_some_and(|files| std::env::split_paths(&files).filter(|file| !file.as_os_str().is_empty()).count() > 1)
}

#[test]
fn each_of_two_gpus_trains_when_it_is_named() {
    let adapters = list_adapters();
    let Some(other) = adapters.iter().find(|a| a.name != adapters[0].name) else {
        let names: Vec<&str> = adapters.iter().map(|a| a.name.as_str()).collect();
        assert!(
            !several_drivers_are_named(),
            "two drivers are named, and there are no two names of adapters: {names:?}"
        );
        println!("skipped: this machine has no two adapters of different names: {names:?}");
        return;
    };
    let both = [&adapters[0], other];
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let train = [TRAIN, &["--epochs", "1"]].concat();
    // At the same time, each chosen by its name.
    std::thread::scope(|scope| {
        for (i, adapter) in both.iter().enumerate() {
            let args = [&train[..], &["--adapter", &adapter.name, "--run", ["first", "second"][i]]].concat();
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            scope.spawn(move || ok(dir, &args.iter().map(String::as_str).collect::<Vec<_>>()));
        }
    });
    for (run, adapter) in ["first", "second"].iter().zip(both) {
        assert_eq!(device(&dir.join(run)), (adapter.name.clone(), adapter.driver.clone()));
    }
    // Alone, by its number in the environment: the same to the bit, so neither had come in the other's way.
    let number = other.index.to_string();
    let alone = [&train[..], &["--run", "alone"]].concat();
    let output = program_with(dir, &alone, &[("LESION_GPU_ADAPTER", &number)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(device(&dir.join("alone")), device(&dir.join("second")));
    assert_equal(&dir.join("second"), &dir.join("alone"));

    // What was begun on one goes on on the other, which is said.
    let stopped = [&train[..], &["--adapter", &adapters[0].name, "--run", "moved", "--checkpoint-every", "0"]].concat();
    fails(dir, 6, &[&stopped[..], &["--fault", "lost@150"]].concat());
    let said = ok(dir, &["train", "--resume", "moved", "--adapter", &number, "--no-report"]);
    for part in ["goes on on", "equal to the bit", &adapters[0].name, &other.name] {
        assert!(said.contains(part), "no '{part}': {said}");
    }
    let said = ok(dir, &["train", "--resume", "first", "--adapter", &adapters[0].name, "--no-report"]);
    assert!(!said.contains("goes on on"), "{said}");
}

#[test]
fn an_adapter_that_is_not_there_is_no_other_one() {
    let adapters = list_adapters();
    let Some(first) = adapters.first() else {
        println!("skipped: no adapter");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for wanted in ["none of this name", &adapters.len().to_string()] {
        let said = fails(dir, 3, &["doctor", "relu", "--adapter", wanted]);
        assert!(said.contains(&format!("no adapter matches '{wanted}'")) && said.contains(&first.name), "{said}");
        let output = program_with(dir, &["doctor", "relu"], &[("LESION_GPU_ADAPTER", wanted)]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    }
}
