//! Sums over ranks, whose bits do not depend on who comes first.

use half::f16;

use super::Ranks;
use crate::error::Result;

/// Numbers that go over the wire at a time, so that what is in transit stays small whatever the size of a model.
const BUCKET: usize = 1 << 20;

/// Replaces `values`, as many on each rank, by their sums over all ranks, added in the order of the ranks: the same bits on all
/// of them.
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f32(ranks: &dyn Ranks, values: &mut [f32]) -> Result<()> {
    all_reduce(ranks, values, |v| v, |v| v, |a, b| a + b)
}

/// As [`all_reduce_f32`].
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f64(ranks: &dyn Ranks, values: &mut [f64]) -> Result<()> {
    all_reduce(ranks, values, |v| v, |v| v, |a, b| a + b)
}

/// As [`all_reduce_f32`], with 16-bit floats on the wire, in both directions: what each rank sends is rounded, and so are the
/// sums, which are made in f32. `largest` is the largest magnitude of the values of all ranks; by it all are scaled with a power
/// of two so that no sum overflows and as little as can be is lost. Where it is not finite nothing is scaled: what is not finite
/// stays so.
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f16(ranks: &dyn Ranks, values: &mut [f32], largest: f32) -> Result<()> {
    let exponent = exponent_for(largest, ranks.size());
    let (scale, back) = (2f32.powi(exponent), 2f32.powi(-exponent));
    all_reduce(ranks, values, |v| f16::from_f32(v * scale), |v| v.to_f32() * back, |a, b| a + b)
}

/// The largest magnitude, as [`all_reduce_f16`] takes it; NaN if there is one.
pub fn largest_magnitude(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |largest: f32, v| if v.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(v.abs()) })
}

/// The exponent of the power of two by which values are multiplied before they are rounded: sums of so many are then at most
/// 2^15, half of what 16 bits hold.
fn exponent_for(largest: f32, ranks: usize) -> i32 {
    if !largest.is_finite() || largest == 0.0 {
        return 0;
    }
    // The least power of two above it; of denormal numbers any will do.
    let above = (largest.to_bits() >> 23) as i32 - 126;
    let ranks = ranks.next_power_of_two().trailing_zeros() as i32;
    (15 - above - ranks).clamp(-126, 126)
}

