//! Tensors in host memory.

use super::Shape;

/// A float tensor in host memory, dense and row-major (outermost axis first).
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Shape,
    data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of `shape` over `data`.
    ///
    /// # Panics
    /// If `data` does not hold exactly the elements of `shape`: the caller's bug, not the user's.
    pub fn new(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.len(), data.len(), "host tensor {shape} from {} elements", data.len());
        Self { shape, data }
    }

    /// A tensor with every element equal to `value`.
    pub fn full(shape: impl Into<Shape>, value: f32) -> Self {
        let shape = shape.into();
        let data = vec![value; shape.len()];
        Self { shape, data }
    }

    /// The extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements, mutable.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The elements, without the shape.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The same elements with the axes in the order `axes` (`out.shape[i] == self.shape[axes[i]]`).
    ///
    /// # Panics
    /// If `axes` is not a permutation of the axes.
    pub fn permute(&self, axes: &[usize]) -> Self {
        let dims = self.shape.dims();
        let mut seen = vec![false; dims.len()];
        axes.iter().for_each(|&a| seen[a] = true);
        assert!(axes.len() == dims.len() && seen.iter().all(|&s| s), "not a permutation: {axes:?}");
        let mut strides = vec![1; dims.len()];
        for i in (0..dims.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1] * dims[i + 1];
        }
        let out_dims: Vec<usize> = axes.iter().map(|&a| dims[a]).collect();
        let out_strides: Vec<usize> = axes.iter().map(|&a| strides[a]).collect();
        let mut index = vec![0; dims.len()];
        let mut offset = 0;
        let mut data = Vec::with_capacity(self.data.len());
        for _ in 0..self.data.len() {
            data.push(self.data[offset]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                offset += out_strides[axis];
                if index[axis] < out_dims[axis] {
                    break;
                }
                offset -= out_strides[axis] * out_dims[axis];
                index[axis] = 0;
            }
        }
        Self { shape: out_dims.into(), data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permute_moves_axes_and_inverts() {
        let t = HostTensor::new([2, 3, 4], (0..24).map(|i| i as f32).collect());
        let p = t.permute(&[2, 0, 1]);
        assert_eq!(p.shape().dims(), [4, 2, 3]);
        assert_eq!(p.data()[0..4], [0.0, 4.0, 8.0, 12.0]);
        assert_eq!(p.permute(&[1, 2, 0]), t);
    }
}
