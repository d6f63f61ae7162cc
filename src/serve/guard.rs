//! What happens to every request before and after it is done: who may ask, how much at once and for how long, strict headers,
//! counting.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::refusal::Refusal;
use super::routes::{App, OPEN};

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

/// Headers of every answer. The page has no inline script or style, so the policy allows none.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// The most that what stands before a request's body may be.
pub(super) struct Most {
    /// Lines.
    headers: usize,
    /// Bytes of their names and values.
    bytes: usize,
    /// Bytes of what is asked for.
    address: usize,
    /// Lines and bytes that are read at all. What is between these and the others is refused in words; what is above, by its status
    /// alone, since it is no request yet.
    pub parsed_headers: usize,
    pub parsed_bytes: usize,
}

/// What browsers send with all cookies of this machine is less.
pub(super) const MOST: Most =
    Most { headers: 100, bytes: 32 << 10, address: 4 << 10, parsed_headers: 250, parsed_bytes: 64 << 10 };

impl Most {
    /// Checks what stands before a body.
    ///
    /// # Errors
    /// 414 and 431.
    fn check(&self, address: usize, headers: &HeaderMap) -> Result<(), Refusal> {
        if address > self.address {
            let message = format!("the address is longer than {} bytes", self.address);
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "address", message, "see /docs for what there is"));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers.len() > self.headers || bytes > self.bytes {
            let message = format!("there are more than {} headers, or {} KiB of them", self.headers, self.bytes >> 10);
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Refusal::new(status, "headers", message, "send fewer headers, or no cookies"));
        }
        Ok(())
    }
}

/// Who may ask.
#[derive(Debug)]
pub(super) struct Access {
    /// The hash of the token, if one is wanted.
    token: Option<blake3::Hash>,
    /// Listening on the loopback, only requests that name it are answered: a web page whose name was made to point to this machine
    /// could otherwise ask in the user's browser (DNS rebinding).
    local: Option<IpAddr>,
}

impl Access {
    pub fn new(token: Option<&str>, listen: IpAddr) -> Self {
        let token = token.map(|token| blake3::hash(token.as_bytes()));
        Self { token, local: listen.is_loopback().then_some(listen) }
    }

    /// Checks a request to `path`.
    ///
    /// # Errors
    /// 401 and 403.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.local.is_some_and(|own| !names_loopback(host, own)) {
            let message = "the server answers only requests to localhost";
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "host",
                message,
                "open http://localhost with the server's port",
            ));
        }
        // Browsers say which page sends a request; others than ours may not.
        let foreign =
            text(header::ORIGIN).is_some_and(|origin| origin.split_once("://").is_none_or(|(_, of)| of != host));
        let cross = text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site");
        if !OPEN.contains(&path) && (foreign || cross) {
            let message = "requests from other web pages are not answered";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "origin", message, "use the page that this server shows"));
        }
        let Some(token) = self.token.filter(|_| !OPEN.contains(&path)) else { return Ok(()) };
        let bearer = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let given = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        // Hashes are compared in constant time, and say nothing of how far a guess was right.
        match given {
            Some(given) if blake3::hash(given.as_bytes()) == token => Ok(()),
            given => {
                let message = if given.is_some() { "the token is wrong" } else { "this server wants a token" };
                let next = "send the header 'Authorization: Bearer TOKEN'; the server printed it when it started";
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "token", message, next))
            }
        }
    }
}

/// Whether a `Host` header means this machine by its loopback.
fn names_loopback(host: &str, own: IpAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip == own || ip.is_loopback())
}

