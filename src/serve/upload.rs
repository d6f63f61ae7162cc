//! Images on their way in: read from a request within its limits, and decoded. They stay in memory. Nothing here knows of models or
//! of the device, so that strange requests can be tried on it without either.

use std::error::Error as _;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use image::RgbImage;

use super::limits::Limits;
use super::refusal::Refusal;
use crate::data::{decode_rgb, picture_size};

/// The longest name of a file that is repeated in an answer, in characters.
const NAME: usize = 100;

/// An image as it came.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    /// What its sender calls it, without folders. It is repeated in the answer and used for nothing else.
    pub name: Option<String>,
    pub bytes: Bytes,
}

/// Reads the images of a request.
///
/// # Errors
/// 400, 408, 413 and 415.
pub(super) async fn receive(request: Request, limits: &Limits) -> Result<Vec<Upload>, Refusal> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let kind = header(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let multipart = kind == "multipart/form-data";
    if !multipart && !kind.starts_with("image/") && kind != "application/octet-stream" {
        return Err(Refusal::media_type("the body is not said to be an image"));
    }
    let announced = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let most = limits.body;
    let too_large = || {
        let message = format!("the request is larger than {:.1} MiB", most as f64 / f64::from(1 << 20));
        Refusal::too_large(message, "send fewer or smaller images")
    };
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(limits.read_timeout, Limited::new(body, most).collect()).await;
    let bytes = match read {
        Err(_) => {
            let message = format!("the request did not arrive within {} s", limits.read_timeout.as_secs_f64());
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow", message, "send it faster, or fewer images"));
        }
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => return Err(too_large()),
        Ok(Err(_)) => return Err(Refusal::bad("the request ended early", "send it again")),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    let uploads = match multipart {
        true => files(Request::from_parts(parts, Body::from(bytes)), limits.files).await?,
        false => vec![Upload { name: None, bytes }],
    };
    if uploads.iter().all(|upload| upload.bytes.is_empty()) {
        return Err(Refusal::bad(
            "the request holds no image",
            "send an image as the body, or files as multipart/form-data",
        ));
    }
    Ok(uploads)
}

/// The files of a form, in order.
async fn files(request: Request, most: usize) -> Result<Vec<Upload>, Refusal> {
    let broken =
        |what: String| Refusal::bad(format!("the form cannot be read: {what}"), "send files as multipart/form-data");
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| broken(e.body_text()))?;
    let mut uploads = vec![];
    while let Some(field) = form.next_field().await.map_err(|e| broken(e.body_text()))? {
        if uploads.len() == most {
            let message = format!("the form has more than {most} fields");
            return Err(Refusal::too_large(message, "send fewer images at a time"));
        }
        let name = field.file_name().map(base_name);
        let bytes =
            field.bytes().await.map_err(|e| broken(e.source().map_or_else(|| e.body_text(), ToString::to_string)))?;
        uploads.push(Upload { name, bytes });
    }
    Ok(uploads)
}

/// The last part of a path, shortened, without what is not shown.
fn base_name(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

/// What an image is called in errors: its name, or its place among several.
pub(super) fn title(upload: &Upload, place: usize, all: usize) -> String {
    match (&upload.name, all) {
        (Some(name), 1) if !name.is_empty() => format!("the image '{name}'"),
        (Some(name), _) if !name.is_empty() => format!("image {} ('{name}')", place + 1),
        (_, 1) => "the image".to_owned(),
        _ => format!("image {}", place + 1),
    }
}

/// Decodes an image exactly as `predict` does, within the limit of pixels.
///
/// # Errors
/// 400, 413 and 415.
pub(super) fn decode(upload: &Upload, title: &str, pixels: usize) -> Result<RgbImage, Refusal> {
    if !upload.bytes.is_empty() && !image::guess_format(&upload.bytes).is_ok_and(|format| format.reading_enabled()) {
        return Err(Refusal::media_type(format!("{title} is of no known format")));
    }
    // Told by its first bytes, before anything is decoded.
    let size = picture_size(&upload.bytes, title).map_err(|e| Refusal::of(&e, title))?;
    if size.area() > pixels {
        let message = format!("{title} has {size} pixels, more than {:.1} million", pixels as f64 / 1e6);
        return Err(Refusal::too_large(message, "send a smaller image"));
    }
    decode_rgb(&upload.bytes, title).map_err(|e| Refusal::of(&e, title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_not_paths() {
        assert_eq!(base_name("../../etc/passwd"), "passwd");
        assert_eq!(base_name("C:\\photos\\a b.jpg"), "a b.jpg");
        assert_eq!(base_name("a\u{0}\n.png"), "a.png");
        assert_eq!(base_name(&"x".repeat(500)).len(), NAME);
        assert_eq!(base_name("/"), "");
    }
}
