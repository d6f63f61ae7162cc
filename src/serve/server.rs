//! The server from its first connection to its last.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::device::{Job, Loading, Models, Served, Worker};
use super::guard::{Access, Clients, MOST, Peer};
use super::limits::Limits;
use super::measure::Measures;
use super::options::Options;
use super::queue::Queue;
use super::routes::{App, routes};
use super::stream::Impatient;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::train::Interrupt;

/// How often the wish to stop is looked at.
const LOOK_UP: Duration = Duration::from_millis(50);

/// What the server tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something to know of the models or of the address.
    Note(&'a str),
    /// It answers now.
    Listening {
        /// Where.
        address: SocketAddr,
        /// The token, if it was made here: nobody else knows it.
        token: Option<&'a str>,
    },
    /// A batch went wrong; what waited for it was told.
    Fault(&'a Error),
    /// It takes no more connections, and answers what was begun.
    Stopping,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(note) => write!(f, "note: {note}"),
            Self::Listening { address, token: None } => write!(f, "listening on http://{address}"),
            // Behind the '#' it is not sent: the page's script reads it.
            Self::Listening { address, token: Some(token) } => {
                write!(f, "listening on http://{address}\ntoken     {token}\nopen      http://{address}/#token={token}")
            }
            Self::Fault(error) => write!(f, "fault: {error}"),
            Self::Stopping => write!(f, "stopping: what was begun is answered"),
        }
    }
}

/// Whom the server tells.
pub type Tell = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Serves until `interrupt` is set; then what was begun is answered, and it ends well.
///
/// # Errors
/// [`Kind::Usage`] for options that do not go together, [`Kind::Io`] if the address cannot be listened on, those of loading the
/// models, [`Kind::DeviceLost`] once the device is gone.
pub fn serve(gpu: Gpu, options: Options, interrupt: &Interrupt, tell: Tell) -> Result<()> {
    options.check()?;
    let Options { listen, models, batch, max_wait, all_views, look, precision, tuning, limits, .. } = options;
    let made = match (&options.token, listen.ip().is_loopback()) {
        (None, false) => Some(new_token()?),
        _ => None,
    };
    let access = Access::new(options.token.as_deref().or(made.as_deref()), listen.ip());
    let listener = bind(listen)?;
    let address = listener.local_addr().map_err(|e| no_address(listen, &e))?;
    if !address.ip().is_loopback() {
        let note = "other machines can connect, and what they send is not encrypted: put a proxy with TLS before it";
        tell(&Event::Note(note));
    }

    let (queue, measures) = (Arc::new(Queue::new(limits.queue)), Arc::new(Measures::default()));
    let loading = Loading { batch, all_views, look, precision, tuning };
    let (models, served) = Models::load(&gpu, &models, &loading)?;
    served.notes.iter().for_each(|note| tell(&Event::Note(note)));
    let complain = Arc::clone(&tell);
    let worker = Worker {
        gpu,
        models,
        queue: Arc::clone(&queue),
        measures: Arc::clone(&measures),
        batch,
        max_wait,
        timeout: limits.timeout,
        complain: Box::new(move |error| complain(&Event::Fault(error))),
    };
    let device = start(worker)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // More could not work at the same time, and each keeps memory of its own for what it has decoded.
        .max_blocking_threads(workers())
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::OutOfMemory, format!("the server's threads could not be started: {e}")))?;
    let app = app(served, limits, access, &queue, measures);
    let ended = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| no_address(listen, &e))?;
        tell(&Event::Listening { address, token: made.as_deref() });
        accept(&listener, app, interrupt, &device, &tell).await;
        Ok(())
    });
    queue.close();
    // Work that nobody waits for any more is left to itself.
    runtime.shutdown_background();
    let done = device.join().map_err(|_| Error::new(Kind::Internal, "the thread of the device has failed"))?;
    ended.and(done)
}

/// How many images are decoded or drawn side by side.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn app(served: Served, limits: Limits, access: Access, queue: &Arc<Queue<Job>>, measures: Arc<Measures>) -> Arc<App> {
    Arc::new(App {
        served,
        limits,
        access,
        queue: Arc::clone(queue),
        measures,
        clients: Clients::default(),
        connections: Arc::default(),
        workers: Arc::new(Semaphore::new(workers())),
    })
}

/// Starts the thread of the device.
fn start(worker: Worker) -> Result<JoinHandle<Result<()>>> {
    let spawned = std::thread::Builder::new().name("device".to_owned()).spawn(move || worker.run());
    spawned.map_err(|e| Error::new(Kind::OutOfMemory, format!("no thread for the device: {e}")))
}

fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(listen).map_err(|e| no_address(listen, &e))?;
    listener.set_nonblocking(true).map_err(|e| no_address(listen, &e))?;
    Ok(listener)
}

fn no_address(listen: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(Kind::Io, format!("could not listen: {error}"))
        .at(listen)
        .next("choose another address or port with --listen")
}

/// 128 random bits of the operating system, as hexadecimal digits.
fn new_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| {
        Error::new(Kind::Io, format!("the operating system has no random numbers: {e}"))
            .next("give a token with --token")
    })?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Takes connections until it is to stop, then waits for those that are open.
async fn accept(
    listener: &tokio::net::TcpListener,
    app: Arc<App>,
    interrupt: &Interrupt,
    device: &JoinHandle<Result<()>>,
    tell: &Tell,
) {
    let limits = app.limits.clone();
    let (connections, graceful) = (Arc::new(Semaphore::new(limits.connections)), GracefulShutdown::new());
    let router = routes(Arc::clone(&app));
    let mut look_up = tokio::time::interval(LOOK_UP);
    loop {
        let connection = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            (accepted, Ok(permit)) = connection => (accepted, permit),
            _ = look_up.tick() => {
                // Without the device there is nothing to be answered.
                if interrupt.load(Ordering::Relaxed) || device.is_finished() {
                    break;
                }
                continue;
            }
        };
        // What goes wrong here is a connection that has gone already, or too many open files: the next one may be better.
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(LOOK_UP).await;
            continue;
        };
        // Answers are small and complete, so nothing is gained by waiting for more to send.
        let _ = stream.set_nodelay(true);
        // An IPv4 address as such, also where it comes through a socket of IPv6.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.read_timeout)
            .max_headers(MOST.parsed_headers)
            .max_header_size(MOST.parsed_bytes)
            .max_buf_size(MOST.parsed_bytes)
            .serve_connection(TokioIo::new(Impatient::new(stream, limits.write_timeout)), service);
        let watched = graceful.watch(connection);
        let open = Arc::clone(&app.connections);
        tokio::spawn(async move {
            // An error is a client that does not speak HTTP, that does not read, or that has gone.
            let _ = watched.await;
            drop((permit, open));
        });
    }
    tell(&Event::Stopping);
    // Every request ends by its own limits; who neither sends nor reads is not waited for.
    let patience = limits.read_timeout + limits.timeout + limits.write_timeout;
    let _ = tokio::time::timeout(patience, graceful.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
