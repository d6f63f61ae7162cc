//! Charts as SVG: lines, bars, matrices and the diagram of calibration.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Kind, Result};
use crate::metrics::CalibrationBin;

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that can be told apart whatever eyes one has (Okabe, Ito, "Color universal design", 2008), without yellow, which is
/// hard to see on white.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];
const GRAY: RGBColor = RGBColor(150, 150, 150);
const FONT: &str = "sans-serif";

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&root)).and_then(|()| Ok(root.present()?))
    };
    drawn.map_err(|e| Error::new(Kind::Internal, format!("a chart could not be drawn: {e}")))?;
    Ok(text)
}

/// A line through points, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

/// What is around lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Axes {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// Both axes go from 0 to 1; else as far as the lines do.
    pub unit: bool,
    /// A diagonal, which is what chance does.
    pub diagonal: bool,
    /// A place along x to be marked, and why.
    pub mark: Option<(f64, &'static str)>,
    /// Ticks along x are whole numbers.
    pub whole: bool,
}

/// Lower and upper end of values, a little apart.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match low < high {
        true => low - 0.04 * (high - low)..high + 0.04 * (high - low),
        // A single value, or none.
        false if low.is_finite() => low - 0.5..low + 0.5,
        false => 0.0..1.0,
    }
}

/// Lines; a line of one point is drawn as a dot.
pub(super) fn lines(axes: &Axes, lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|p| p.iter().all(|v| v.is_finite()));
    let (x, y) = match axes.unit {
        true => (-0.01..1.01, -0.01..1.01),
        false => {
            let y = range(points().map(|p| p[1]));
            // Above the lines there is room for their names.
            let room = 0.07 * (lines.len() + 1) as f64 * (y.end - y.start);
            (range(points().map(|p| p[0])), y.start..y.end + room)
        }
    };
    let size = if axes.unit { (480, 440) } else { (560, 380) };
    svg(size, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .caption(axes.title, (FONT, 17))
            .x_label_area_size(38)
            .y_label_area_size(58)
            .build_cartesian_2d(x.clone(), y.clone())?;
        // Between whole numbers there is no tick.
        let whole = |v: &f64| if (v - v.round()).abs() < 1e-6 { format!("{v:.0}") } else { String::new() };
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE.mix(0.0)).x_desc(axes.x).y_desc(axes.y).label_style((FONT, 12)).x_labels(6);
        if axes.whole {
            mesh.x_label_formatter(&whole);
        }
        mesh.draw()?;
        if axes.diagonal {
            chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 4, 4, GRAY.into()))?;
        }
        if let Some((at, why)) = axes.mark.filter(|(at, _)| x.contains(at)) {
            chart
                .draw_series(DashedLineSeries::new([(at, y.start), (at, y.end)], 4, 4, GRAY.into()))?
                .label(why)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], GRAY));
        }
        for (number, line) in lines.iter().enumerate() {
            let colour = colour(number);
            let finite = line.points.iter().filter(|p| p.iter().all(|v| v.is_finite()));
            let points: Vec<(f64, f64)> = finite.map(|p| (p[0], p[1])).collect();
            let style = colour.stroke_width(2);
            let drawn = match points[..] {
                [point] => chart.draw_series([Circle::new(point, 3, colour.filled())])?,
                _ => chart.draw_series(LineSeries::new(points, style))?,
            };
            drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
        }
        if lines.len() > 1 || axes.mark.is_some() {
            let place = if axes.diagonal { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
            let box_style = WHITE.mix(0.85);
            chart
                .configure_series_labels()
                .position(place)
                .background_style(box_style)
                .label_font((FONT, 12))
                .draw()?;
        }
        Ok(())
    })
}

/// Bars in groups: a name and a value of each kind.
pub(super) fn bars(title: &str, y: &str, kinds: &[&str], groups: &[(String, Vec<f64>)]) -> Result<String> {
    let top = groups.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    // Above the bars there is room for the names of the kinds.
    let room = if kinds.len() > 1 { 1.05 + 0.09 * kinds.len() as f64 } else { 1.05 };
    let top = if top > 0.0 { room * top } else { 1.0 };
    let count = groups.len().max(1) as f64;
    let width = 140 + 64 * groups.len().max(4) as u32;
    svg((width.min(1400), 360), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .caption(title, (FONT, 17))
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..count, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .light_line_style(WHITE.mix(0.0))
            .y_desc(y)
            .label_style((FONT, 12))
            .draw()?;
        let share = 0.8 / kinds.len().max(1) as f64;
        for (kind, name) in kinds.iter().enumerate() {
            let colour = colour(kind);
            let bar = |(group, (_, values)): (usize, &(String, Vec<f64>))| {
                let left = group as f64 + 0.1 + kind as f64 * share;
                let value = values.get(kind).copied().filter(|v| v.is_finite()).unwrap_or(0.0);
                Rectangle::new([(left, 0.0), (left + share, value)], colour.filled())
            };
            let drawn = chart.draw_series(groups.iter().enumerate().map(bar))?;
            drawn.label(*name).legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        }
        if kinds.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.85)).label_font((FONT, 12));
            labels.draw()?;
        }
        for (group, (name, _)) in groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            let style = centred(12, BLACK);
            root.draw(&Text::new(short(name, 12), (x, y + 14), style))?;
        }
        Ok(())
    })
}

fn centred(size: u32, colour: RGBColor) -> TextStyle<'static> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    (FONT, size).into_font().color(&colour).pos(Pos::new(HPos::Center, VPos::Center))
}

