//! What is taken of requests.

use std::time::Duration;

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
    /// The longest that its headers, and then its body, may take to arrive. A connection on which nothing is asked for so long is
    /// closed.
    pub read_timeout: Duration,
    /// The longest that its answer may take to be read.
    pub write_timeout: Duration,
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
            write_timeout: Duration::from_secs(60),
        }
    }
}
