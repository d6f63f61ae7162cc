//! Who is slow: in sending, in reading, in doing nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::client::{Server, models};

/// What `/metrics` says of open connections, the one that asks included.
fn connections(server: &Server) -> usize {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("lesion_gpu_connections "));
    line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

/// Waits until so many are open.
fn until(server: &Server, open: usize, most: Duration) -> Duration {
    let start = Instant::now();
    while connections(server) != open {
        assert!(start.elapsed() < most, "{} connections after {:?}", connections(server), start.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

/// Asks for the largest file.
const ASK: &[u8] = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection on which it is asked for so often, and nothing read.
fn greedy(server: &Server, requests: usize) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(&ASK.repeat(requests)).unwrap();
    stream
}

#[test]
fn nobody_holds_a_connection_for_ever() {
    let Some(folder) = models() else { return };
    let server = Server::start(folder, &["classes"], &["--read-timeout", "2", "--write-timeout", "2"]);
    // More than the buffers of the two ends hold.
    let (requests, size) = (3000, server.get("/app.js").body.len());
    assert!(requests * size > 40 << 20, "{size}");

    let (mut silent, mut trickle) = (greedy(&server, requests), greedy(&server, requests));
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
    until(&server, 5, Duration::from_millis(1500));

    // A byte now and then is no sign of life: neither of a reader nor of a sender.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let _ = trickle.read(&mut [0]);
                let _ = slow.write_all(b"h");
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let took = until(&server, 1, Duration::from_secs(15));
        assert!(took > Duration::from_millis(1000), "{took:?}");
    });
    // What was sent is cut off, and the idle one was told nothing.
    for stream in [&mut silent, &mut trickle] {
        let mut got = vec![];
        let _ = stream.read_to_end(&mut got);
        assert!(got.len() < requests * size, "{}", got.len());
    }
    let mut rest = vec![];
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"ok\n"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(server.get("/healthz").text(), "ok\n");
}

/// A reader that pauses and then takes what lies there is served for as long as it likes: the limit begins anew with each answer.
#[test]
fn readers_that_pause_are_served() {
    let Some(folder) = models() else { return };
    let server = Server::start(folder, &["classes"], &["--read-timeout", "10", "--write-timeout", "2"]);
    // Every answer is as long: its head has no more than a date in it.
    let (requests, whole) = (2000, server.ask("GET", "/app.js", &[], b""));
    let length = whole.head.len() - "connection: close\r\n".len() + whole.body.len();
    let (mut stream, start) = (server.connect(), Instant::now());
    for round in 0..3 {
        stream.write_all(&ASK.repeat(requests)).unwrap();
        // Long enough for all buffers to be full, and for the server to wait.
        std::thread::sleep(Duration::from_millis(1200));
        let (mut got, mut part) = (0, vec![0; 1 << 16]);
        while got < requests * length {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "cut off after {got} bytes of round {round}");
            got += read;
        }
        assert_eq!(got, requests * length);
    }
    assert!(start.elapsed() > Duration::from_secs(3));
}
