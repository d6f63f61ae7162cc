//! Files that tests make.

#![allow(dead_code, reason = "not every test file uses every helper")]

use std::io::{Cursor, Write};
use std::path::Path;

use zip::CompressionMethod;

/// Writes a file below `root`, with its folders.
pub fn put(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A zip archive of these entries.
pub fn zipped(entries: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Writes a compressed zip archive of these entries.
pub fn zip(path: &Path, entries: &[(&str, Vec<u8>)]) {
    std::fs::write(path, zipped(entries, CompressionMethod::Deflated)).unwrap();
}

/// A workbook whose one sheet has these rows from its third on.
pub fn workbook(rows: &[[&str; 6]]) -> Vec<u8> {
    let cell = |text: &str, at: String| format!("<c r=\"{at}\" t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let row = |(number, cells): (usize, &[&str; 6])| {
        let cells = cells.iter().zip('A'..).filter(|(text, _)| !text.is_empty());
        let cells: String = cells.map(|(text, column)| cell(text, format!("{column}{}", number + 3))).collect();
        format!("<row r=\"{}\">{cells}</row>", number + 3)
    };
    let rows: String = rows.iter().enumerate().map(row).collect();
    workbook_of(sheet_of(&rows).as_bytes())
}

const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";

/// A sheet of rows, in XML.
pub fn sheet_of(rows: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><worksheet xmlns=\"{MAIN}\"><sheetData>{rows}</sheetData></worksheet>"
    )
}

/// A workbook of one sheet, in XML.
pub fn workbook_of(sheet: &[u8]) -> Vec<u8> {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let packages = "http://schemas.openxmlformats.org/package/2006/relationships";
    let relation = |kind: &str, target: &str| {
        format!(
            "{head}<Relationships xmlns=\"{packages}\"><Relationship Id=\"r1\" Type=\"{office}/{kind}\" Target=\"{target}\"/>\
             </Relationships>"
        )
    };
    let book = format!(
        "{head}<workbook xmlns=\"{MAIN}\" xmlns:r=\"{office}\"><sheets><sheet name=\"a\" sheetId=\"1\" r:id=\"r1\"/></sheets>\
         </workbook>"
    );
    let types = format!("{head}<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>");
    let files = [
        ("[Content_Types].xml", types),
        ("_rels/.rels", relation("officeDocument", "xl/workbook.xml")),
        ("xl/workbook.xml", book),
        ("xl/_rels/workbook.xml.rels", relation("worksheet", "worksheets/sheet1.xml")),
    ];
    let mut files = files.map(|(name, text)| (name, text.into_bytes())).to_vec();
    files.push(("xl/worksheets/sheet1.xml", sheet.to_vec()));
    zipped(&files, CompressionMethod::Deflated)
}
