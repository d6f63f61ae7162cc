//! Splits: no lesion in two of them, the shares kept, the same seed the same split.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::PathBuf;

use lesion_gpu::Kind;
use lesion_gpu::data::{
    Dataset, Fold, Layout, Sample, Source, SplitAssignment, SplitSpec, balance_all, balance_of, balance_train, split,
};
use lesion_gpu::rng::Stream;

/// A dataset of `lesions[c]` lesions of each class, of 1 to 6 pictures (most of 1), in mixed order.
fn dataset(seed: u32, lesions: &[usize]) -> Dataset {
    let stream = Stream::new(seed, 99);
    let mut samples = Vec::new();
    for (label, &count) in lesions.iter().enumerate() {
        for lesion in 0..count {
            let u = stream.uniform((label * 100_000 + lesion) as u64);
            let pictures = if u < 0.7 { 1 } else { 2 + ((u - 0.7) / 0.06) as usize };
            for picture in 0..pictures {
                let id = format!("{label}-{lesion}-{picture}");
                let source = Source::File(PathBuf::from(&id));
                samples.push(Sample::new(id, source, label, &format!("{label}-{lesion}")));
            }
        }
    }
    let order = stream.permutation(samples.len(), 7);
    let samples = order.into_iter().map(|i| samples[i].clone()).collect();
    let classes = (0..lesions.len()).map(|c| c.to_string());
    Dataset::new("test", "test", Layout::Table, classes, samples)
}

fn parts(s: &SplitAssignment) -> [&[usize]; 3] {
    [&s.train, &s.val, &s.test]
}

#[test]
fn grouped_splits_never_leak_and_keep_each_class_share() {
    for seed in 0..20 {
        let data = dataset(seed, &[300, 40, 5400, 73, 3, 8]);
        for fractions in [[0.70, 0.15, 0.15], [0.64, 0.16, 0.20], [0.8, 0.2, 0.0]] {
            let spec = SplitSpec { fractions, seed, ..SplitSpec::default() };
            let s = split(&data, &spec).unwrap();
            assert_eq!(s, split(&data, &spec).unwrap(), "the same seed gave another split");
            let mut all: Vec<usize> = parts(&s).concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..data.samples.len()), "not a partition");
            let mut home: HashMap<&str, usize> = HashMap::new();
            for (part, indices) in parts(&s).into_iter().enumerate() {
                for &i in indices {
                    assert_eq!(*home.entry(&data.samples[i].group).or_insert(part), part, "a lesion leaked");
                }
            }
            let totals = data.class_counts();
            for (part, indices) in parts(&s).into_iter().enumerate() {
                for (class, n) in data.class_counts_of(indices.iter().copied()).into_iter().enumerate() {
                    let off = (n as f64 - totals[class] as f64 * fractions[part]).abs();
                    if class < 4 {
                        assert!(off <= (0.01 * totals[class] as f64).max(1.5), "class {class} off by {off} in {part}");
                    }
                    assert!(n > 0 || fractions[part] == 0.0, "class {class} is missing in split {part}");
                    assert!(n == 0 || fractions[part] > 0.0, "split {part} should be empty");
                }
            }
        }
    }
}

#[test]
fn another_seed_gives_another_split_and_pictures_alone_may_leak() {
    let data = dataset(1, &[200, 200]);
    let by = |seed, grouped| split(&data, &SplitSpec { seed, grouped, ..SplitSpec::default() }).unwrap();
    assert_ne!(by(1, true), by(2, true));
    let s = by(1, false);
    let groups = |indices: &[usize]| indices.iter().map(|&i| data.samples[i].group.clone()).collect::<Vec<_>>();
    let train = groups(&s.train);
    assert!(groups(&s.test).iter().any(|g| train.contains(g)), "ungrouped splits of repeated lesions should leak");
    assert_eq!(s.val.len().abs_diff(s.test.len()), 0);
}

#[test]
fn large_lesions_spread_over_all_splits() {
    let data = dataset(2, &[2000]);
    let mut size: HashMap<&str, usize> = HashMap::new();
    data.samples.iter().for_each(|s| *size.entry(&s.group).or_default() += 1);
    let s = split(&data, &SplitSpec::default()).unwrap();
    let share = |indices: &[usize]| {
        indices.iter().filter(|&&i| size[data.samples[i].group.as_str()] >= 3).count() as f64 / indices.len() as f64
    };
    let [train, val, test] = parts(&s).map(share);
    assert!((train - val).abs() < 0.03 && (train - test).abs() < 0.03, "{train} {val} {test}");
}

