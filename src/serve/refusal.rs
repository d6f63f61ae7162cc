//! Requests that are not done, and what is said of it: `{"error": {"kind", "message", "next"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::queue::Refused;
use crate::error::{Error, Kind};

/// A request that is refused. Nothing in it tells of files or of the inside of the program.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    next: &'static str,
}

impl Refusal {
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>, next: &'static str) -> Self {
        Self { status, kind, message: message.into(), next }
    }

    /// What was sent makes no sense.
    pub fn bad(message: impl Into<String>, next: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message, next)
    }

    /// More was sent than is taken.
    pub fn too_large(message: impl Into<String>, next: &'static str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message, next)
    }

    /// What was sent is of a kind that is not taken.
    pub fn media_type(message: impl Into<String>) -> Self {
        let next = "send a JPEG, PNG, BMP, TIFF or WebP image as the body (Content-Type: image/jpeg and so on), or files as \
                    multipart/form-data";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", message, next)
    }

    /// There is too much to do.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            message,
            "try again in a second, with fewer requests at a time",
        )
    }

    /// The server ends.
    pub fn stopping(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message, "try again once it runs again")
    }

    /// It took too long.
    pub fn late() -> Self {
        let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, "the request was not done in time, and was dropped");
        Self::new(status, "late", message, "try again in a second, with fewer or smaller images")
    }

    /// There is no such page or model.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message, "see /docs for what there is")
    }

    /// Of an error; `name` says which image it is about. What is no fault of the request's is not told in detail.
    pub fn of(error: &Error, name: &str) -> Self {
        match error.kind() {
            Kind::Data => {
                let next = "send an intact image: JPEG, PNG, BMP, TIFF or WebP";
                Self::new(StatusCode::BAD_REQUEST, "image", format!("{name}: {}", error.what()), next)
            }
            Kind::Usage => Self::bad(error.what(), "see /docs"),
            Kind::Diverged => Self::internal("the model's answer to this image is not a number"),
            Kind::OutOfMemory => Self::busy("there is too little memory for this request"),
            Kind::DeviceLost => Self::stopping("the device has failed, and the server stops"),
            _ => Self::internal("the server could not do this"),
        }
    }

    pub fn internal(message: &str) -> Self {
        let next = "try another image; whoever runs the server finds the reason in its output";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, next)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::busy("too many images are waiting for the device"),
            Refused::Closed => Self::stopping("the server is stopping"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, kind, message, next } = self;
        let body = json!({ "error": { "kind": kind, "message": message, "next": next } });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