/// At most so many letters of a name.
fn short(name: &str, most: usize) -> String {
    match name.chars().count() <= most {
        true => name.to_owned(),
        false => name.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// A confusion matrix: a row per true class, a column per predicted class. The darker a cell, the larger its share of the row;
/// its text is what `text` makes of a count and that share.
pub(super) fn confusion(
    title: &str,
    classes: &[String],
    counts: &[Vec<u64>],
    text: &dyn Fn(u64, f64) -> String,
) -> Result<String> {
    let (side, left, top) = (58, 110, 64);
    let count = classes.len() as i32;
    svg(((left + side * count + 16) as u32, (top + side * count + 56) as u32), |root| {
        let middle = left + side * count / 2;
        root.draw(&Text::new(title.to_owned(), (middle, 20), centred(17, BLACK)))?;
        for (row, counts) in counts.iter().enumerate() {
            let (sum, y) = (counts.iter().sum::<u64>(), top + row as i32 * side);
            for (column, &count) in counts.iter().enumerate() {
                let share = if sum > 0 { count as f64 / sum as f64 } else { 0.0 };
                let x = left + column as i32 * side;
                // From white to the blue of the first line.
                let shade = |channel: u8| (255.0 - share * (255.0 - f64::from(channel))).round() as u8;
                let RGBColor(r, g, b) = COLOURS[0];
                let fill = RGBColor(shade(r), shade(g), shade(b));
                root.draw(&Rectangle::new([(x, y), (x + side, y + side)], fill.filled()))?;
                root.draw(&Rectangle::new([(x, y), (x + side, y + side)], GRAY.stroke_width(1)))?;
                let ink = if share > 0.5 { WHITE } else { BLACK };
                root.draw(&Text::new(text(count, share), (x + side / 2, y + side / 2), centred(13, ink)))?;
            }
            let name = short(&classes[row], 12);
            root.draw(&Text::new(name.clone(), (left / 2 + 8, y + side / 2), centred(12, BLACK)))?;
            let x = left + row as i32 * side + side / 2;
            root.draw(&Text::new(short(&name, 9), (x, top - 12), centred(12, BLACK)))?;
        }
        let below = top + side * count + 24;
        root.draw(&Text::new("rows: true class, columns: predicted class", (middle, below), centred(12, BLACK)))?;
        Ok(())
    })
}

/// How often pictures are answered rightly, by the largest probability: on the diagonal where probabilities mean what they say.
pub(super) fn calibration(bins: &[CalibrationBin]) -> Result<String> {
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1) as f64;
    let width = 1.0 / bins.len().max(1) as f64;
    svg((480, 440), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .caption("Calibration", (FONT, 17))
            .x_label_area_size(38)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE.mix(0.0)).label_style((FONT, 12)).x_labels(6);
        mesh.x_desc("largest probability").y_desc("share answered rightly").draw()?;
        let filled = || bins.iter().enumerate().filter(|(_, bin)| bin.images > 0);
        let share = |(number, bin): (usize, &CalibrationBin)| {
            let left = number as f64 * width;
            Rectangle::new([(left, 0.0), (left + width, bin.images as f64 / most)], GRAY.mix(0.25).filled())
        };
        let drawn = chart.draw_series(filled().map(share))?;
        let legend = |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], GRAY.mix(0.4).filled());
        drawn.label("pictures (largest bin = 1)").legend(legend);
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 4, 4, GRAY.into()))?;
        let points: Vec<(f64, f64)> = filled().map(|(_, bin)| (bin.confidence, bin.accuracy)).collect();
        let drawn = chart.draw_series(LineSeries::new(points.clone(), COLOURS[0].stroke_width(2)))?;
        drawn.label("answered rightly").legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], COLOURS[0]));
        chart.draw_series(points.into_iter().map(|p| Circle::new(p, 4, COLOURS[0].filled())))?;
        let labels = &mut chart.configure_series_labels();
        labels
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .label_font((FONT, 12))
            .draw()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_drawn_of_much_and_of_nothing() {
        let line = |name: &str, points: &[[f64; 2]]| Line { name: name.into(), points: points.to_vec() };
        let axes = Axes { title: "loss", x: "epoch", y: "loss", mark: Some((2.0, "best epoch")), ..Axes::default() };
        let all =
            [line("train", &[[1.0, 3.0], [2.0, 2.0], [3.0, 1.5]]), line("validation", &[[1.0, f64::NAN], [2.0, 2.5]])];
        let text = lines(&axes, &all).unwrap();
        assert!(text.starts_with("<svg") && text.contains("validation") && text.contains("best epoch"), "{text}");
        assert!(lines(&axes, &[line("one", &[[1.0, 1.0]])]).unwrap().contains("<circle"));
        lines(&Axes { unit: true, diagonal: true, ..axes.clone() }, &[]).unwrap();
        let names = ["nv".to_owned(), "a rather long name".to_owned()];
        let text = confusion("counts", &names, &[vec![3, 1], vec![0, 0]], &|n, _| n.to_string()).unwrap();
        assert!(text.contains("a rather lo…") && text.matches("<rect").count() >= 9, "{text}");
        assert!(bars("F1", "F1", &["f1"], &[]).unwrap().contains("</svg>"));
        let text = bars("F1", "F1", &["recall", "f1"], &[("nv".into(), vec![0.5, f64::NAN])]).unwrap();
        assert!(text.contains("recall") && text.contains("nv"));
        let bin = CalibrationBin { images: 4, confidence: 0.8, accuracy: 0.5 };
        assert!(calibration(&[CalibrationBin { images: 0, ..bin }, bin]).unwrap().contains("<circle"));
    }
}
