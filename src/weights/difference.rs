//! How a weight file and a model differ.

use std::collections::BTreeMap;

use super::Tensors;
use crate::tensor::Shape;

/// How a file's tensors and a model's parameters differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the model, not in the file.
    pub missing: Vec<String>,
    /// In the file, not in the model.
    pub unexpected: Vec<String>,
    /// In both, with other shapes: name, the file's shape, the model's shape.
    pub mismatched: Vec<(String, Shape, Shape)>,
}

impl Difference {
    /// Compares a file with the names and shapes that a model has.
    pub fn of<'a>(file: &Tensors, model: impl IntoIterator<Item = (&'a str, &'a Shape)>) -> Self {
        let model: BTreeMap<&str, &Shape> = model.into_iter().collect();
        let mut difference = Self::default();
        for (&name, &shape) in &model {
            match file.get(name) {
                None => difference.missing.push(name.to_owned()),
                Some(t) if t.shape() != shape => {
                    difference.mismatched.push((name.to_owned(), t.shape().clone(), shape.clone()));
                }
                Some(_) => {}
            }
        }
        difference.unexpected = file.keys().filter(|k| !model.contains_key(k.as_str())).cloned().collect();
        difference
    }

    /// Whether file and model agree.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// What is told to whoever loads weights partially: a sentence, and the lines of [`describe`](Self::describe). None if all fits.
    pub fn note(&self) -> Option<String> {
        (!self.is_empty()).then(|| format!("loaded what fits of the weights:\n  {}", self.describe()))
    }

    /// One line for each kind of difference, with the first few names.
    pub fn describe(&self) -> String {
        let mut lines = vec![];
        let mut list = |what: &str, names: Vec<String>| {
            if !names.is_empty() {
                let more = names.len().saturating_sub(6);
                // A stranger's names may hold anything, control characters too.
                let shown: Vec<String> = names.iter().take(6).map(|name| name.escape_debug().to_string()).collect();
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                lines.push(format!("{what} ({}): {}{rest}", shown.len() + more, shown.join(", ")));
            }
        };
        list("missing", self.missing.clone());
        list("unexpected", self.unexpected.clone());
        list(
            "of another shape",
            self.mismatched.iter().map(|(n, file, model)| format!("{n} is {file}, not {model}")).collect(),
        );
        lines.join("\n  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

    #[test]
    fn differences_are_named() {
        let mut tensors = Tensors::new();
        tensors.insert("a".into(), HostTensor::full([2, 3], 1.0));
        tensors.insert("b".into(), HostTensor::full([4], 1.5));
        let (a, c) = (Shape::from([3, 2]), Shape::from([1]));
        let difference = Difference::of(&tensors, [("a", &a), ("c", &c)]);
        assert_eq!(difference.missing, ["c"]);
        assert_eq!(difference.unexpected, ["b"]);
        assert_eq!(difference.mismatched.len(), 1);
        assert!(difference.describe().contains("a is 2x3, not 3x2"), "{}", difference.describe());
    }
}
