//! Heads: what turns the features of a backbone into one logit a class. Every model has its own, with the names of the
//! library whose weights it takes; another one of any widths can stand in its place.

use crate::autograd::Tensor;
use crate::error::{Error, Kind, Result};
use crate::nn::Net;

/// Dense layers with ReLU and dropout between them, then the dense layer of the classes. Maps are averaged first.
///
/// Without hidden layers the one dense layer has the name of the model's own classifier (`fc`, `classifier.1`, ...).
/// With hidden layers they are numbered as in a PyTorch `Sequential` of that name: `Sequential(Linear, ReLU, Dropout, Linear)`
/// in the place of `fc` has `fc.0` and `fc.3`; a dropout that is left out has no number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Head {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Rates of dropout: one behind each hidden layer; or one more, whose first is in front of all layers; or a single
    /// one behind every hidden layer (without hidden layers: in front of the only layer). Empty for none.
    pub dropout: Vec<f32>,
}

impl Head {
    /// The rate in front of each dense layer.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the rates do not go with the layers or are not in `[0, 1)`, or if a layer is empty.
    pub fn rates(&self) -> Result<Vec<f32>> {
        let refuse = |what: String| Error::new(Kind::Usage, what);
        if self.hidden.contains(&0) {
            return Err(refuse("a hidden layer of the head must have at least one value".into()));
        }
        if let Some(rate) = self.dropout.iter().find(|rate| !(0.0..1.0).contains(*rate)) {
            return Err(refuse(format!("a dropout rate of the head must be at least 0 and below 1, not {rate}")));
        }
        let layers = self.hidden.len();
        let behind = |rates: &[f32]| [&[0.0], rates].concat();
        match self.dropout.as_slice() {
            [] => Ok(vec![0.0; layers + 1]),
            rates if rates.len() == layers + 1 => Ok(rates.to_vec()),
            rates if rates.len() == layers => Ok(behind(rates)),
            &[rate] => Ok(behind(&vec![rate; layers])),
            rates => Err(refuse(format!("{} dropout rates do not go with {layers} hidden layers", rates.len())).next(
                "give one for each hidden layer, one more for a dropout in front of them, or a single one for all",
            )),
        }
    }

    /// Logits `[N, classes]` of features `[N, F]` or `[N, H, W, C]`. `name` is that of the layers, `only` that of the
    /// dense layer where it is the only one.
    ///
    /// # Errors
    /// As [`rates`](Self::rates).
    pub(super) fn forward(
        &self,
        net: &mut Net<'_>,
        features: Tensor,
        [name, only]: [&str; 2],
        classes: usize,
    ) -> Result<Tensor> {
        let mut x = if net.shape(features).nhwc().is_some() { net.global_avg_pool(features)? } else { features };
        let mut number = 0;
        let widths = self.hidden.iter().copied().chain([classes]);
        for (layer, (width, rate)) in widths.zip(self.rates()?).enumerate() {
            if layer > 0 {
                x = net.relu(x)?;
                number += 1;
            }
            if rate > 0.0 {
                x = net.dropout(x, rate)?;
                number += 1;
            }
            let own = format!("{name}.{number}");
            x = net.linear(if self.hidden.is_empty() { only } else { &own }, x, width)?;
            number += 1;
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::nn::Mode;
    use crate::tensor::TensorType;

    fn names(head: &Head) -> Vec<(String, Vec<usize>)> {
        let mut tape = Tape::new();
        let x = tape.input("features", TensorType::f32([2, 3, 3, 16]));
        let mut net = Net::new(&mut tape, Mode::Train, 0);
        let y = head.forward(&mut net, x, ["fc", "fc"], 7).unwrap();
        assert_eq!(net.shape(y).dims(), [2, 7]);
        let weights = net.into_parameters().into_iter().filter(|p| p.name.ends_with("weight"));
        weights.map(|p| (p.name, p.file_shape.dims().to_vec())).collect()
    }

    #[test]
    fn layers_are_numbered_as_in_a_sequential() {
        let head = |hidden: &[usize], dropout: &[f32]| Head { hidden: hidden.to_vec(), dropout: dropout.to_vec() };
        let named = |name: &str, shape: [usize; 2]| (name.to_owned(), shape.to_vec());
        assert_eq!(names(&head(&[], &[0.3])), [named("fc.weight", [7, 16])]);
        let two = [named("fc.0.weight", [8, 16]), named("fc.3.weight", [7, 8])];
        assert_eq!(names(&head(&[8], &[0.3])), two);
        assert_eq!(names(&head(&[8], &[]))[1], named("fc.2.weight", [7, 8]));
        assert_eq!(names(&head(&[8], &[0.1, 0.2]))[0], named("fc.1.weight", [8, 16]));
        let three = names(&head(&[8, 4], &[0.3, 0.5]));
        assert_eq!(
            three.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["fc.0.weight", "fc.3.weight", "fc.6.weight"]
        );
    }

    #[test]
    fn rates_stand_in_front_of_layers_or_are_refused() {
        let rates = |hidden: &[usize], dropout: &[f32]| {
            Head { hidden: hidden.to_vec(), dropout: dropout.to_vec() }.rates().map_err(|e| e.kind())
        };
        assert_eq!(rates(&[], &[]), Ok(vec![0.0]));
        assert_eq!(rates(&[9, 9], &[0.5]), Ok(vec![0.0, 0.5, 0.5]));
        assert_eq!(rates(&[9, 9], &[0.3, 0.5]), Ok(vec![0.0, 0.3, 0.5]));
        assert_eq!(rates(&[9, 9], &[0.1, 0.3, 0.5]), Ok(vec![0.1, 0.3, 0.5]));
        for (hidden, dropout) in [(&[9][..], &[0.1, 0.2, 0.3][..]), (&[0], &[]), (&[9], &[1.0]), (&[], &[f32::NAN])] {
            assert_eq!(rates(hidden, dropout), Err(Kind::Usage), "{hidden:?} {dropout:?}");
        }
    }
}
