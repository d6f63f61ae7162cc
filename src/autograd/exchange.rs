//! Places in a plan where the ranks of a run put together what each has of a few numbers a channel. The planner knows the
//! places, [`Executable`](super::Executable) stops there, and what carries the numbers to the other ranks is passed in: a plan
//! that runs without other ranks goes on with its own.

use super::Storage;
use crate::error::{Error, Kind, Result};
use crate::gpu::Operand;

/// How ranks put numbers together: in the order of the ranks and in f64, so that all come to the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// They are added.
    Sums,
    /// They are means and sums of squared deviations, one tensor of each, of so many rows as each rank has: those of all rows
    /// (Chan, Golub and LeVeque, 1979).
    Moments,
}

/// An exchange in the middle of an op's launches.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// The launch of the op that comes behind it.
    pub before: usize,
    /// How the numbers are put together.
    pub how: Combine,
    /// Rows that this rank's numbers are of.
    pub rows: usize,
    /// The numbers: f32 scratch tensors, replaced by those of all ranks.
    pub operands: Vec<Operand>,
}

/// An exchange in a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedExchange {
    /// The launch of the plan that comes behind it.
    pub before: usize,
    how: Combine,
    rows: usize,
    /// Where the numbers lie, and how many are there.
    pub storage: Vec<(Storage, usize)>,
    /// The op it belongs to.
    pub op: &'static str,
    /// The layer it belongs to.
    pub scope: String,
}

impl PlannedExchange {
    pub(super) fn new(
        of: &Exchange,
        before: usize,
        storage: Vec<(Storage, usize)>,
        op: &'static str,
        scope: &str,
    ) -> Self {
        Self { before, how: of.how, rows: of.rows, storage, op, scope: scope.to_owned() }
    }

    /// What it is about: the same text on all ranks that are at the same place.
    pub fn about(&self) -> String {
        format!("{} of '{}'", self.op, self.scope)
    }

    /// What this rank sends to the others of its numbers, all tensors one behind the other.
    pub fn message(&self, own: &[f32]) -> Vec<u8> {
        [&(self.rows as u64).to_le_bytes()[..], bytemuck::cast_slice(own)].concat()
    }

    /// The numbers of all ranks, from the messages of each in the order of the ranks.
    ///
    /// # Errors
    /// [`Kind::Internal`] if a message is not about as many numbers as there are here.
    pub fn combined(&self, messages: &[Vec<u8>]) -> Result<Vec<f32>> {
        let numbers: usize = self.storage.iter().map(|&(_, elements)| elements).sum();
        let mut all: Vec<(f64, Vec<f32>)> = vec![];
        for (rank, message) in messages.iter().enumerate() {
            let parts = message.split_first_chunk::<8>();
            let (rows, rest) = parts.filter(|(_, rest)| rest.len() == numbers * size_of::<f32>()).ok_or_else(|| {
                Error::new(Kind::Internal, format!("rank {rank} sent other numbers than are expected")).at(self.about())
            })?;
            all.push((u64::from_le_bytes(*rows) as f64, bytemuck::pod_collect_to_vec(rest)));
        }
        Ok(match self.how {
            Combine::Sums => {
                (0..numbers).map(|i| all.iter().map(|(_, own)| f64::from(own[i])).sum::<f64>() as f32).collect()
            }
            Combine::Moments => moments(&all, numbers / 2),
        })
    }
}

/// Means, then sums of squared deviations, of all rows.
fn moments(all: &[(f64, Vec<f32>)], channels: usize) -> Vec<f32> {
    let (mut means, mut squares) = (vec![], vec![]);
    for c in 0..channels {
        let (mut count, mut mean, mut square) = (0.0, 0.0, 0.0);
        for (rows, own) in all.iter().filter(|(rows, _)| *rows > 0.0) {
            let (total, delta) = (count + rows, f64::from(own[c]) - mean);
            mean += delta * (rows / total);
            square += f64::from(own[channels + c]) + delta * delta * (count * rows / total);
            count = total;
        }
        means.push(mean as f32);
        squares.push(square as f32);
    }
    [means, squares].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(how: Combine, rows: usize, elements: &[usize]) -> PlannedExchange {
        let storage = elements.iter().enumerate().map(|(i, &n)| (Storage::Slot(i), n)).collect();
        let of = Exchange { before: 0, how, rows, operands: vec![] };
        PlannedExchange::new(&of, 3, storage, "batch_norm", "layer1.bn1")
    }

    #[test]
    fn moments_of_ranks_are_those_of_all_their_rows() {
        // Two channels; ranks with three, one and five rows, far from zero.
        let value = |row: usize, c: usize| 1000.0 + ((row * 37 + c * 11) % 17) as f64;
        let of = |rows: std::ops::Range<usize>| -> Vec<f64> {
            let n = rows.len() as f64;
            let mean = |c| rows.clone().map(|row| value(row, c)).sum::<f64>() / n;
            let square = |c| rows.clone().map(|row| (value(row, c) - mean(c)).powi(2)).sum::<f64>();
            vec![mean(0), mean(1), square(0), square(1)]
        };
        let messages: Vec<Vec<u8>> = [0..3, 3..4, 4..9]
            .into_iter()
            .map(|rows| {
                let own: Vec<f32> = of(rows.clone()).into_iter().map(|v| v as f32).collect();
                exchange(Combine::Moments, rows.len(), &[2, 2]).message(&own)
            })
            .collect();
        let got = exchange(Combine::Moments, 3, &[2, 2]).combined(&messages).unwrap();
        for (got, want) in got.into_iter().zip(of(0..9)) {
            assert!((f64::from(got) - want).abs() < 1e-5 * want, "{got} {want}");
        }
    }

    #[test]
    fn sums_are_sums_and_other_lengths_are_refused() {
        let sums = exchange(Combine::Sums, 2, &[3]);
        let messages = [sums.message(&[1.0, 2.0, f32::NAN]), sums.message(&[0.5, -2.0, 1.0])];
        let got = sums.combined(&messages).unwrap();
        assert_eq!(got[..2], [1.5, 0.0]);
        assert!(got[2].is_nan());
        let error = sums.combined(&[sums.message(&[1.0])]).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.to_string().contains("batch_norm of 'layer1.bn1'"), "{error}");
    }
}
