//! A small HTTP server on the loopback, which behaves as a test tells it to.

#![allow(dead_code, reason = "not every test file uses every helper")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// What a client asked for. Header names are in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = lines.map_while(std::result::Result::ok).take_while(|line| !line.is_empty());
        let headers = headers.filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        });
        Some(Self { method, path, headers: headers.collect() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where a `Range: bytes=N-` begins.
    pub fn first(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What a server answers.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Says it will send this much, whatever the body is.
    pub promised: Option<usize>,
    /// Stays silent before the headers, and before the end.
    pub silence: [Duration; 2],
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    fn send(&self, mut stream: TcpStream, head: bool) -> std::io::Result<()> {
        std::thread::sleep(self.silence[0]);
        let mut text = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        self.headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        text += &format!("content-length: {}\r\n\r\n", self.promised.unwrap_or(self.body.len()));
        stream.write_all(text.as_bytes())?;
        if !head {
            stream.write_all(&self.body)?;
        }
        stream.flush()?;
        std::thread::sleep(self.silence[1]);
        Ok(())
    }
}

/// A server that answers each request by a function of it and of how many came before.
pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(vec![]));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = Request::read(&stream) else { return };
                    let before = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        log.len() - 1
                    };
                    // A client that has gone away is no failure of the server's.
                    let _ = answer(&request, before).send(stream, request.method == "HEAD");
                });
            }
        });
        Self { address, requests }
    }

    /// One that has a file, with everything the protocol has: an entity tag, ranges.
    pub fn with_file(content: Vec<u8>) -> Self {
        Self::new(move |request, _| serve(&content, request))
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn gets(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.method == "GET").collect()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn serve(content: &[u8], request: &Request) -> Reply {
    let tag = format!("\"{}\"", sha256(content));
    let same = request.header("if-range").is_none_or(|wanted| wanted == tag);
    match request.first().filter(|_| same) {
        Some(first) if first >= content.len() => Reply::new(416),
        Some(first) => Reply::new(206)
            .with("content-range", format!("bytes {first}-{}/{}", content.len() - 1, content.len()))
            .body(&content[first..]),
        None => Reply::new(200).body(content),
    }
    .with("etag", tag)
}
