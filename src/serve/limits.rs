//! What is taken of requests, and how the server is set up.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::explain::Look;
use crate::train::{ModelSource, Precision};
use crate::tune::TuningCache;

/// What the server takes, and no more.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Images of a request.
    pub files: usize,
    /// Images that wait for the device.
    pub queue: usize,
    /// Requests for work that are in progress.
    pub requests: usize,
    /// Those of one client, told by its address.
    pub requests_of_client: usize,
    /// Open connections. Further ones wait to be accepted.
    pub connections: usize,
    /// The longest that a request for work may take.
    pub timeout: Duration,
    /// The longest that its headers, and then its body, may take to arrive.
    pub read_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 20 << 20,
            pixels: 40_000_000,
            files: 16,
            queue: 64,
            requests: 64,
            requests_of_client: 64,
            connections: 256,
            timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(20),
        }
    }
}

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Where to listen. Port 0 is any that is free.
    pub listen: SocketAddr,
    /// What requests for work are to show. Without one, it is made where others than this machine can connect.
    pub token: Option<String>,
    /// The models: those that classify, and those that segment.
    pub models: Vec<ModelSource>,
    /// Images of a batch, at most.
    pub batch: usize,
    /// How long an image waits for others to share its batch.
    pub max_wait: Duration,
    /// What is looked at to explain.
    pub look: Look,
    /// In which precision to run; by default as trained.
    pub precision: Option<Precision>,
    /// What tuning has found.
    pub tuning: Option<TuningCache>,
    /// What is taken.
    pub limits: Limits,
}

impl Options {
    /// Checks what does not go together.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: String, next: &str| Err(Error::new(Kind::Usage, what).next(next));
        if self.batch == 0 || self.limits.files == 0 {
            return refuse("batches and requests have at least one image".to_owned(), "raise --batch and --max-files");
        }
        if self.limits.queue < self.limits.files {
            let (queue, files) = (self.limits.queue, self.limits.files);
            let what = format!("a queue of {queue} images can never take a request of {files}");
            return refuse(what, "raise --queue, or lower --max-files");
        }
        if self.token.as_ref().is_some_and(|token| token.len() < 16 || !token.chars().all(|c| c.is_ascii_graphic())) {
            let what = "a token has at least 16 characters of ASCII, and no spaces";
            return refuse(what.to_owned(), "leave --token away to have one made");
        }
        Ok(())
    }
}
