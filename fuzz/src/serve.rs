//! What of the server knows nothing of the device.

#[path = "../../src/serve/limits.rs"]
mod limits;
#[path = "../../src/serve/queue.rs"]
mod queue;
#[path = "../../src/serve/refusal.rs"]
mod refusal;
#[path = "../../src/serve/upload.rs"]
mod upload;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;

/// Reads a request's images and decodes them, as the server does. Whatever is refused has to be the request's own fault.
pub fn upload(kind: &[u8], body: &[u8]) {
    let request = Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec()));
    let Ok(request) = request else { return };
    // Small pictures are as good, and more of them are tried.
    let limits = limits::Limits { pixels: 1 << 16, ..limits::Limits::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let read = runtime.block_on(upload::receive(request, &limits));
    let refused = match read {
        Err(refusal) => Some(refusal),
        Ok(uploads) => {
            let all = uploads.len();
            assert!((1..=limits.files).contains(&all));
            let decode = |(i, one)| upload::decode(one, &upload::title(one, i, all), limits.pixels);
            uploads.iter().enumerate().map(decode).find_map(|decoded| match decoded {
                Ok(picture) => {
                    assert!((picture.width() * picture.height()) as usize <= limits.pixels);
                    None
                }
                Err(refusal) => Some(refusal),
            })
        }
    };
    if let Some(refusal) = refused {
        let status = refusal.into_response().status();
        let known = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE];
        assert!(known.contains(&status), "{status}");
    }
}
