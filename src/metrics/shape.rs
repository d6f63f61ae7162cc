//! Shapes of lesions, from their masks: what of the ABCD rule (F. Nachbar et al., "The ABCD rule of dermatoscopy", 1994) can be
//! measured without colours, in pixels. They describe masks. They are no score of that rule and no diagnosis.

use serde::Serialize;

/// A mask, row by row.
#[derive(Debug, Clone, Copy)]
pub struct MaskView<'a> {
    inside: &'a [bool],
    width: usize,
}

/// The measures of the largest part of a mask.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// How many parts the mask has that touch nowhere, not even at corners.
    pub parts: usize,
    /// Pixels in the largest.
    pub area: usize,
    /// Length of its border and of those of its holes, as `skimage.measure.perimeter` estimates it (K. Benkrid, D. Crookes,
    /// "Design and FPGA implementation of a perimeter estimator", 2000).
    pub perimeter: f64,
    /// How irregular that border is: the square of its length by 4 pi times the area. About 1.1 for a disc, whose border the
    /// estimate makes a little too long, and more for other large shapes; of less than some hundred pixels it says little.
    pub border: f64,
    /// The share that is not covered by its own mirror image, along its long axis and along its short one, through its
    /// centre: 0 where both halves are alike.
    pub asymmetry: [f64; 2],
    /// The largest distance between two points of its border.
    pub diameter: f64,
}

/// A closed line along the edges of pixels: corners `[x, y]`, the first of which is not repeated.
pub type Contour = Vec<[usize; 2]>;

impl<'a> MaskView<'a> {
    /// A mask of rows of this width; none if these are not whole.
    pub fn new(inside: &'a [bool], width: usize) -> Option<Self> {
        (width > 0 && inside.len().is_multiple_of(width)).then_some(Self { inside, width })
    }

    fn height(self) -> usize {
        self.inside.len() / self.width
    }

    fn at(self, x: i64, y: i64) -> bool {
        let within = x >= 0 && y >= 0 && x < self.width as i64 && y < self.height() as i64;
        within && self.inside[y as usize * self.width + x as usize]
    }

    /// The share of its pixels that are inside; 0 of a mask without pixels.
    pub fn share(self) -> f64 {
        self.inside.iter().filter(|&&inside| inside).count() as f64 / self.inside.len().max(1) as f64
    }

