//! The outlines of a mask, as they are drawn.

use crate::metrics::{Contour, MaskView};

/// At most so many outlines are kept, the largest ones.
const MOST: usize = 32;

/// The closed outlines of what is inside a mask, those that enclose the most first, thinned by Douglas and Peucker's algorithm (1973)
/// so that no point that was left out is farther than `tolerance` pixels from what remains.
pub(super) fn outlines(mask: MaskView<'_>, tolerance: f64) -> Vec<Contour> {
    let mut found: Vec<(i64, Contour)> = mask.contours().into_iter().map(|ring| (area(&ring).abs(), ring)).collect();
    found.sort_by_key(|(area, _)| -area);
    found.truncate(MOST);
    found.into_iter().map(|(_, ring)| thinned(&ring, tolerance)).collect()
}

/// Twice the area, by the shoelace formula.
fn area(ring: &[[usize; 2]]) -> i64 {
    let at = |p: &[usize; 2]| p.map(|v| v as i64);
    let next = ring.iter().cycle().skip(1);
    ring.iter().zip(next).map(|(a, b)| (at(a), at(b))).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum()
}

fn thinned(ring: &[[usize; 2]], tolerance: f64) -> Contour {
    if ring.len() < 4 {
        return ring.to_vec();
    }
    // A ring is two lines: to the point that is farthest from the first, and back.
    let distance = |p: [usize; 2]| (0..2).map(|i| (p[i] as f64 - ring[0][i] as f64).powi(2)).sum::<f64>();
    let far = (0..ring.len()).max_by(|&a, &b| distance(ring[a]).total_cmp(&distance(ring[b]))).unwrap_or_default();
    let mut closed = ring.to_vec();
    closed.extend(ring.first());
    let mut keep = vec![false; closed.len()];
    let mut lines = vec![(0, far), (far, closed.len().saturating_sub(1))];
    while let Some((first, last)) = lines.pop() {
        for end in [first, last] {
            keep[end] = true;
        }
        let off = |i: usize| distance_to_line(closed[i], closed[first], closed[last]);
        let farthest = (first + 1..last).max_by(|&a, &b| off(a).total_cmp(&off(b)));
        if let Some(i) = farthest.filter(|&i| off(i) > tolerance) {
            lines.extend([(first, i), (i, last)]);
        }
    }
    keep.pop();
    closed.into_iter().zip(keep).filter_map(|(point, keep)| keep.then_some(point)).collect()
}

/// How far a point is from the line between two others.
fn distance_to_line(p: [usize; 2], a: [usize; 2], b: [usize; 2]) -> f64 {
    let [p, a, b] = [p, a, b].map(|p| p.map(|v| v as f64));
    let (d, e) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let length = d[0] * d[0] + d[1] * d[1];
    let along = if length > 0.0 { ((d[0] * e[0] + d[1] * e[1]) / length).clamp(0.0, 1.0) } else { 0.0 };
    (e[0] - along * d[0]).hypot(e[1] - along * d[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_first() {
        let rows = ["#.....", "..###.", "..#.#.", "..###."];
        let mask: Vec<bool> = rows.concat().chars().map(|c| c == '#').collect();
        let found = outlines(MaskView::new(&mask, 6).unwrap(), 0.0);
        let sizes: Vec<i64> = found.iter().map(|ring| area(ring).abs()).collect();
        assert_eq!(sizes, [18, 2, 2]);
        assert_eq!(found[0], [[2, 1], [5, 1], [5, 4], [2, 4]]);
        assert!(outlines(MaskView::new(&[false; 6], 3).unwrap(), 0.0).is_empty());
    }

    /// A disc: few points remain, none of the others is far from them, and the area hardly changes.
    #[test]
    fn thinning_keeps_the_shape() {
        let side = 200_usize;
        let inside = |i: usize| ((i % side) as f64 - 99.5).hypot((i / side) as f64 - 99.5) < 80.0;
        let mask: Vec<bool> = (0..side * side).map(inside).collect();
        let of = |tolerance| outlines(MaskView::new(&mask, side).unwrap(), tolerance);
        let (whole, thin) = (of(0.0), of(1.0));
        assert_eq!((whole.len(), thin.len()), (1, 1));
        assert_eq!(area(&whole[0]), 2 * mask.iter().filter(|&&m| m).count() as i64);
        assert!(4 * thin[0].len() < whole[0].len(), "{} {}", thin[0].len(), whole[0].len());
        let off = |&p: &[usize; 2]| {
            let next = thin[0].iter().cycle().skip(1);
            thin[0].iter().zip(next).map(|(&a, &b)| distance_to_line(p, a, b)).fold(f64::INFINITY, f64::min)
        };
        assert!(whole[0].iter().map(off).all(|off| off <= 1.0));
        let change = (area(&thin[0]) - area(&whole[0])).abs() as f64 / area(&whole[0]) as f64;
        assert!(change < 0.02, "{change}");
        // Of a line of three points the middle goes, however far apart the ends are.
        assert_eq!(thinned(&[[0, 0], [50, 0], [100, 0], [100, 9], [0, 9]], 1.0), [[0, 0], [100, 0], [100, 9], [0, 9]]);
    }

    /// As many outlines as a mask of this size can have: they are found in no time that anybody notices.
    #[test]
    fn specks_do_not_take_long() {
        let side = 600_usize;
        let mask: Vec<bool> =
            (0..side * side).map(|i| (i % side).is_multiple_of(2) && (i / side).is_multiple_of(2)).collect();
        let start = std::time::Instant::now();
        assert_eq!(outlines(MaskView::new(&mask, side).unwrap(), 1.0).len(), MOST);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}
