//! Draws a training.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line as Row, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph};

use super::view::{View, mean};
use crate::cli::style::LineKind;

/// Below these there is room for words only.
const LEAST: (u16, u16) = (44, 14);
/// From this width on both charts are beside each other.
const WIDE: u16 = 90;

/// Colours, or none where `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    colours: bool,
}

impl Palette {
    /// As the environment asks (no-color.org).
    pub fn of_environment() -> Self {
        Self { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn of(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }
}

/// A curve: its name, points, colour, and marker, which tells curves apart without colours.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    colour: Color,
    marker: Marker,
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, palette: Palette) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = view.work.as_ref().map_or(String::new(), |work| {
            format!("{} {}/{}\n{}", work.title, work.done, work.total, work.about.join("\n"))
        });
        return frame.render_widget(Paragraph::new(text), area);
    }
    let told = (area.height / 3).clamp(4, 14);
    let rows = [1, 0, 1, 1, 1, told, 1].map(|rows| match rows {
        0 => Constraint::Min(6),
        rows => Constraint::Length(rows),
    });
    let [title, charts, now, run, about, lines, keys] = Layout::vertical(rows).areas(area);
    frame.render_widget(self::title(view), title);
    draw_charts(frame, view, palette, charts);
    draw_progress(frame, view, palette, [now, run, about]);
    draw_lines(frame, view, palette, lines);
    frame.render_widget(Paragraph::new(footer(view, area.width)).style(Style::new().add_modifier(Modifier::DIM)), keys);
}

fn title(view: &View) -> Paragraph<'_> {
    let config = &view.config;
    let data = std::path::Path::new(&config.data).file_name();
    let data = data.map_or_else(|| config.data.clone(), |name| name.to_string_lossy().into_owned());
    let text = format!("lesion-gpu train  {} on {data}, {} pixels, batch {}", config.model, config.size, config.batch);
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD))
}

fn footer(view: &View, width: u16) -> String {
    if view.stopping {
        return "stopping after this step; q once more to leave at once".to_owned();
    }
    let scale = if view.logarithmic { "linear" } else { "logarithmic" };
    let other = if width < WIDE { "   Tab other chart" } else { "" };
    format!("q stop and save   l {scale} loss{other}")
}

fn draw_charts(frame: &mut Frame<'_>, view: &View, palette: Palette, area: Rect) {
    let loss = |frame: &mut Frame<'_>, area: Rect| {
        let curves = vec![
            Curve {
                name: "train loss".into(),
                points: binned(&view.losses, usize::from(area.width.saturating_sub(10)).max(1)),
                colour: Color::Cyan,
                marker: Marker::Braille,
            },
            Curve {
                name: "val loss".into(),
                points: view.val_loss.clone(),
                colour: Color::Yellow,
                marker: Marker::Dot,
            },
        ];
        // Losses fall and scores rise: each legend is where its curves are not.
        chart(frame, area, ("loss", LegendPosition::TopRight), curves, view, palette, view.logarithmic);
    };
    let score = |frame: &mut Frame<'_>, area: Rect| {
        let curves = vec![
            Curve {
                name: "train accuracy".into(),
                points: view.train_accuracy.clone(),
                colour: Color::Cyan,
                marker: Marker::Braille,
            },
            Curve {
                name: format!("val {}", view.config.monitor),
                points: view.val_score.clone(),
                colour: Color::Yellow,
                marker: Marker::Dot,
            },
        ];
        chart(frame, area, ("scores", LegendPosition::BottomRight), curves, view, palette, false);
    };
    if area.width >= WIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
        loss(frame, left);
        score(frame, right);
    } else if view.other {
        score(frame, area);
    } else {
        loss(frame, area);
    }
}

/// The means of at most so many spans of points.
fn binned(points: &[(f64, f64)], bins: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(bins).max(1);
    points.chunks(size).map(mean).collect()
}

fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, legend): (&str, LegendPosition),
    mut curves: Vec<Curve>,
    view: &View,
    palette: Palette,
    logarithmic: bool,
) {
    // Across: epochs.
    let epoch = view.steps as f64;
    for curve in &mut curves {
        curve.points.retain(|p| p.1.is_finite() && (!logarithmic || p.1 > 0.0));
        curve.points.iter_mut().for_each(|p| *p = (p.0 / epoch, if logarithmic { p.1.log10() } else { p.1 }));
    }
    curves.retain(|curve| !curve.points.is_empty());
    let block = Block::bordered().title(format!(" {title} ")).border_style(Style::new().add_modifier(Modifier::DIM));
    if curves.is_empty() {
        return frame.render_widget(Paragraph::new("nothing to show yet").block(block).centered(), area);
    }
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let right = all().map(|p| p.0).fold(view.step.0 as f64 / epoch, f64::max);
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let margin = ((high - low) * 0.05).max(1e-3);
    let (low, high) = (low - margin, high + margin);
    let number = |v: f64| if logarithmic { format!("{:.3}", 10f64.powf(v)) } else { format!("{v:.3}") };
    let datasets = curves.iter().map(|curve| {
        Dataset::default()
            .name(curve.name.clone())
            .marker(curve.marker)
            .graph_type(GraphType::Line)
            .style(palette.of(curve.colour))
            .data(&curve.points)
    });
    let across = Axis::default()
        .bounds([0.0, right])
        .labels([0.0, right / 2.0, right].map(|v| format!("{v:.1}")))
        .title("epochs");
    let up = Axis::default().bounds([low, high]).labels([low, f64::midpoint(low, high), high].map(number));
    let chart = Chart::new(datasets.collect())
        .block(block)
        .x_axis(across)
        .y_axis(up)
        .legend_position(Some(legend))
        .hidden_legend_constraints((Constraint::Percentage(60), Constraint::Percentage(50)));
    frame.render_widget(chart, area);
}

