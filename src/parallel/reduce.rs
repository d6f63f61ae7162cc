//! Sums over ranks, whose bits do not depend on who comes first.

use half::f16;

use super::Ranks;
use crate::error::Result;

/// Numbers that go over the wire at a time, so that what is in transit stays small whatever the size of a model.
const BUCKET: usize = 1 << 20;
/// Numbers that are added up at a time, so that their sums stay in the nearest cache.
const RUN: usize = 512;

/// Room for what is in transit, kept from one sum to the next: fresh memory would cost more than the sum.
#[derive(Debug, Default)]
pub struct Transit {
    // Words, so that numbers of any type are aligned.
    sent: Vec<u64>,
    received: Vec<u64>,
}

fn room<W: bytemuck::Pod>(words: &mut Vec<u64>, numbers: usize) -> &mut [W] {
    let needed = (numbers * size_of::<W>()).div_ceil(size_of::<u64>());
    if words.len() < needed {
        words.resize(needed, 0);
    }
    &mut bytemuck::cast_slice_mut(words)[..numbers]
}

/// Replaces `values`, as many on each rank, by their sums over all ranks, added in the order of the ranks: the same bits on all
/// of them.
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f32(ranks: &dyn Ranks, values: &mut [f32], transit: &mut Transit) -> Result<()> {
    all_reduce(ranks, values, transit, |v| v, |v| v, |a, b| a + b)
}

/// As [`all_reduce_f32`].
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f64(ranks: &dyn Ranks, values: &mut [f64], transit: &mut Transit) -> Result<()> {
    all_reduce(ranks, values, transit, |v| v, |v| v, |a, b| a + b)
}

/// As [`all_reduce_f32`], with 16-bit floats on the wire, in both directions: what each rank sends is rounded, and so are the
/// sums, which are made in f32. `largest` is the largest magnitude of the values of all ranks; by it all are scaled with a power
/// of two so that no sum overflows and as little as can be is lost. Where it is not finite nothing is scaled: what is not finite
/// stays so.
///
/// # Errors
/// As [`Ranks::gather`].
pub fn all_reduce_f16(ranks: &dyn Ranks, values: &mut [f32], largest: f32, transit: &mut Transit) -> Result<()> {
    let exponent = exponent_for(largest, ranks.size());
    let (scale, back) = (2f32.powi(exponent), 2f32.powi(-exponent));
    all_reduce(ranks, values, transit, |v| f16::from_f32(v * scale), |v| v.to_f32() * back, |a, b| a + b)
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
    transit: &mut Transit,
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
        let sent: &mut [W] = room(&mut transit.sent, block * size);
        let received: &mut [W] = room(&mut transit.received, block * size);
        sent.iter_mut().zip(&*bucket).for_each(|(sent, &value)| *sent = to_wire(value));
        sent[bucket.len()..].fill(W::zeroed());
        ranks.exchange_blocks(bytemuck::cast_slice(sent), bytemuck::cast_slice_mut(received))?;
        let sums = &mut sent[..block];
        for from in (0..block).step_by(RUN) {
            let run = from..block.min(from + RUN);
            let mut exact = [T::zeroed(); RUN];
            let exact = &mut exact[..run.len()];
            for (rank, of_rank) in received.chunks_exact(block).enumerate() {
                for (sum, &value) in exact.iter_mut().zip(&of_rank[run.clone()]) {
                    *sum = if rank == 0 { from_wire(value) } else { add(*sum, from_wire(value)) };
                }
            }
            sums[run].iter_mut().zip(exact).for_each(|(sum, exact)| *sum = to_wire(*exact));
        }
        ranks.gather_blocks(bytemuck::cast_slice(sums), bytemuck::cast_slice_mut(received))?;
        bucket.iter_mut().zip(&*received).for_each(|(value, &sum)| *value = from_wire(sum));
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
                    all_reduce_f32(ranks, &mut values, &mut Transit::default()).unwrap();
                    values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                }) {
                    assert_eq!(got, want, "{size} ranks, {len} numbers");
                }
            }
        }
    }

    #[test]
    fn room_that_is_kept_serves_numbers_of_any_type() {
        for sums in on_each(3, |ranks| {
            let (mut transit, rank) = (Transit::default(), ranks.rank() as u8);
            let mut sums = vec![];
            for len in [5, 1000, 7] {
                let mut values: Vec<f32> = (0..len).map(|i| (i % 50) as f32 + f32::from(rank)).collect();
                all_reduce_f32(ranks, &mut values, &mut transit).unwrap();
                sums.extend(values.iter().map(|&v| f64::from(v)));
                all_reduce_f16(ranks, &mut values[1..], 155.0, &mut transit).unwrap();
                sums.extend(values[1..].iter().map(|&v| f64::from(v) / 3.0));
                let mut values: Vec<f64> = (0..len).map(|i| f64::from(i % 50) + f64::from(rank)).collect();
                all_reduce_f64(ranks, &mut values, &mut transit).unwrap();
                sums.extend(values);
            }
            sums
        }) {
            let each = |len: u32| {
                let of = move |i: u32| 3.0 * f64::from(i % 50) + 3.0;
                (0..len).map(of).chain((1..len).map(of)).chain((0..len).map(of))
            };
            // The second sums are of sums, which fit 16 bits as they are.
            assert!(sums.into_iter().eq([5, 1000, 7].into_iter().flat_map(each)));
        }
    }

    #[test]
    fn more_numbers_than_a_bucket_are_added_up() {
        let len = BUCKET + 3;
        for got in on_each(2, |ranks| {
            let mut values: Vec<f64> = (0..len).map(|i| (i * (1 + ranks.rank())) as f64).collect();
            all_reduce_f64(ranks, &mut values, &mut Transit::default()).unwrap();
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
                    all_reduce_f16(ranks, &mut values, largest_magnitude(&largest), &mut Transit::default()).unwrap();
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
            all_reduce_f16(ranks, &mut values, largest, &mut Transit::default()).unwrap();
            values
        }) {
            assert!(got.iter().all(|&v| v == 4.0), "{got:?}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_in_sixteen_bits() {
        for got in on_each(2, |ranks| {
            let mut values = if ranks.rank() == 0 { [1.0, f32::INFINITY, 2.0] } else { [f32::NAN, 1.0, 3.0] };
            all_reduce_f16(ranks, &mut values, f32::NAN, &mut Transit::default()).unwrap();
            values
        }) {
            assert!(got[0].is_nan() && got[1] == f32::INFINITY && got[2] == 5.0, "{got:?}");
        }
        assert!(largest_magnitude(&[1.0, f32::NAN, 2.0]).is_nan());
        assert_eq!(largest_magnitude(&[1.0, f32::NEG_INFINITY]), f32::INFINITY);
        assert_eq!(largest_magnitude(&[]), 0.0);
    }
}