    /// How many parts there are, and the pixels of the largest, the last of several. The others are not kept: they may be many.
    fn largest(self) -> (usize, Vec<usize>) {
        let mut seen = vec![false; self.inside.len()];
        let (mut parts, mut largest) = (0, vec![]);
        for first in 0..self.inside.len() {
            if !self.inside[first] || seen[first] {
                continue;
            }
            seen[first] = true;
            // Pixels whose neighbours were looked at lie before this place, the others behind it.
            let (mut part, mut looked) = (vec![first], 0);
            while let Some(&pixel) = part.get(looked) {
                looked += 1;
                let (x, y) = ((pixel % self.width) as i64, (pixel / self.width) as i64);
                for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
                    if self.at(x + dx, y + dy) {
                        let neighbour = (y + dy) as usize * self.width + (x + dx) as usize;
                        if !std::mem::replace(&mut seen[neighbour], true) {
                            part.push(neighbour);
                        }
                    }
                }
            }
            parts += 1;
            if part.len() >= largest.len() {
                largest = part;
            }
        }
        (parts, largest)
    }

    /// The measures of its largest part; none of an empty mask.
    pub fn shape(self) -> Option<Shape> {
        let (parts, largest) = self.largest();
        if largest.is_empty() {
            return None;
        }
        let mut own = vec![false; self.inside.len()];
        largest.iter().for_each(|&pixel| own[pixel] = true);
        let own = MaskView { inside: &own, width: self.width };
        let (area, perimeter) = (largest.len(), own.perimeter());
        Some(Shape {
            parts,
            area,
            perimeter,
            border: perimeter * perimeter / (4.0 * std::f64::consts::PI * area as f64),
            asymmetry: own.asymmetry(&largest),
            diameter: own.diameter(&largest),
        })
    }

    fn perimeter(self) -> f64 {
        // Border pixels have something outside beside them.
        let beside = [(1, 0), (-1, 0), (0, 1), (0, -1)];
        let border = |x: i64, y: i64| self.at(x, y) && beside.iter().any(|(dx, dy)| !self.at(x + dx, y + dy));
        let length = |pixel: usize| {
            let (x, y) = ((pixel % self.width) as i64, (pixel / self.width) as i64);
            if !border(x, y) {
                return 0.0;
            }
            let count = |near: &[(i64, i64)]| near.iter().filter(|(dx, dy)| border(x + dx, y + dy)).count();
            let (straight, diagonal) = (count(&beside), count(&[(1, 1), (-1, 1), (1, -1), (-1, -1)]));
            match 1 + 2 * straight + 10 * diagonal {
                5 | 7 | 15 | 17 | 25 | 27 => 1.0,
                21 | 33 => std::f64::consts::SQRT_2,
                13 | 23 => (1.0 + std::f64::consts::SQRT_2) / 2.0,
                _ => 0.0,
            }
        };
        (0..self.inside.len()).map(length).sum()
    }

    /// The share of a part that its mirror images do not cover.
    fn asymmetry(self, part: &[usize]) -> [f64; 2] {
        let points = || part.iter().map(|&pixel| [(pixel % self.width) as f64, (pixel / self.width) as f64]);
        let count = part.len() as f64;
        let centre = [0, 1].map(|axis| points().map(|p| p[axis]).sum::<f64>() / count);
        let moment = |a: usize, b: usize| points().map(|p| (p[a] - centre[a]) * (p[b] - centre[b])).sum::<f64>();
        // The direction in which the part is longest.
        let angle = 0.5 * (2.0 * moment(0, 1)).atan2(moment(0, 0) - moment(1, 1));
        let uncovered = |angle: f64| {
            let (sin, cos) = (2.0 * angle).sin_cos();
            let open = points().filter(|p| {
                let [x, y] = [p[0] - centre[0], p[1] - centre[1]];
                let mirrored = [centre[0] + cos * x + sin * y, centre[1] + sin * x - cos * y];
                !self.at(mirrored[0].round() as i64, mirrored[1].round() as i64)
            });
            open.count() as f64 / count
        };
        [angle, angle + std::f64::consts::FRAC_PI_2].map(uncovered)
    }

    /// The largest distance between corners of a part's pixels.
    fn diameter(self, part: &[usize]) -> f64 {
        // Of each row only the outermost corners can be the ends.
        let mut rows = vec![[i64::MAX, i64::MIN]; self.height() + 1];
        for &pixel in part {
            let (x, y) = ((pixel % self.width) as i64, pixel / self.width);
            for ends in &mut rows[y..y + 2] {
                *ends = [ends[0].min(x), ends[1].max(x + 1)];
            }
        }
        let rows = rows.into_iter().zip(0_i64..).filter(|([left, right], _)| left < right);
        let hull = hull(rows.flat_map(|([left, right], y)| [[left, y], [right, y]]).collect());
        let square = |a: [i64; 2], b: [i64; 2]| (a[0] - b[0]).pow(2) + (a[1] - b[1]).pow(2);
        let pairs = hull.iter().enumerate().flat_map(|(i, &a)| hull[i..].iter().map(move |&b| square(a, b)));
        (pairs.max().unwrap_or(0) as f64).sqrt()
    }

    /// The borders: around each part with the inside to the right, around each hole to the right as well. Parts that touch at
    /// corners only have borders of their own.
    pub fn contours(self) -> Vec<Contour> {
        // The edges that begin at each corner, a bit for each direction: the inside lies to the right of each.
        let (width, height) = (self.width, self.height());
        let mut edges = vec![0_u8; (width + 1) * (height + 1)];
        let corner = |x: usize, y: usize| y * (width + 1) + x;
        for pixel in (0..self.inside.len()).filter(|&pixel| self.inside[pixel]) {
            let (x, y) = (pixel % width, pixel / width);
            let (sx, sy) = (x as i64, y as i64);
            let sides = [
                (self.at(sx, sy - 1), corner(x, y)),
                (self.at(sx + 1, sy), corner(x + 1, y)),
                (self.at(sx, sy + 1), corner(x + 1, y + 1)),
                (self.at(sx - 1, sy), corner(x, y + 1)),
            ];
            for (direction, (covered, from)) in sides.into_iter().enumerate() {
                edges[from] |= u8::from(!covered) << direction;
            }
        }
        let mut contours = vec![];
        for start in 0..edges.len() {
            while edges[start] != 0 {
                let (mut contour, mut at, mut heading) = (vec![], start, edges[start].trailing_zeros() as usize);
                // To the right first: where two parts touch at a corner, that keeps to one of them.
                while let Some(next) =
                    [1, 0, 3].iter().map(|turn| (heading + turn) % 4).find(|d| edges[at] & 1 << d != 0)
                {
                    edges[at] &= !(1 << next);
                    if next != heading || contour.is_empty() {
                        contour.push([at % (width + 1), at / (width + 1)]);
                    }
                    heading = next;
                    at = [at + 1, at + width + 1, at.wrapping_sub(1), at.wrapping_sub(width + 1)][next];
                    if at == start {
                        break;
                    }
                }
                contours.push(contour);
            }
        }
        contours
    }
}

