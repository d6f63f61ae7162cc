//! Fetching one file over HTTP: into a part file that a later attempt continues, checked before it gets its name.
//!
//! Redirects are followed by hand, so that the token goes to no other host and headers of every answer can be read. A part
//! is continued with `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14); a server that answers with the whole file,
//! or with another version of it, makes us begin anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::Settings;
use super::checksum::{Checksum, Hasher};
use crate::error::{Error, Kind, Result};
use crate::weights::remove_if_there;

/// Redirects that are followed for one request.
const REDIRECTS: usize = 10;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Called with the bytes that are there and, where it is known, how many there will be; may end the transfer.
pub(super) type Report<'a> = dyn FnMut(u64, Option<u64>) -> Result<()> + 'a;

/// A file to fetch.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub settings: &'a Settings,
    pub url: String,
    pub checksum: Checksum,
    /// Where it goes.
    pub to: PathBuf,
    /// Where its whole checksum is noted.
    pub note: PathBuf,
}

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The network or the server; another attempt may.
    Again(Error),
    /// The network or the server, and another attempt will not either. Another server may.
    Final(Error),
    /// This machine or its user, whichever server is asked.
    Local(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Local(e)
    }
}

fn network(what: impl Into<String>, url: &str) -> Error {
    Error::new(Kind::Io, what).at(url)
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_lowercase(), uri.authority()?.as_str().to_lowercase()))
}

