//! Attention rollout (Abnar and Zuidema, 2020, section 3): how much of each token there is in the class token at the end, if
//! attention were all that mixes tokens.

/// Of the `blocks`' attention, each `[heads, T, T]` with rows that sum to one, how much of each token but the first is in the
/// first token of the last block: `[T - 1]`.
///
/// Attention is the mean over the heads. Half of what goes through a block goes beside it, so its matrix is
/// `(A + I) / 2`, with rows that sum to one. The matrices are multiplied, and the row of the first token counts. Only that row
/// is computed, from the last block down.
pub(super) fn rollout(blocks: &[&[f32]], heads: usize, tokens: usize) -> Vec<f32> {
    let mut row = vec![0.0; tokens];
    if let Some(first) = row.first_mut() {
        *first = 1.0;
    }
    for attention in blocks.iter().rev() {
        let mut next = vec![0.0; tokens];
        for (from, &share) in row.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let mut mixed = vec![0.0; tokens];
            mixed[from] = 0.5;
            for head in attention.chunks_exact(tokens * tokens) {
                let part = &head[from * tokens..][..tokens];
                mixed.iter_mut().zip(part).for_each(|(m, &a)| *m += 0.5 * f64::from(a) / heads as f64);
            }
            let sum: f64 = mixed.iter().sum();
            next.iter_mut().zip(&mixed).for_each(|(next, m)| *next += share * m / sum);
        }
        row = next;
    }
    row.into_iter().skip(1).map(|share| share as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens and the class token, two blocks, multiplied out.
    #[test]
    fn rows_of_the_product_by_hand() {
        // The mean of two heads.
        let first: Vec<f32> = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
            .concat()
            .into_iter()
            .chain([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]].concat())
            .collect();
        let second: Vec<f32> = [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]].concat().repeat(2);
        // Last block: the class token has 3/4 of itself and 1/4 of token 1. First block: (A + I) / 2 of the mean is, by
        // rows, [3/4, 0, 1/4], [0, 3/4, 1/4], [0, 1/4, 3/4].
        let want = [0.25 * 0.75, 0.75 * 0.25 + 0.25 * 0.25];
        assert_eq!(rollout(&[&first, &second], 2, 3), want);
        // The order counts.
        assert_ne!(rollout(&[&second, &first], 2, 3), want);
        assert_eq!(rollout(&[], 2, 3), [0.0, 0.0]);
    }
}
