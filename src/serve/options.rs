//! How the server is set up.

use std::net::SocketAddr;
use std::time::Duration;

use super::limits::Limits;
use crate::error::{Error, Kind, Result};
use crate::explain::Look;
use crate::train::{ModelSource, Precision};
use crate::tune::TuningCache;

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
    /// Show each image in all views that keep its shape, and take the mean of the probabilities: of classes and masks. What is
    /// explained is the image as it is.
    pub all_views: bool,
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