fn draw_progress(frame: &mut Frame<'_>, view: &View, palette: Palette, [now, run, about]: [Rect; 3]) {
    let gauge = |label: String, done: f64, all: f64, colour: Color| {
        let ratio = if all > 0.0 { (done / all).clamp(0.0, 1.0) } else { 0.0 };
        LineGauge::default()
            .label(format!("{label:<28}"))
            .ratio(ratio)
            .filled_style(palette.of(colour))
            .filled_symbol("━")
            .unfilled_symbol("─")
    };
    if let Some(work) = &view.work {
        let label = format!("{:>10} {}/{}", work.title, work.done, work.total);
        frame.render_widget(gauge(label, work.done as f64, work.total as f64, Color::Green), now);
        frame.render_widget(Paragraph::new(format!("{:>10} {}", "", work.about.join(", "))), about);
    }
    let (step, last) = view.step;
    if last > 0 {
        let label = format!("{:>10} {step}/{last}", "run, step");
        frame.render_widget(gauge(label, step as f64, last as f64, Color::Blue), run);
    }
}

fn draw_lines(frame: &mut Frame<'_>, view: &View, palette: Palette, area: Rect) {
    let block = Block::bordered().border_style(Style::new().add_modifier(Modifier::DIM));
    let room = usize::from(area.height.saturating_sub(2));
    let latest = view.lines.iter().skip(view.lines.len().saturating_sub(room));
    let row = |line: &crate::cli::style::Line| {
        let colour = match line.kind {
            LineKind::Plain => Color::Cyan,
            LineKind::Note => Color::Yellow,
            LineKind::Best => Color::Green,
        };
        Row::from(vec![Span::styled(format!("{:<8} ", line.label), palette.of(colour)), Span::raw(line.text.clone())])
    };
    frame.render_widget(Paragraph::new(latest.map(row).collect::<Vec<_>>()).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    use super::*;
    use crate::cli::narration::Work;
    use crate::cli::style::Line;
    use crate::train::TrainConfig;

    fn view() -> View {
        let config = TrainConfig { data: "/d/HAM10000.zip".into(), ..TrainConfig::default() };
        let mut view = View::new(&config, vec![Line::new("device", "a device"), Line::note("a note")]);
        view.steps = 10;
        view.step = (25, 100);
        view.losses = (1..=25).map(|step| (f64::from(step), 2.0 / f64::from(step))).collect();
        view.val_loss = vec![(10.0, 0.4), (20.0, 0.2)];
        view.val_score = vec![(10.0, 0.5), (20.0, 0.75)];
        view.work = Some(Work { title: "epoch 3".into(), done: 5, total: 10, about: vec!["loss 0.0800".into()] });
        view
    }

    fn drawn(view: &View, size: (u16, u16), colours: bool) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, view, Palette { colours })).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let rows = buffer.content.chunks(buffer.area.width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn all_of_it_is_on_the_screen() {
        let shown = text(&drawn(&view(), (120, 30), true));
        for what in [
            "HAM10000.zip",
            "train loss",
            "val loss",
            "val balanced-accuracy",
            "epoch 3 5/10",
            "25/100",
            "loss 0.0800",
            "a device",
            "a note",
            "q stop",
            "2.5",
        ] {
            assert!(shown.contains(what), "{what}:\n{shown}");
        }
        assert!(!shown.contains("nothing to show yet"), "{shown}");
        // Lower losses are lower on the screen: the curve begins above and ends below.
        let dots = |rows: std::ops::Range<usize>| {
            let rows = shown.lines().skip(rows.start).take(rows.len());
            rows.map(|row| row.chars().take(60).filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count())
                .sum::<usize>()
        };
        assert!(dots(2..7) > 0 && dots(10..16) > 0, "{shown}");
    }

    #[test]
    fn a_narrow_screen_has_one_chart_and_a_tiny_one_words() {
        let mut view = view();
        assert!(!text(&drawn(&view, (80, 24), true)).contains(" scores "));
        view.other = true;
        assert!(text(&drawn(&view, (80, 24), true)).contains(" scores "));
        assert!(text(&drawn(&view, (30, 8), true)).starts_with("epoch 3 5/10"));
        // Whatever the size, nothing fails.
        for size in [(1, 1), (44, 14), (45, 15), (300, 14), (44, 90)] {
            let _ = drawn(&view, size, true);
        }
    }

    #[test]
    fn without_colours_there_are_none() {
        let coloured =
            |buffer: &Buffer| buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert!(coloured(&drawn(&view(), (120, 30), true)));
        assert!(!coloured(&drawn(&view(), (120, 30), false)));
    }

    #[test]
    fn a_loss_on_a_logarithmic_scale_is_labelled_as_a_loss() {
        let mut view = view();
        view.losses.push((26.0, f64::NAN));
        view.losses.push((27.0, 0.0));
        view.logarithmic = true;
        let shown = text(&drawn(&view, (120, 30), true));
        assert!(shown.contains("2.") && !shown.contains("NaN") && !shown.contains("inf"), "{shown}");
    }
}
