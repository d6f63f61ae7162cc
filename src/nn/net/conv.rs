//! What there is to say of a convolution layer.

use crate::nn::Init;
use crate::ops::conv_transpose2d::ConvTranspose2d;
use crate::ops::conv2d::{Conv2d, Padding};

/// A convolution layer: filters, kernel size, and what differs from stride 1 without padding or bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv {
    pub(super) filters: usize,
    pub(super) kernel: [usize; 2],
    pub(super) conv: Conv2d,
    pub(super) bias: bool,
    pub(super) init: Option<Init>,
}

impl Conv {
    /// `filters` square kernels of side `kernel`.
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self {
            filters,
            kernel: [kernel; 2],
            conv: Conv2d::default(),
            bias: false,
            init: Some(Init::KaimingNormalFanOut),
        }
    }

    /// `filters` kernels of `rows` by `columns`.
    pub fn rectangular(filters: usize, [rows, columns]: [usize; 2]) -> Self {
        Self { kernel: [rows, columns], ..Self::new(filters, 0) }
    }

    /// The same stride along both axes.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.conv.stride = [stride; 2];
        self
    }

    /// The same zero padding on all sides.
    #[must_use]
    pub fn padding(mut self, pixels: usize) -> Self {
        self.conv.padding = Padding::all(pixels);
        self
    }

    /// Zero padding of `rows` above and below and of `columns` to the left and right.
    #[must_use]
    pub fn padding_of(mut self, [rows, columns]: [usize; 2]) -> Self {
        self.conv.padding = Padding { top: rows, bottom: rows, left: columns, right: columns };
        self
    }

    /// The same distance between taps along both axes.
    #[must_use]
    pub fn dilation(mut self, pixels: usize) -> Self {
        self.conv.dilation = [pixels; 2];
        self
    }

    /// Channels in groups that do not mix; as many as channels for a depthwise convolution.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.conv.groups = groups;
        self
    }

    /// With PyTorch's default initialisation.
    #[must_use]
    pub fn default_init(mut self) -> Self {
        self.init = None;
        self
    }

    /// With a bias, and PyTorch's default initialisation for both.
    #[must_use]
    pub fn bias(self) -> Self {
        Self { bias: true, ..self.default_init() }
    }
}

/// A transposed convolution layer: filters, kernel size, and what differs from stride 1 without padding or bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvTranspose {
    pub(super) filters: usize,
    pub(super) kernel: usize,
    pub(super) spec: ConvTranspose2d,
    pub(super) bias: bool,
}

impl ConvTranspose {
    /// `filters` square kernels of side `kernel`.
    pub fn new(filters: usize, kernel: usize) -> Self {
        Self { filters, kernel, spec: ConvTranspose2d::default(), bias: false }
    }

    /// The same stride along both axes.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.spec.stride = [stride; 2];
        self
    }

    /// As many pixels taken away on all sides of the result.
    #[must_use]
    pub fn padding(mut self, pixels: usize) -> Self {
        self.spec.padding = Padding::all(pixels);
        self
    }

    /// As many rows and columns added at the end of the result.
    #[must_use]
    pub fn output_padding(mut self, pixels: usize) -> Self {
        self.spec.output_padding = [pixels; 2];
        self
    }

    /// A result of exactly `stride` times the extents, cut as Keras does ("same"), for kernels no smaller than the
    /// stride. Comes after the stride.
    #[must_use]
    pub fn same(mut self) -> Self {
        let cut = |stride: usize| self.kernel.saturating_sub(stride);
        let [rows, columns] = self.spec.stride.map(cut);
        let (top, left) = (rows / 2, columns / 2);
        self.spec.padding = Padding { top, bottom: rows - top, left, right: columns - left };
        self
    }

    /// With a bias.
    #[must_use]
    pub fn bias(mut self) -> Self {
        self.bias = true;
        self
    }
}
