//! A server whose device fails.

use std::time::{Duration, Instant};

use image::ImageFormat;

use crate::client::{Server, encoded, models, pictures};

/// Requests are answered until the device is gone; then they are told so, and the server ends with the exit code of the
/// reason: who watches it starts it again.
#[test]
fn a_server_without_its_device_says_so_and_ends() {
    let Some(folder) = models() else { return };
    let picture = encoded(&pictures()[0], ImageFormat::Png);
    for (fault, code, kind) in [("lost@80", 6, "stopping"), ("out-of-memory@80", 5, "busy")] {
        let mut server = Server::start(folder, &["classes"], &["--batch", "4", "--fault", fault]);
        let mut answered = 0;
        let refused = loop {
            let answer = server.post("/v1/predict", "image/png", &picture);
            if answer.status != 200 {
                break answer;
            }
            answered += 1;
            assert!(answered < 500, "the device does not fail");
        };
        println!("{fault}: {answered} requests were answered");
        assert!(answered > 0, "it had failed before the first request");
        refused.refused(503, kind);
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = server.child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < Duration::from_secs(60), "the server does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status.code(), Some(code));
    }
}
