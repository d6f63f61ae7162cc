//! Parameters: name, layout in files and on the device, and initial values.

use crate::rng::Stream;
use crate::tensor::{HostTensor, Shape};

/// How a parameter lies in files (PyTorch's layout) and on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The same in both.
    Same,
    /// File `[K, C/groups, R, S]`, device `[R, S, C/groups, K]`. A transposed convolution, whose file has `[C, K, R,
    /// S]`, is that of the convolution it turns around: device `[R, S, K, C]`.
    Conv,
    /// File `[out, in]`, device `[in, out]`.
    Linear,
}

impl Layout {
    /// The axes of the device's tensor, as axes of the file's.
    fn to_device(self) -> Option<&'static [usize]> {
        match self {
            Self::Same => None,
            Self::Conv => Some(&[2, 3, 1, 0]),
            Self::Linear => Some(&[1, 0]),
        }
    }

    /// The axes of the file's tensor, as axes of the device's.
    fn to_file(self) -> Option<&'static [usize]> {
        match self {
            Self::Same => None,
            Self::Conv => Some(&[3, 2, 0, 1]),
            Self::Linear => Some(&[1, 0]),
        }
    }
}

/// Initial values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f32),
    /// Normal with standard deviation `sqrt(2 / fan_out)`: He et al., "Delving deep into rectifiers", 2015, with the
    /// fan counted at the output, as torchvision's ResNets have it.
    KaimingNormalFanOut,
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform between this bound and its negative.
    Uniform(f32),
    /// Uniform in `+-1/sqrt(fan)`: PyTorch's default for linear and convolution layers, weights and biases.
    UniformFanIn {
        /// Products that one output sums.
        fan_in: usize,
    },
}

/// A tensor that belongs to a model: a trained parameter or a running statistic.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its key in a torchvision `state_dict`.
    pub name: String,
    /// Its shape in files.
    pub file_shape: Shape,
    /// How files and device differ.
    pub layout: Layout,
    /// Initial values.
    pub init: Init,
    /// Whether it can be trained (else it is a running statistic).
    pub trainable: bool,
    /// Whether it stays as it is: neither trained nor, as a running statistic, moved.
    pub frozen: bool,
    /// Whether it belongs to the head rather than to the backbone.
    pub head: bool,
}

impl Parameter {
    /// The number of elements.
    pub fn count(&self) -> usize {
        self.file_shape.len()
    }

    /// Initial values in the file's layout: a pure function of the seed and the name.
    pub fn initial(&self, seed: u32) -> HostTensor {
        let stream = Stream::named(seed, &format!("init/{}", self.name));
        let n = self.count() as u64;
        let data = match self.init {
            Init::Constant(value) => vec![value; self.count()],
            Init::KaimingNormalFanOut => {
                // [K, C/groups, R, S]: torchvision's fan, K * R * S, whatever the groups.
                let dims = self.file_shape.dims();
                let fan_out = dims[0] * dims[2..].iter().product::<usize>();
                let std = (2.0 / fan_out as f64).sqrt() as f32;
                (0..n).map(|i| std * stream.normal(i)).collect()
            }
            Init::Normal(std) => (0..n).map(|i| std * stream.normal(i)).collect(),
            Init::Uniform(bound) => (0..n).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect(),
            Init::UniformFanIn { fan_in } => {
                let bound = (1.0 / fan_in as f64).sqrt() as f32;
                (0..n).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect()
            }
        };
        HostTensor::new(self.file_shape.clone(), data)
    }

    /// Whether steps of training change it.
    pub fn is_trained(&self) -> bool {
        self.trainable && !self.frozen
    }

    /// The layer it belongs to: its name without the last part.
    pub fn layer(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(layer, _)| layer)
    }

    /// From the file's layout to the device's.
    pub fn to_device(&self, tensor: &HostTensor) -> HostTensor {
        self.layout.to_device().map_or_else(|| tensor.clone(), |axes| tensor.permute(axes))
    }

    /// From the device's layout to the file's.
    pub fn to_file(&self, tensor: &HostTensor) -> HostTensor {
        self.layout.to_file().map_or_else(|| tensor.clone(), |axes| tensor.permute(axes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_invert_and_fans_scale() {
        let parameter = Parameter {
            name: "conv1.weight".into(),
            file_shape: [64, 3, 7, 7].into(),
            layout: Layout::Conv,
            init: Init::KaimingNormalFanOut,
            trainable: true,
            frozen: false,
            head: false,
        };
        assert_eq!(parameter.layer(), "conv1");
        let w = parameter.initial(1);
        let device = parameter.to_device(&w);
        assert_eq!(device.shape().dims(), [7, 7, 3, 64]);
        assert_eq!(parameter.to_file(&device), w);
        let var = w.data().iter().map(|v| f64::from(v * v)).sum::<f64>() / w.data().len() as f64;
        let want = 2.0 / (64.0 * 49.0);
        assert!((var / want - 1.0).abs() < 0.05, "{var} {want}");
    }
}