/// Requests for work that are in progress, by client.
#[derive(Debug, Default)]
pub(super) struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct InProgress {
    client: IpAddr,
    all: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Clients {
    /// All of them.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn enter(&self, client: IpAddr, most: usize, most_of_client: usize) -> Result<InProgress, Refusal> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.get(&client).is_some_and(|&own| own >= most_of_client) {
            let message = format!("{most_of_client} requests of yours are in progress");
            let next = "wait for their answers before sending more";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many", message, next));
        }
        if clients.values().sum::<usize>() >= most {
            return Err(Refusal::busy("too many requests are in progress"));
        }
        *clients.entry(client).or_default() += 1;
        Ok(InProgress { client, all: Arc::clone(&self.0) })
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut clients = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Lets a request through, or not, and finishes its answer.
pub(super) async fn guard(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    // What was asked for may be anything: only routes that there are become names of counters.
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let mut response = match pass(&app, peer.ip(), request, next).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Answers are about patients' pictures, so they are in no cache.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    app.measures.request(&route, response.status().as_u16(), start.elapsed());
    response
}

async fn pass(app: &App, client: IpAddr, request: Request, next: Next) -> Result<Response, Refusal> {
    let address = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    MOST.check(address, request.headers())?;
    app.access.check(request.uri().path(), request.headers())?;
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let _in_progress = app.clients.enter(client, app.limits.requests, app.limits.requests_of_client)?;
    tokio::time::timeout(app.limits.timeout, next.run(request)).await.map_err(|_| Refusal::late())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|&(k, v)| (header::HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    fn status(access: &Access, path: &str, list: &[(&'static str, &'static str)]) -> u16 {
        access.check(path, &headers(list)).err().map_or(200, |refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn on_the_loopback_only_its_names_are_answered() {
        let access = Access::new(None, "127.0.0.1".parse().unwrap());
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(status(&access, "/v1/predict", &[("host", host)]), 200, "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "[::1", "10.0.0.1"] {
            assert_eq!(status(&access, "/", &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn other_pages_may_not_ask() {
        let access = Access::new(None, "127.0.0.1".parse().unwrap());
        let from = |origin| status(&access, "/v1/predict", &[("host", "localhost:1"), ("origin", origin)]);
        assert_eq!(
            ["http://localhost:1", "http://localhost:2", "null", "https://evil.example"].map(from),
            [200, 403, 403, 403]
        );
        let site = |site| status(&access, "/v1/predict", &[("host", "localhost:1"), ("sec-fetch-site", site)]);
        assert_eq!(["same-origin", "none", "cross-site"].map(site), [200, 200, 403]);
    }

    #[test]
    fn elsewhere_a_token_is_wanted() {
        let access = Access::new(Some("0123456789abcdef"), "0.0.0.0".parse().unwrap());
        let with = |value| status(&access, "/v1/predict", &[("host", "clinic:80"), ("authorization", value)]);
        assert_eq!(status(&access, "/v1/predict", &[("host", "clinic:80")]), 401);
        assert_eq!(with("Bearer 0123456789abcdef"), 200);
        assert_eq!(with("bearer 0123456789abcdef"), 200);
        for wrong in ["Bearer 0123456789abcdeF", "Bearer", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef"] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&access, "/healthz", &[("host", "clinic:80")]), 200);
    }

    #[test]
    fn what_stands_before_a_body_has_limits() {
        let many = |n: usize, bytes: usize| -> HeaderMap {
            let value = HeaderValue::from_bytes(&vec![b'x'; bytes]).unwrap();
            (0..n)
                .map(|i| (header::HeaderName::from_bytes(format!("h-{i:03}").as_bytes()).unwrap(), value.clone()))
                .collect()
        };
        let status = |address, headers: &HeaderMap| {
            MOST.check(address, headers).err().map(|r| r.into_response().status().as_u16())
        };
        assert_eq!([0, 4096, 4097].map(|address| status(address, &many(1, 1))), [None, None, Some(414)]);
        assert_eq!([100, 101].map(|n| status(1, &many(n, 1))), [None, Some(431)]);
        // Names are five bytes long.
        assert_eq!([(32 << 10) - 5, (32 << 10) - 4].map(|bytes| status(1, &many(1, bytes))), [None, Some(431)]);
    }

    #[test]
    fn a_client_has_so_many_at_once() {
        let (clients, one, other) = (Clients::default(), "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let enter = |client| clients.enter(client, 3, 2).map_err(|refusal| refusal.into_response().status().as_u16());
        let first = enter(one).ok();
        let _second = enter(one).ok();
        assert_eq!(enter(one).err(), Some(429));
        let _third = enter(other).ok();
        assert_eq!(enter(other).err(), Some(503));
        drop(first);
        assert!(enter(other).is_ok());
        assert_eq!(clients.count(), 2);
    }
}
