//! Raw elements of a file to f32, and a bound on how much of them a file may unfold to.

use crate::error::{Error, Kind, Result};

/// Float types that files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision; rounded.
    F64,
}

/// The order of an element's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ByteOrder {
    /// The least significant first.
    #[default]
    Little,
    /// The most significant first.
    Big,
}

impl Element {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// One element from its bytes, of which there must be [`size`](Self::size).
    fn one<const N: usize>(self, mut raw: [u8; N], order: ByteOrder) -> f32 {
        if order == ByteOrder::Big {
            raw.reverse();
        }
        let bits = raw.iter().rev().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        match self {
            Self::F16 => half::f16::from_bits(bits as u16).to_f32(),
            Self::Bf16 => half::bf16::from_bits(bits as u16).to_f32(),
            Self::F32 => f32::from_bits(bits as u32),
            Self::F64 => f64::from_bits(bits) as f32,
        }
    }

    /// All whole elements in `bytes`.
    pub fn decode(self, bytes: &[u8], order: ByteOrder) -> Vec<f32> {
        match self.size() {
            2 => bytes.as_chunks::<2>().0.iter().map(|&raw| self.one(raw, order)).collect(),
            4 => bytes.as_chunks::<4>().0.iter().map(|&raw| self.one(raw, order)).collect(),
            _ => bytes.as_chunks::<8>().0.iter().map(|&raw| self.one(raw, order)).collect(),
        }
    }
}

/// How many bytes a file may still unfold to. Compression, tensors that share their storage and strides of zero let a small
/// file claim any amount; weights never need it.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    /// For a file of `bytes`: sixteen times as much, and as much as a page of small tensors needs.
    pub fn of_file(bytes: usize) -> Self {
        Self(bytes.saturating_mul(16).saturating_add(1 << 20))
    }

    /// Takes the bytes of `count` things of `size` bytes; returns `count`.
    ///
    /// # Errors
    /// [`Kind::Weights`] if there are not so many left.
    pub fn take(&mut self, count: Option<usize>, size: usize) -> Result<usize> {
        let left = count.and_then(|n| n.checked_mul(size)).and_then(|bytes| self.0.checked_sub(bytes));
        match (left, count) {
            (Some(left), Some(count)) => {
                self.0 = left;
                Ok(count)
            }
            _ => Err(Error::new(Kind::Weights, "the file claims to hold far more than its size allows")
                .next("it is damaged, or made to use up memory: get it from its source again")),
        }
    }
}

/// The product of extents; `None` if it overflows.
pub(super) fn product(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_and_orders_decode() {
        let cases: [(Element, &[u8]); 4] = [
            (Element::F16, &[0x00, 0xc1]),
            (Element::Bf16, &[0x20, 0xc0]),
            (Element::F32, &[0x00, 0x00, 0x20, 0xc0]),
            (Element::F64, &[0, 0, 0, 0, 0, 0, 0x04, 0xc0]),
        ];
        for (element, little) in cases {
            assert_eq!(element.decode(little, ByteOrder::Little), [-2.5], "{element:?}");
            let big: Vec<u8> = little.iter().rev().copied().collect();
            assert_eq!(element.decode(&big, ByteOrder::Big), [-2.5], "{element:?}");
        }
    }

    #[test]
    fn a_budget_ends() {
        let mut budget = Budget::of_file(0);
        assert_eq!(budget.take(Some(1 << 18), 4).unwrap(), 1 << 18);
        assert_eq!(budget.take(Some(1), 1).unwrap_err().kind(), Kind::Weights);
        assert!(budget.take(Some(usize::MAX), 2).is_err());
        assert!(budget.take(None, 1).is_err());
        assert_eq!(budget.take(Some(0), 4).unwrap(), 0);
        assert_eq!(product(&[usize::MAX, 2]), None);
    }
}
