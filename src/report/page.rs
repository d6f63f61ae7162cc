//! A page of sections, figures and tables: one HTML file that needs no other, and each figure as a file of its own.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::error::{Error, Result};
use crate::weights::write_atomically;

/// A picture in its file format.
#[derive(Debug, Clone, PartialEq)]
pub enum Image {
    /// The text of an SVG file.
    Svg(String),
    /// The bytes of a PNG file.
    Png(Vec<u8>),
}

/// A picture with what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name of its file, without the ending.
    pub name: &'static str,
    /// What it shows, for those who do not see it.
    pub alt: String,
    /// The words below it.
    pub caption: String,
    /// The picture.
    pub image: Image,
}

/// Rows of text below their header.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What it tells.
    pub caption: String,
    /// The names of the columns; empty ones where rows are a name and a fact each.
    pub header: Vec<String>,
    /// The rows, whose first field names them.
    pub rows: Vec<Vec<String>>,
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A figure.
    Figure(Figure),
    /// A table.
    Table(Table),
    /// Lines as they are in a file of this name.
    File(String, String),
}

/// A section.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its heading.
    pub heading: &'static str,
    /// What is in it.
    pub parts: Vec<Part>,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The title.
    pub title: String,
    /// What has to be known before anything else.
    pub warnings: Vec<String>,
    /// The sections.
    pub sections: Vec<Section>,
}

/// Tables of more columns than this may be wider than a phone.
const WIDE: usize = 4;

/// Colours follow the reader's choice of light or dark; charts keep a white ground.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --ground: #ffffff; --line: #d1d9e0; --warn: #fff1e5;
  --edge: #bc4c00; --link: #0550ae }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --ground: #0d1117; --line: #3d444d;
  --warn: #3a1d00; --edge: #f0883e; --link: #79c0ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 75rem; padding: 1rem 1.25rem 4rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif }
a { color: var(--link) }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none }
h1 { margin-bottom: .25rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
.warning { padding: .5rem 1rem; border-left: .3rem solid var(--edge); background: var(--warn) }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem }
figure { margin: 0; max-width: 100%; flex: 0 1 auto }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: .3rem }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; max-width: 36rem }
.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, .facts td { text-align: left }
.facts td { white-space: normal; overflow-wrap: anywhere }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem }
@media print { nav { display: none } h2 { break-after: avoid } figure, .table { break-inside: avoid } }
";

impl Figure {
    fn file(&self) -> String {
        let ending = match self.image {
            Image::Svg(_) => "svg",
            Image::Png(_) => "png",
        };
        format!("{}.{ending}", self.name)
    }

    fn bytes(&self) -> &[u8] {
        match &self.image {
            Image::Svg(text) => text.as_bytes(),
            Image::Png(bytes) => bytes,
        }
    }

    fn html(&self) -> Markup {
        let kind = match self.image {
            Image::Svg(_) => "image/svg+xml",
            Image::Png(_) => "image/png",
        };
        let source = format!("data:{kind};base64,{}", BASE64_STANDARD.encode(self.bytes()));
        html! {
            figure { img src=(source) alt=(self.alt); figcaption { (self.caption) } }
        }
    }
}

impl Table {
    fn html(&self) -> Markup {
        let facts = self.header.iter().all(String::is_empty);
        html! {
            // What is wider than the page is scrolled, by the keyboard too.
            div.table tabindex=[(self.header.len() > WIDE).then_some("0")] {
                table class=[facts.then_some("facts")] {
                    caption { (self.caption) }
                    @if !facts { thead { tr { @for name in &self.header { th scope="col" { (name) } } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (column, field) in row.iter().enumerate() {
                                    @if column == 0 { th scope="row" { (field) } } @else { td { (field) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Section {
    fn id(&self) -> String {
        self.heading.to_lowercase().replace(' ', "-")
    }

    fn html(&self) -> Markup {
        // Figures that follow each other stand side by side.
        let groups = self.parts.chunk_by(|a, b| matches!((a, b), (Part::Figure(_), Part::Figure(_))));
        html! {
            section {
                h2 id=(self.id()) { (self.heading) }
                @for group in groups {
                    @match group {
                        [Part::Text(text)] => p { (text) },
                        [Part::Table(table)] => (table.html()),
                        [Part::File(name, text)] => { p { code { (name) } } pre tabindex="0" { code { (text) } } },
                        figures => div.figures {
                            @for part in figures { @if let Part::Figure(figure) = part { (figure.html()) } }
                        },
                    }
                }
            }
        }
    }

    fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.parts.iter().filter_map(|part| match part {
            Part::Figure(figure) => Some(figure),
            _ => None,
        })
    }
}

impl Page {
    /// As HTML.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        @for warning in &self.warnings { p.warning { (warning) } }
                        nav aria-label="Sections" {
                            ul { @for s in &self.sections { li { a href={ "#" (s.id()) } { (s.heading) } } } }
                        }
                    }
                    main { @for section in &self.sections { (section.html()) } }
                }
            }
        };
        page.into_string()
    }

    /// Writes `FOLDER/report.html`, and each figure into `FOLDER/report`. What is there of those names is replaced.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn write(&self, folder: &Path) -> Result<()> {
        let figures = folder.join("report");
        std::fs::create_dir_all(&figures).map_err(|e| Error::io("create a folder", &figures, &e))?;
        for figure in self.sections.iter().flat_map(Section::figures) {
            write_atomically(&figures.join(figure.file()), figure.bytes())?;
        }
        write_atomically(&folder.join("report.html"), self.html().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_no_other_file_and_escapes_what_it_shows() {
        let figure = |name| {
            let (alt, caption) = ("a <chart>".to_owned(), "one & two".to_owned());
            Part::Figure(Figure { name, alt, caption, image: Image::Svg("<svg/>".into()) })
        };
        let table = Table {
            caption: "by class".into(),
            header: vec!["class".into(), "n".into()],
            rows: vec![vec!["<script>alert(1)</script>".into(), "3".into()]],
        };
        let parts =
            vec![figure("a"), figure("b"), Part::Table(table), Part::File("config.toml".into(), "a = '<'".into())];
        let page = Page {
            title: "run".into(),
            warnings: vec!["LEAKY".into()],
            sections: vec![Section { heading: "Learning curves", parts }],
        };
        let html = page.html();
        assert!(html.starts_with("<!DOCTYPE html>") && html.contains("href=\"#learning-curves\""));
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;") && html.contains("one &amp; two"));
        assert!(!html.contains("http") && html.matches("data:image/svg+xml;base64,PHN2Zy8+").count() == 2);
        assert_eq!(html.matches("class=\"figures\"").count(), 1);
        let folder = tempfile::tempdir().unwrap();
        page.write(folder.path()).unwrap();
        page.write(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("report/b.svg")).unwrap(), "<svg/>");
        assert_eq!(std::fs::read_to_string(folder.path().join("report.html")).unwrap(), html);
    }
}
