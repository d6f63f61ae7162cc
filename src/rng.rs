//! Counter-based random numbers: Threefry-2x32 with 20 rounds.
//!
//! Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
//! section 4.1. A counter-based generator has no state: number `i` of a stream is a pure function of
//! `(seed, stream, i)`. So the count of workers, the batch size or a resumed run cannot change what is drawn,
//! and the same function exists in WGSL (`shaders/lib/random.wgsl`) and in the script that makes the goldens.

const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
/// Key-schedule parity of Threefish with 32-bit words (the paper's `C240`, truncated).
const PARITY: u32 = 0x1BD1_1BDA;

/// Threefry-2x32-20: two words of output for a two-word key and a two-word counter.
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let ks = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(ks[0]), counter[1].wrapping_add(ks[1])];
    for group in 0..5u32 {
        for i in 0..4 {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(ROTATIONS[((group % 2) * 4 + i) as usize]) ^ x[0];
        }
        let g = group as usize + 1;
        x[0] = x[0].wrapping_add(ks[g % 3]);
        x[1] = x[1].wrapping_add(ks[(g + 1) % 3]).wrapping_add(group + 1);
    }
    x
}

/// A stream of random numbers, addressed by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// Stream number `stream` of `seed`. Streams of one seed are independent of each other.
    pub fn new(seed: u32, stream: u32) -> Self {
        Self { key: [seed, stream] }
    }

    /// A stream named by a text (a parameter's name, say): its number is the text's 32-bit FNV-1a hash.
    pub fn named(seed: u32, name: &str) -> Self {
        let hash = name.bytes().fold(0x811C_9DC5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Self::new(seed, hash)
    }

    /// The key words, for a shader that draws from the same stream.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Two random words at `counter`.
    pub fn words(&self, counter: [u32; 2]) -> [u32; 2] {
        threefry2x32(self.key, counter)
    }

    /// Number `i`, uniform in [0, 1) with 24 bits.
    pub fn uniform(&self, i: u64) -> f32 {
        unit(self.words([i as u32, (i >> 32) as u32])[0])
    }

    /// Number `i`, standard normal (Box-Muller on the two words at `i`, computed in f64).
    pub fn normal(&self, i: u64) -> f32 {
        let [a, b] = self.words([i as u32, (i >> 32) as u32]);
        // (a + 1/2) / 2^32 lies strictly inside (0, 1), so the logarithm is finite.
        let u1 = (f64::from(a) + 0.5) / 4_294_967_296.0;
        let u2 = (f64::from(b) + 0.5) / 4_294_967_296.0;
        ((-2.0 * u1.ln()).sqrt() * (std::f64::consts::TAU * u2).cos()) as f32
    }

    /// A permutation of `0..n` (Fisher-Yates, one draw an element from counter `(i, round)`).
    pub fn permutation(&self, n: usize, round: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let word = self.words([i as u32, round])[0];
            let j = ((u64::from(word) * (i as u64 + 1)) >> 32) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// A word as a number in [0, 1): its top 24 bits, which f32 holds exactly.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the reference implementation of the paper (Random123 `kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry2x32([!0, !0], [!0, !0]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn permutation_holds_every_index_once_and_changes_by_round() {
        let stream = Stream::new(1, 2);
        let mut p = stream.permutation(100, 0);
        assert_ne!(p, stream.permutation(100, 1));
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn moments() {
        let s = Stream::named(7, "x");
        let n = 20_000;
        let mean = (0..n).map(|i| f64::from(s.normal(i))).sum::<f64>() / n as f64;
        let var = (0..n).map(|i| f64::from(s.normal(i)).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }
}
