//! Event files of TensorBoard: a run's numbers, texts and pictures as it goes, for those who watch many runs in it.
//!
//! A file is a sequence of records in TensorFlow's format (`core/lib/io/record_writer.cc`): length, its checksum, bytes, their
//! checksum; each record is an event.

mod proto;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crc::{CRC_32_ISCSI, Crc};
use prost::Message as _;

use crate::error::{Error, Kind, Result};
use proto::{
    Content, DT_STRING, Dim, Event, Image, PluginData, START, SessionLog, Summary, SummaryMetadata, TensorProto,
    TensorShapeProto, Value, What,
};

/// CRC-32C, also called Castagnoli or iSCSI.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An event file that grows.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder`, where TensorBoard finds it and takes it for the rest of the older ones there. What those say of
    /// `first_step` and later steps is void: a resumed run does these again.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn create(folder: &Path, first_step: u64) -> Result<Self> {
        let seconds = now() as u64;
        // TensorBoard reads the files of a folder in the order of their names.
        let mut number = 0;
        let (path, file) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.{number:03}.lesion-gpu"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && number < 999 => number += 1,
                Err(e) => return Err(Error::io("make the event file", &path, &e)),
            }
        };
        let mut events = Self { path, file };
        events.event(0, What::FileVersion("brain.Event:2".to_owned()))?;
        events.event(first_step, What::SessionLog(SessionLog { status: START }))?;
        Ok(events)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes numbers of a step, each by its tag.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let value = |&(tag, value): &(&str, f64)| Value {
            tag: tag.to_owned(),
            metadata: None,
            content: Some(Content::SimpleValue(value as f32)),
        };
        self.event(step, What::Summary(Summary { value: values.iter().map(value).collect() }))
    }

    /// Writes a picture, the bytes of a PNG file.
    ///
    /// # Errors
    /// [`Kind::Io`]; [`Kind::Internal`] if it is no PNG file.
    pub fn picture(&mut self, step: u64, tag: &str, png: Vec<u8>) -> Result<()> {
        let shape = image::ImageReader::with_format(std::io::Cursor::new(&png), image::ImageFormat::Png);
        let (width, height) =
            shape.into_dimensions().map_err(|e| Error::new(Kind::Internal, format!("{tag} is no PNG picture: {e}")))?;
        let image = Image { height: height as i32, width: width as i32, colorspace: 3, encoded_image_string: png };
        self.one(step, tag, None, Content::Image(image))
    }

    /// Writes a text in Markdown.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        let plugin = PluginData { plugin_name: "text".to_owned() };
        let tensor = TensorProto {
            dtype: DT_STRING,
            tensor_shape: Some(TensorShapeProto { dim: vec![Dim { size: 1 }] }),
            string_val: vec![text.as_bytes().to_vec()],
        };
        self.one(step, tag, Some(SummaryMetadata { plugin_data: Some(plugin) }), Content::Tensor(tensor))
    }

    fn one(&mut self, step: u64, tag: &str, metadata: Option<SummaryMetadata>, content: Content) -> Result<()> {
        let value = Value { tag: tag.to_owned(), metadata, content: Some(content) };
        self.event(step, What::Summary(Summary { value: vec![value] }))
    }

    fn event(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event { wall_time: now(), step: step.cast_signed(), what: Some(what) };
        // In one piece: a program that is killed leaves at most one record cut short, and TensorBoard waits for its rest.
        let record = record(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A record of these bytes.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts = [&length[..], &checksum(&length), bytes, &checksum(bytes)];
    parts.concat()
}

/// A checksum that stays sound where the bytes hold checksums themselves: turned by 15 bits, and a constant added.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    CHECKSUM.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_that_of_tensorflow() {
        // Of the bytes `lesion`, by the checksums of the tensorboard package.
        let known = "06000000000000007369d5376c6573696f6e2f230512";
        let hex: String = record(b"lesion").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, known);
    }

    #[test]
    fn events_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 5).unwrap();
        file.scalars(7, &[("train/loss", 0.5), ("val/accuracy", 0.25)]).unwrap();
        file.text(7, "configuration", "batch 8").unwrap();
        let second = EventFile::create(folder.path(), 8).unwrap();
        assert!(second.path() > file.path(), "{:?} {:?}", file.path(), second.path());
        assert!(file.picture(7, "p", b"no picture".to_vec()).is_err());

        let bytes = std::fs::read(file.path()).unwrap();
        let (mut rest, mut events) = (&bytes[..], vec![]);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            events.push(Event::decode(&rest[12..12 + length]).unwrap());
            rest = &rest[16 + length..];
        }
        let steps: Vec<i64> = events.iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 5, 7, 7]);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: START })));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("{:?}", events[2]) };
        let numbers: Vec<_> = summary.value.iter().map(|v| (v.tag.as_str(), v.content.clone().unwrap())).collect();
        let number = Content::SimpleValue;
        assert_eq!(numbers, [("train/loss", number(0.5)), ("val/accuracy", number(0.25))]);
    }
}