fn all_reduce<T: bytemuck::Pod, W: bytemuck::Pod>(
    ranks: &dyn Ranks,
    values: &mut [T],
    to_wire: impl Fn(T) -> W,
    from_wire: impl Fn(W) -> T,
    add: impl Fn(T, T) -> T,
) -> Result<()> {
    let size = ranks.size();
    if size == 1 {
        return Ok(());
    }
    for bucket in values.chunks_mut(BUCKET) {
        // Every rank adds up one block of it.
        let block = bucket.len().div_ceil(size);
        let mut blocks: Vec<W> = bucket.iter().map(|&v| to_wire(v)).collect();
        blocks.resize(block * size, W::zeroed());
        let given: Vec<W> = bytemuck::pod_collect_to_vec(&ranks.exchange_blocks(bytemuck::cast_slice(&blocks))?);
        let (first, others) = given.split_at(block);
        let mut sums: Vec<T> = first.iter().map(|&v| from_wire(v)).collect();
        for other in others.chunks_exact(block) {
            sums.iter_mut().zip(other).for_each(|(sum, &value)| *sum = add(*sum, from_wire(value)));
        }
        let sums: Vec<W> = sums.into_iter().map(&to_wire).collect();
        let all: Vec<Vec<W>> =
            ranks.gather(bytemuck::cast_slice(&sums))?.iter().map(|sums| bytemuck::pod_collect_to_vec(sums)).collect();
        bucket.iter_mut().zip(all.iter().flatten()).for_each(|(value, &sum)| *value = from_wire(sum));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_each;
    use super::*;

    #[test]
    fn sums_are_those_of_the_order_of_the_ranks_to_the_bit() {
        // Values whose sum depends on the order, and lengths that do not divide.
        let value =
            |rank: usize, i: usize| ((rank * 7919 + i * 104_729) % 1000) as f32 * 10f32.powi((rank % 3) as i32 * 4);
        for size in [1, 2, 3, 5] {
            for len in [0, 1, 2, 7, 1000] {
                let want: Vec<u32> =
                    (0..len).map(|i| (1..size).fold(value(0, i), |sum, rank| sum + value(rank, i)).to_bits()).collect();
                for got in on_each(size, |ranks| {
                    let mut values: Vec<f32> = (0..len).map(|i| value(ranks.rank(), i)).collect();
                    all_reduce_f32(ranks, &mut values).unwrap();
                    values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                }) {
                    assert_eq!(got, want, "{size} ranks, {len} numbers");
                }
            }
        }
    }

    #[test]
    fn more_numbers_than_a_bucket_are_added_up() {
        let len = BUCKET + 3;
        for got in on_each(2, |ranks| {
            let mut values: Vec<f64> = (0..len).map(|i| (i * (1 + ranks.rank())) as f64).collect();
            all_reduce_f64(ranks, &mut values).unwrap();
            values
        }) {
            assert!(got.iter().enumerate().all(|(i, &v)| v == 3.0 * i as f64));
        }
    }

    #[test]
    fn sixteen_bits_lose_a_rounding_of_each_value_and_of_the_sum_and_nothing_overflows() {
        for size in [1, 2, 3, 8] {
            // From values that f16 does not hold for their size to those that it does not hold for their smallness.
            for magnitude in [1e-42, 1e-36, 1e-20, 3e-5, 0.7, 1.0, 1e4, 1e20, 1e37] {
                let value = |rank: usize, i: usize| magnitude * (((rank * 31 + i * 17) % 201) as f32 / 100.0 - 1.0);
                let len = 77;
                let all = on_each(size, |ranks| {
                    let mut values: Vec<f32> = (0..len).map(|i| value(ranks.rank(), i)).collect();
                    let largest = ranks.gather(&largest_magnitude(&values).to_le_bytes()).unwrap();
                    let largest: Vec<f32> = largest.iter().map(|b| bytemuck::pod_read_unaligned(b)).collect();
                    all_reduce_f16(ranks, &mut values, largest_magnitude(&largest)).unwrap();
                    values
                });
                assert!(all.iter().all(|own| own == &all[0]), "ranks differ");
                for (i, &got) in all[0].iter().enumerate() {
                    let want: f64 = (0..size).map(|rank| f64::from(value(rank, i))).sum();
                    let least = f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON);
                    let bound = 2f64.powi(-11) * 2.01 * f64::from(magnitude) * size as f64 + size as f64 * least;
                    let bound = if size == 1 { 0.0 } else { bound };
                    assert!(
                        (f64::from(got) - want).abs() <= bound,
                        "{size} ranks, {magnitude:e}: {got:e} for {want:e}"
                    );
                }
            }
        }
        // As near to the end of the range as a sum can come.
        for got in on_each(4, |ranks| {
            let mut values = [f32::from_bits(1.0f32.to_bits() - 1); 3];
            let largest = values[0];
            all_reduce_f16(ranks, &mut values, largest).unwrap();
            values
        }) {
            assert!(got.iter().all(|&v| v == 4.0), "{got:?}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_in_sixteen_bits() {
        for got in on_each(2, |ranks| {
            let mut values = if ranks.rank() == 0 { [1.0, f32::INFINITY, 2.0] } else { [f32::NAN, 1.0, 3.0] };
            all_reduce_f16(ranks, &mut values, f32::NAN).unwrap();
            values
        }) {
            assert!(got[0].is_nan() && got[1] == f32::INFINITY && got[2] == 5.0, "{got:?}");
        }
        assert!(largest_magnitude(&[1.0, f32::NAN, 2.0]).is_nan());
        assert_eq!(largest_magnitude(&[1.0, f32::NEG_INFINITY]), f32::INFINITY);
        assert_eq!(largest_magnitude(&[]), 0.0);
    }
}
