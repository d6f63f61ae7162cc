//! Rows of text as columns of a terminal or as a Markdown table.

/// Rows below their header, in columns as wide as their widest field.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let fields = rows.iter().map(|row| row.get(column).map_or(0, |field| field.chars().count()));
        fields.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |fields: &mut dyn Iterator<Item = &str>| {
        let padded = fields.zip(&widths).map(|(field, &width)| format!("{field:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(&mut header.iter().copied());
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
}

/// Rows below their header as a Markdown table.
pub(super) fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |fields: &mut dyn Iterator<Item = &str>| {
        format!("| {} |\n", fields.map(|field| field.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&mut header.iter().copied());
    text += &line(&mut header.iter().map(|_| "---"));
    rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
    text
}

/// A score with its interval: `0.742 (0.715 to 0.768)`.
pub(super) fn score(value: f64, interval: Option<[f64; 2]>) -> String {
    match interval {
        Some([low, high]) => format!("{value:.3} ({low:.3} to {high:.3})"),
        None => format!("{value:.3}"),
    }
}

/// A p as it is usually given.
pub(super) fn p(value: f64) -> String {
    if value < 0.001 { "< 0.001".to_owned() } else { format!("{value:.3}") }
}