/// The convex hull of points (A. M. Andrew, "Another efficient algorithm for convex hulls in two dimensions", 1979).
fn hull(mut points: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    points.sort_unstable();
    points.dedup();
    let half = |points: &mut dyn Iterator<Item = [i64; 2]>| {
        let mut line: Vec<[i64; 2]> = vec![];
        for c in points {
            while let [.., a, b] = line[..]
                && (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])
            {
                line.pop();
            }
            line.push(c);
        }
        line.pop();
        line
    };
    let (below, above) = (half(&mut points.iter().copied()), half(&mut points.iter().rev().copied()));
    if points.len() < 3 { points } else { [below, above].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> (Vec<bool>, usize) {
        (rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect(), rows[0].len())
    }

    fn drawn(width: usize, height: usize, inside: impl Fn(f64, f64) -> bool) -> Vec<bool> {
        (0..height).flat_map(|y| (0..width).map(move |x| (x as f64, y as f64))).map(|(x, y)| inside(x, y)).collect()
    }

    #[test]
    fn a_disc_is_round_and_like_itself() {
        let inside = drawn(101, 101, |x, y| (x - 50.0).hypot(y - 50.0) <= 40.0);
        let shape = MaskView::new(&inside, 101).unwrap().shape().unwrap();
        assert!((1.0..1.15).contains(&shape.border), "{shape:?}");
        assert!((80.0..82.5).contains(&shape.diameter), "{shape:?}");
        assert_eq!((shape.parts, shape.asymmetry), (1, [0.0; 2]));
        assert!((1.0..1.06).contains(&(shape.perimeter / (2.0 * std::f64::consts::PI * 40.0))), "{shape:?}");
    }

    #[test]
    fn half_a_disc_is_like_itself_across_one_axis_only() {
        let inside = drawn(101, 101, |x, y| (x - 50.0).hypot(y - 50.0) <= 40.0 && y <= 50.0);
        let shape = MaskView::new(&inside, 101).unwrap().shape().unwrap();
        let [long, short] = shape.asymmetry;
        assert!(long > 0.15 && short == 0.0, "{shape:?}");
        assert!(shape.border > 1.2 && (81.0..82.5).contains(&shape.diameter), "{shape:?}");
        // Turned, it is the same.
        let turned = drawn(141, 141, |x, y| {
            let (x, y) = (x - 70.0, y - 70.0);
            x.hypot(y) <= 40.0 && x + y <= 0.0
        });
        let turned = MaskView::new(&turned, 141).unwrap().shape().unwrap();
        assert!((turned.asymmetry[0] - long).abs() < 0.05 && turned.asymmetry[1] < 0.03, "{turned:?} {shape:?}");
    }

    /// `regionprops` of scikit-image 0.26 says so of these.
    #[test]
    fn perimeters_are_those_of_scikit_image() {
        let (inside, width) = mask(&["........", ".####...", ".######.", "..####..", "...##...", "........"]);
        let shape = MaskView::new(&inside, width).unwrap().shape().unwrap();
        assert_eq!(shape.area, 16);
        assert!((shape.perimeter - 12.65685424949238).abs() < 1e-9, "{}", shape.perimeter);
        let disc = |x: f64, y: f64| (x - 50.0).hypot(y - 50.0) <= 40.0;
        // Area, perimeter, largest distance on the outline.
        for (half, [area, perimeter, diameter]) in
            [(false, [5025.0, 263.7645019878171, 81.54]), (true, [2553.0, 211.46803743153544, 81.10])]
        {
            let inside = drawn(101, 101, |x, y| disc(x, y) && (!half || y <= 50.0));
            let shape = MaskView::new(&inside, 101).unwrap().shape().unwrap();
            assert_eq!(shape.area as f64, area);
            assert!((shape.perimeter - perimeter).abs() < 1e-9, "{shape:?}");
            // Ours is between corners of pixels, that of scikit-image between middles of sides, of the convex hull.
            assert!((shape.diameter - diameter).abs() < 1.0, "{shape:?}");
        }
    }

    #[test]
    fn only_the_largest_part_is_measured() {
        let (inside, width) = mask(&["#...", "..##", "..##"]);
        let view = MaskView::new(&inside, width).unwrap();
        let shape = view.shape().unwrap();
        assert_eq!((shape.parts, shape.area), (2, 4));
        assert!((shape.diameter - 8_f64.sqrt()).abs() < 1e-12);
        assert_eq!(MaskView::new(&[false; 4], 2).unwrap().shape(), None);
        assert!(MaskView::new(&inside, 5).is_none());
        let one = MaskView::new(&[true], 1).unwrap().shape().unwrap();
        assert!((one.diameter - 2_f64.sqrt()).abs() < 1e-12 && one.border.is_finite());
    }

    #[test]
    fn contours_enclose_what_is_inside() {
        let (inside, width) = mask(&["###.", "#.#.", "####", "...#", "#..."]);
        let view = MaskView::new(&inside, width).unwrap();
        let contours = view.contours();
        // Twice the area, positive around parts, negative around holes.
        let area = |c: &Contour| {
            let sides = c.iter().zip(c.iter().cycle().skip(1));
            sides.map(|(a, b)| a[0] as i64 * b[1] as i64 - b[0] as i64 * a[1] as i64).sum::<i64>()
        };
        let mut areas: Vec<i64> = contours.iter().map(area).collect();
        areas.sort_unstable();
        assert_eq!(areas, [-2, 2, 22], "{contours:?}");
        assert!(contours.contains(&vec![[0, 4], [1, 4], [1, 5], [0, 5]]), "{contours:?}");
        let (inside, width) = mask(&["#.", ".#"]);
        assert_eq!(MaskView::new(&inside, width).unwrap().contours().len(), 2);
        assert_eq!(MaskView::new(&[], 3).unwrap().contours(), Vec::<Contour>::new());
    }
}
