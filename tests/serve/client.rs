//! A server, and a client that says exactly what it is told to.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Cursor, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};
use lesion_gpu::data::synthetic;
use lesion_gpu::models::Model;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{Checkpoint, Progress, TrainConfig};
use lesion_gpu::weights::Tensors;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, command, ok};

/// A folder with a small trained run, `classes`, and a checkpoint of a model that segments, `masks.safetensors`; none without a
/// GPU.
pub fn models() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<TempDir>> = OnceLock::new();
    let make = || {
        common::gpu()?;
        let folder = tempfile::tempdir().unwrap();
        let train = "train --data synthetic:40 --model simple-cnn --size 32 --batch 8 --epochs 1 --run classes --no-cache \
                     --no-report";
        ok(folder.path(), &train.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>());
        untrained_masks(&folder.path().join("masks.safetensors"));
        Some(folder)
    };
    FOLDER.get_or_init(make).as_ref().map(TempDir::path)
}

/// A U-Net with some weights or other: its masks have many parts, and mean nothing. To train one takes long.
fn untrained_masks(file: &Path) {
    let model = Model::find("unet-small").unwrap();
    let config = TrainConfig { size: 32.into(), ..TrainConfig::of(model) };
    let weights = model.summary(32, 1).unwrap().parameters.into_iter().enumerate().map(|(number, p)| {
        let of_norm = p.name.ends_with("running_var") || (p.name.ends_with("weight") && p.file_shape.dims().len() == 1);
        let value = |i: usize| ((number * 31 + i) as f32 * 0.7).sin() * 0.2;
        let data = (0..p.count()).map(|i| if of_norm { 1.0 } else { value(i) }).collect();
        (p.name, HostTensor::new(p.file_shape, data))
    });
    let checkpoint = Checkpoint {
        config,
        classes: vec!["lesion".to_owned()],
        progress: Progress::default(),
        temperature: None,
        weights: weights.collect(),
        optimizer: Tensors::default(),
    };
    checkpoint.write(file).unwrap();
}

/// A running server; it ends with the test.
pub struct Server {
    pub child: Child,
    pub port: u16,
    pub token: Option<String>,
    pub address: String,
}

impl Server {
    pub fn start(folder: &Path, runs: &[&str], flags: &[&str]) -> Self {
        let listens = flags.contains(&"--listen");
        let listen: &[&str] = if listens { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut child = command(folder, &[&["serve"], runs, listen, flags].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.next().expect("the server says where it listens");
        let address = address.strip_prefix("listening on http://").expect("an address").to_owned();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        let token = lines.next().and_then(|line| line.strip_prefix("token").map(|token| token.trim().to_owned()));
        // What else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, token, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request and returns its answer. `headers` are lines without their ends.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        send(&mut stream, method, path, headers, body.len(), body);
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], &[])
    }

    pub fn post(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        self.ask("POST", path, &[&format!("Content-Type: {kind}")], body)
    }

    pub fn form(&self, path: &str, files: &[(&str, &[u8])]) -> Answer {
        self.post(path, "multipart/form-data; boundary=XX", &form(files))
    }

    /// Asks the process to end, as a terminal or a service manager does.
    #[cfg(unix)]
    pub fn terminate(&self) {
        let status = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[&str], length: usize, body: &[u8]) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        head += "Host: localhost\r\n";
    }
    headers.iter().for_each(|header| write!(head, "{header}\r\n").unwrap());
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses early need not read on.
    let _ = stream.write_all(body);
}

pub fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = vec![];
    for (name, bytes) in files {
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--XX--\r\n");
    body
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).expect("an answer");
        Self::parse(&bytes).expect("a complete head")
    }

    /// The only answer in these bytes, if its head is complete.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head, body: bytes[end..].to_vec() })
    }

    /// The answers of a connection, by the lengths that they say.
    pub fn parse_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut answers = vec![];
        while let Some(mut answer) = Self::parse(bytes) {
            let length = answer.head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap()).min(answer.body.len());
            bytes = &bytes[bytes.len() - answer.body.len() + length..];
            answer.body.truncate(length);
            answers.push(answer);
        }
        answers
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Checks that it is a refusal in words, and returns its message.
    pub fn refused(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!(error["kind"], kind, "{error}");
        let text = self.text();
        for leak in ["/tmp", "src/", ".rs", "panicked", "backtrace", "Kind::", "Os {"] {
            assert!(!text.contains(leak), "{leak}: {text}");
        }
        assert!(error["next"].as_str().is_some_and(|next| !next.is_empty()), "{text}");
        error["message"].as_str().unwrap().to_owned()
    }
}

pub fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::from(picture.clone()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Different pictures of different sizes.
pub fn pictures() -> Vec<RgbImage> {
    let sizes = [(64, 48), (40, 70), (32, 32), (90, 60), (50, 50)];
    let draw = |(i, (width, height)): (usize, (u32, u32))| {
        let (picture, _) = synthetic::render(7, i as u64, 64);
        image::imageops::thumbnail(&picture, width, height)
    };
    sizes.into_iter().enumerate().map(draw).collect()
}

/// Probabilities by class.
pub fn probabilities(image: &Value) -> Vec<(String, f64)> {
    let classes = image["classes"].as_array().unwrap().iter();
    classes.map(|c| (c["class"].as_str().unwrap().to_owned(), c["probability"].as_f64().unwrap())).collect()
}

pub fn assert_same(a: &[(String, f64)], b: &[(String, f64)]) {
    let close = |((x, p), (y, q)): (&(String, f64), &(String, f64))| x == y && (p - q).abs() < 1e-6;
    assert!(a.len() == b.len() && a.iter().zip(b).all(close), "{a:?}\n{b:?}");
}

pub fn picture_of(base64: &Value) -> DynamicImage {
    image::load_from_memory(&BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap()).unwrap()
}