fn is_loopback(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a redirect from `url` to `location` leads.
fn redirected(url: &str, location: &str) -> Option<String> {
    if location.starts_with("https://") || location.starts_with("http://") {
        let weaker = url.starts_with("https://") && location.starts_with("http://");
        return (!weaker).then(|| location.to_owned());
    }
    let (scheme, host) = origin(url)?;
    Some(match location.strip_prefix("//") {
        Some(rest) => format!("{scheme}://{rest}"),
        None if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        None => format!("{}/{location}", url.split(['?', '#']).next()?.rsplit_once('/')?.0),
    })
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An entity tag that names the bytes: none if it is weak.
fn strong_tag(headers: &HeaderMap) -> Option<String> {
    header(headers, "etag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned)
}

/// The header that says who asks.
fn authorization(token: &str) -> Result<String> {
    if token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(format!("Bearer {token}"));
    }
    Err(Error::new(
        Kind::Usage,
        "the token for the hub is invalid: it holds a line break or another character of no token",
    )
    .at("HF_TOKEN, or the file that `hf auth login` leaves")
    .next("set HF_TOKEN to the token alone, or log in again"))
}

/// An answer, and whether a token was sent with the request for it.
struct Answer {
    response: Response<Body>,
    with_token: bool,
}

/// Sends a request and follows redirects. `seen` gets the headers of every answer and may say that it is enough.
fn request(
    settings: &Settings,
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    seen: &mut dyn FnMut(&HeaderMap) -> bool,
) -> Result<Answer, Failure> {
    let mut url = url.to_owned();
    for _ in 0..=REDIRECTS {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("lesion-gpu/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.silence.min(Duration::from_secs(10))))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence));
        if is_loopback(&url) {
            config = config.proxy(None);
        }
        let agent = config.build().new_agent();
        let mut request = if method == "HEAD" { agent.head(&url) } else { agent.get(&url) };
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let known = origin(&url).is_some() && origin(&url) == origin(&settings.endpoint);
        let token = settings.token.as_ref().filter(|_| known);
        if let Some(token) = token {
            request = request.header("authorization", authorization(token)?);
        }
        let response = request.call().map_err(|e| {
            let error = network(format!("no answer: {e}"), &url);
            // A server that cannot be found will not be there in a second either.
            if matches!(e, ureq::Error::HostNotFound | ureq::Error::BadUri(_)) {
                Failure::Final(error)
            } else {
                Failure::Again(error)
            }
        })?;
        let enough = seen(response.headers());
        if enough || !response.status().is_redirection() {
            return Ok(Answer { response, with_token: token.is_some() });
        }
        let next = header(response.headers(), "location").and_then(|location| redirected(&url, location));
        url = next.ok_or_else(|| Failure::Final(network("the server redirects to nowhere we may go", &url)))?;
    }
    Err(Failure::Final(network(format!("more than {REDIRECTS} redirects"), &url)))
}

/// What an answer that is no success means.
fn refusal(answer: &Answer, url: &str) -> Failure {
    let status = answer.response.status().as_u16();
    let error = |what: &str| network(format!("{what} (status {status})"), url);
    match status {
        401 if answer.with_token => Failure::Final(error(
            "the server refused the token: correct HF_TOKEN (or the file that `hf auth login` left), or unset it",
        )),
        403 if answer.with_token => Failure::Final(error("the token's account may not have this file")),
        401 | 403 => {
            Failure::Final(error("the server wants to know who asks: set HF_TOKEN to a token of your account"))
        }
        404 | 410 => Failure::Final(error("the server does not have the file")),
        408 | 425 | 429 | 500.. => Failure::Again(error("the server is in trouble")),
        _ => Failure::Final(error("the server answered something else")),
    }
}

/// Runs attempts until one succeeds, or too many in a row got nowhere. An attempt says whether it got further.
fn persistently<T>(
    pauses: &[Duration],
    mut attempt: impl FnMut(&mut bool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut failures = 0;
    loop {
        let mut further = false;
        let error = match attempt(&mut further) {
            Ok(value) => return Ok(value),
            Err(Failure::Again(e)) => e,
            Err(failure) => return Err(failure),
        };
        failures = if further { 0 } else { failures };
        let Some(&pause) = pauses.get(failures) else { return Err(Failure::Final(error)) };
        failures += 1;
        std::thread::sleep(pause);
    }
}

/// The headers of a file, redirects followed until `enough` of them are seen. `None` of a body.
///
/// # Errors
/// If the server cannot be reached or has no such file.
pub(super) fn look_up(
    settings: &Settings,
    url: &str,
    enough: &mut dyn FnMut(&HeaderMap) -> bool,
) -> Result<(), Failure> {
    persistently(&settings.pauses, |_| {
        let mut found = false;
        let answer = request(settings, "HEAD", url, &[], &mut |headers| {
            found = enough(headers);
            found
        })?;
        if found || answer.response.status().is_success() { Ok(()) } else { Err(refusal(&answer, url)) }
    })
}

/// What has been fetched so far.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    /// The greatest length so far: beginning anew up to there is no progress.
    furthest: u64,
}

impl Part {
    /// Opens the part of an earlier attempt, or a new one. Nobody else writes it meanwhile.
    fn open(path: PathBuf, check: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let fail = |e: &std::io::Error| Error::io("write", &path, e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
        }
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(|e| fail(&e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::new(Kind::Io, "another lesion-gpu is fetching this file")
                .at(path.display())
                .next("wait for it to finish, then run this again"));
        }
        let mut hasher = Hasher::default();
        // Through the handle that has the lock: on Windows no other may read.
        let length = hasher.read(&mut file, &path, check)?;
        Ok(Self { path, file, hasher, length, furthest: length })
    }

    fn io(&self, e: &std::io::Error) -> Error {
        Error::io("write", &self.path, e)
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|e| self.io(&e))?;
        (self.hasher, self.length) = (Hasher::default(), 0);
        Ok(())
    }

    /// Appends bytes; returns whether there are now more than there ever were.
    fn append(&mut self, bytes: &[u8]) -> Result<bool> {
        self.file.write_all(bytes).map_err(|e| self.io(&e))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        let further = self.length > self.furthest;
        self.furthest = self.furthest.max(self.length);
        Ok(further)
    }

    /// The file that holds the entity tag of what the part is of.
    fn tag_file(&self) -> PathBuf {
        self.path.with_added_extension("etag")
    }

    fn tag(&self) -> Option<String> {
        std::fs::read_to_string(self.tag_file()).ok().filter(|tag| !tag.is_empty())
    }

    fn set_tag(&self, tag: Option<&str>) -> Result<()> {
        let file = self.tag_file();
        std::fs::write(&file, tag.unwrap_or_default()).map_err(|e| Error::io("write", &file, &e))
    }
}

impl Transfer<'_> {
    /// Fetches the file, checks it, notes its SHA-256 and gives it its name.
    ///
    /// # Errors
    /// [`Kind::Io`] if it cannot be fetched; [`Kind::Weights`] if it is not what it should be, and it is then deleted;
    /// those of `report`. What was fetched until then stays, and is continued by the next transfer of this file.
    pub fn run(&self, report: &mut Report<'_>) -> Result<(), Failure> {
        let digits = self.checksum.digits();
        let path = self.to.with_added_extension(format!("{}.part", &digits[..digits.len().min(16)]));
        let mut part = Part::open(path, &mut || report(0, None))?;
        persistently(&self.settings.pauses, |further| self.attempt(&mut part, report, further))?;
        part.file.sync_all().map_err(|e| part.io(&e))?;
        let found = std::mem::take(&mut part.hasher).hex();
        remove_if_there(&part.tag_file(), "delete")?;
        if !self.checksum.fits(&found) {
            remove_if_there(&part.path, "delete")?;
            let (found, wanted) = (&found[..16], &digits[..digits.len().min(16)]);
            let message = format!("what was fetched is not the file: its SHA-256 begins with {found}, not {wanted}");
            return Err(Failure::Final(
                Error::new(Kind::Weights, message)
                    .at(&self.url)
                    .next("it was deleted: try again; if that repeats, something on the way alters downloads"),
            ));
        }
        // The note first: a file that has its name can always be checked again.
        std::fs::write(&self.note, found + "\n").map_err(|e| Error::io("write", &self.note, &e))?;
        std::fs::rename(&part.path, &self.to).map_err(|e| Error::io("write", &self.to, &e))?;
        Ok(())
    }

    fn attempt(&self, part: &mut Part, report: &mut Report<'_>, further: &mut bool) -> Result<(), Failure> {
        let mut headers = vec![];
        if part.length > 0 {
            headers.push(("range", format!("bytes={}-", part.length)));
            headers.extend(part.tag().map(|tag| ("if-range", tag)));
        }
        let mut answer = request(self.settings, "GET", &self.url, &headers, &mut |_| false)?;
        let response = &answer.response;
        let (status, tag) = (response.status().as_u16(), strong_tag(response.headers()));
        let range = header(response.headers(), "content-range").and_then(ContentRange::parse);
        let total = match status {
            200 => {
                part.restart()?;
                part.set_tag(tag.as_deref())?;
                response.body().content_length()
            }
            206 => {
                let continues = range.is_some_and(|r| r.first == part.length);
                if !continues || (tag.is_some() && part.tag().is_some() && tag != part.tag()) {
                    part.restart()?;
                    return Err(Failure::Again(network("the server does not continue the file", &self.url)));
                }
                range.and_then(|r| r.total)
            }
            416 if part.length > 0 => {
                // All of it may be here already; then its checksum is right.
                if self.checksum.fits(&part.hasher.clone().hex()) {
                    return Ok(());
                }
                part.restart()?;
                return Err(Failure::Again(network("the server does not continue the file", &self.url)));
            }
            _ => return Err(refusal(&answer, &self.url)),
        };
        let mut reader = answer.response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; CHUNK];
        report(part.length, total)?;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    *further |= part.append(&buffer[..n])?;
                    report(part.length, total)?;
                }
                Err(e) => return Err(Failure::Again(network(format!("the transfer broke off: {e}"), &self.url))),
            }
        }
        if total.is_some_and(|total| part.length < total) {
            return Err(Failure::Again(network("the transfer broke off", &self.url)));
        }
        Ok(())
    }
}

/// `Content-Range: bytes first-last/total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        Some(Self { first: first.parse().ok()?, total: total.parse().ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_never_to_less_security() {
        let from = "https://hub.example/a/b?x=/1";
        for (location, to) in [
            ("https://cdn.example/c", Some("https://cdn.example/c")),
            ("http://cdn.example/c", None),
            ("//cdn.example/c", Some("https://cdn.example/c")),
            ("/c?d=e", Some("https://hub.example/c?d=e")),
            ("c", Some("https://hub.example/a/c")),
        ] {
            assert_eq!(redirected(from, location).as_deref(), to, "{location}");
        }
        assert_eq!(redirected("http://a/b", "http://c/d").as_deref(), Some("http://c/d"));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(ContentRange::parse("bytes 5-9/10"), Some(ContentRange { first: 5, total: Some(10) }));
        assert_eq!(ContentRange::parse("bytes 5-9/*"), Some(ContentRange { first: 5, total: None }));
        assert_eq!(ContentRange::parse("bytes */10"), None);
        assert!(
            is_loopback("http://127.0.0.1:80/x") && is_loopback("http://[::1]/") && !is_loopback("http://1.2.3.4/")
        );
    }
}