/// Each picture is in the test split of exactly one fold, each class evenly, and lesions stay whole.
#[test]
fn folds_take_turns_as_test_split() {
    let data = dataset(4, &[300, 60, 7]);
    let mut tested = vec![0; data.samples.len()];
    let totals = data.class_counts();
    for number in 1..=5 {
        let spec = SplitSpec { fractions: [0.6, 0.2, 0.2], fold: Some(Fold { number, of: 5 }), ..SplitSpec::default() };
        let s = split(&data, &spec).unwrap();
        s.test.iter().for_each(|&i| tested[i] += 1);
        let mut home: HashMap<&str, usize> = HashMap::new();
        for (part, indices) in parts(&s).into_iter().enumerate() {
            indices.iter().for_each(|&i| assert_eq!(*home.entry(&data.samples[i].group).or_insert(part), part));
        }
        let counts = |indices: &[usize]| data.class_counts_of(indices.iter().copied());
        for ((test, total), class) in counts(&s.test).into_iter().zip(&totals).zip(0..) {
            assert!((test as f64 - *total as f64 / 5.0).abs() <= 2.0_f64.max(0.02 * *total as f64), "{class}: {test}");
        }
        let [train, val] = [s.train.len() as f64, s.val.len() as f64];
        assert!((val / (train + val) - 0.25).abs() < 0.02, "{train} {val}");
    }
    assert!(tested.iter().all(|&n| n == 1));
    for wrong in ["0/5", "6/5", "1/1", "1", "a/b", "1/101"] {
        assert!(wrong.parse::<Fold>().is_err(), "{wrong}");
    }
    assert_eq!("2/5".parse::<Fold>().unwrap().to_string(), "2/5");
}

#[test]
fn fractions_must_be_shares() {
    let data = dataset(1, &[5, 5]);
    for fractions in [[0.7, 0.2, 0.2], [0.0, 0.5, 0.5], [1.2, -0.1, -0.1], [f64::NAN, 0.5, 0.5]] {
        let error = split(&data, &SplitSpec { fractions, ..SplitSpec::default() }).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{fractions:?}");
    }
}

#[test]
fn training_sets_are_balanced_after_the_split_and_never_across_it() {
    let data = dataset(3, &[40, 5, 300, 1]);
    let natural = split(&data, &SplitSpec::default()).unwrap();
    let (mut balanced, mut parts) = (data.clone(), natural.clone());
    balance_train(&mut balanced, &mut parts, 60, 9);
    assert_eq!(parts.leak(&balanced), None);
    let ids = |of: &Dataset, indices: &[usize]| indices.iter().map(|&i| of.samples[i].id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&balanced, &parts.val), ids(&data, &natural.val));
    assert_eq!(ids(&balanced, &parts.test), ids(&data, &natural.test));
    assert_eq!(balanced.samples.len(), parts.train.len() + parts.val.len() + parts.test.len());
    let before = data.class_counts_of(natural.train.iter().copied());
    for (class, balance) in balance_of(&balanced, &parts.train).iter().enumerate() {
        let expected = if before[class] == 0 { (0, 0) } else { (before[class].min(60), 60 - before[class].min(60)) };
        assert_eq!((balance.originals, balance.copies), expected, "class {class}");
    }
    let all = ids(&balanced, &parts.train);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "an id occurs twice");
    // All originals of a rare class are there, and the seven changes take turns.
    let rare: Vec<&String> = all.iter().filter(|id| id.starts_with("1-")).collect();
    ["rotation", "hflip", "vflip", "zoom", "shift", "brightness", "contrast"]
        .iter()
        .for_each(|change| assert!(rare.iter().filter(|id| id.contains(change)).count() >= 5, "{change}: {rare:?}"));
    // What was left out is known.
    let used: HashSet<&String> = balanced.samples.iter().map(|sample| &sample.id).collect();
    let unused: Vec<&String> = balanced.unused.iter().map(|sample| &sample.id).collect();
    assert!(unused.iter().all(|id| !used.contains(id)));
    let originals = used.iter().filter(|id| !id.contains('~')).count();
    assert_eq!(originals + unused.len(), data.samples.len());
    let (mut again, mut same) = (data.clone(), natural.clone());
    balance_train(&mut again, &mut same, 60, 9);
    assert_eq!((again.samples, same), (balanced.samples, parts));

    // Before the split, copies leak, and the leak check says so.
    let mut first = data.clone();
    balance_all(&mut first, 60, 9);
    let leaky = split(&first, &SplitSpec { grouped: false, ..SplitSpec::default() }).unwrap();
    assert!(leaky.leak(&first).unwrap().torn > 10);
    assert_eq!(split(&first, &SplitSpec::default()).unwrap().leak(&first), None);
}
