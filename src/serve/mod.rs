//! A local web page and an HTTP API for trained models.
//!
//! Wherever a request comes from, its images pass one thread that owns the device: it takes what waits in a bounded queue, up to a
//! batch, and answers each. Requests are read, images decoded and maps drawn beside it, on other threads. The asynchronous runtime
//! does not leave this layer.
//!
//! - `options`, `limits`: how it is set up; `server`: from the first connection to the last; `stream`: who asks has to read
//! - `guard`: who may ask, how much at once and for how long; headers; `refusal`: what is said instead of an answer
//! - `routes`: what is asked and answered; `upload`: images on their way in; `prepared`: as the models want them; `answers`: what is
//!   said of them; `contour`: outlines
//! - `queue`: what waits for the device; `device`: the thread that owns it, and the models
//! - `measure`: counters; `openapi`: the API described; `guide`: texts on classes
//! - `web/`: the page, its style and its script, compiled in; it asks nobody but this server
//!
//! Not a medical device: for research only.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use lesion_gpu::gpu::{Gpu, GpuOptions};
//! use lesion_gpu::serve::{Event, Limits, Options, serve};
//! use lesion_gpu::train::{Interrupt, ModelSource};
//!
//! # fn main() -> lesion_gpu::Result<()> {
//! let options = Options {
//!     listen: ([127, 0, 0, 1], 8080).into(),
//!     token: None,
//!     models: vec![ModelSource::Run("runs/resnet18-001".into())],
//!     batch: 8,
//!     max_wait: std::time::Duration::from_millis(5),
//!     all_views: false,
//!     look: Default::default(),
//!     precision: None,
//!     tuning: None,
//!     limits: Limits::default(),
//! };
//! let gpu = Gpu::open(&GpuOptions::default())?;
//! // Another thread ends it with `stop.store(true, Ordering::Relaxed)`.
//! let stop = Interrupt::default();
//! serve(gpu, options, &stop, Arc::new(|event: &Event<'_>| eprintln!("{event}")))
//! # }
//! ```

mod answers;
mod contour;
mod device;
mod guard;
mod guide;
mod limits;
mod measure;
mod openapi;
mod options;
mod prepared;
mod queue;
mod refusal;
mod routes;
mod server;
mod stream;
mod upload;

pub use limits::Limits;
pub use options::Options;
pub use server::{Event, Tell, serve};
