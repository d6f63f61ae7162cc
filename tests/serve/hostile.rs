//! Requests that mean no good. Each is answered in words where it is a request at all, tells nothing of the inside, and the server
//! lives on.

use std::io::{Cursor, Read as _, Write as _};
use std::sync::OnceLock;

use image::{DynamicImage, ImageFormat};

use super::client::{Answer, Server, encoded, form, models, pictures};

/// A server that does not wait long.
fn server(runs: &[&str]) -> Option<Server> {
    Some(Server::start(models()?, runs, &["--read-timeout", "2", "--timeout", "60", "--batch", "1"]))
}

fn png() -> &'static [u8] {
    static PNG: OnceLock<Vec<u8>> = OnceLock::new();
    PNG.get_or_init(|| encoded(&pictures()[0], ImageFormat::Png))
}

/// Sends bytes as they are, and reads until the server closes. Whoever is refused early may see the connection reset.
fn raw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let (mut stream, mut answer) = (server.connect(), vec![]);
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The only answer to such bytes.
fn answer(server: &Server, bytes: &[u8]) -> Answer {
    Answer::parse(&raw(server, bytes))
        .unwrap_or_else(|| panic!("no answer to {}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])))
}

fn alive(server: &Server) {
    assert_eq!(server.get("/healthz").text(), "ok\n");
}

/// Answered by the status alone, before it is a request.
fn bare(server: &Server, bytes: &[u8], status: u16) {
    let answer = answer(server, bytes);
    assert_eq!((answer.status, answer.body.len()), (status, 0), "{answer:?}");
    alive(server);
}

fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    [format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").as_bytes(), body].concat()
}

#[test]
fn pictures_and_forms_that_mean_no_good() {
    let Some(server) = server(&["classes", "masks.safetensors"]) else { return };
    let refused = |path: &str, kind: &str, body: &[u8], status: u16, word: &str| {
        let message = server.post(path, kind, body).refused(status, word);
        alive(&server);
        message
    };

    // Forms.
    let many: Vec<(&str, &[u8])> = vec![("a.png", png()); 10_000];
    let of_many = form(&many.iter().map(|(name, _)| (*name, &b"x"[..])).collect::<Vec<_>>());
    refused("/v1/predict", "multipart/form-data; boundary=XX", &of_many, 413, "too-large");
    let headers: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let of_headers = format!("--XX\r\n{headers}\r\nx\r\n--XX--\r\n");
    refused("/v1/predict", "multipart/form-data; boundary=XX", of_headers.as_bytes(), 400, "bad-request");
    let nested =
        b"--XX\r\nContent-Disposition: form-data; name=\"f\"\r\nContent-Type: multipart/mixed; boundary=YY\r\n\r\n\
                   --YY\r\nContent-Type: image/png\r\n\r\nx\r\n--YY--\r\n\r\n--XX--\r\n";
    refused("/v1/predict", "multipart/form-data; boundary=XX", nested, 415, "media-type");
    for body in [
        &b""[..],
        b"--XX",
        b"--XX--",
        b"--XX\r\n\r\n",
        b"--XX\r\n\r\nno end",
        b"--YY\r\n\r\nx\r\n--YY--",
        b"\r\n",
        &[0; 999],
    ] {
        refused("/v1/segment", "multipart/form-data; boundary=XX", body, 400, "bad-request");
    }
    let long = format!("multipart/form-data; boundary={}", "X".repeat(10_000));
    for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data;;;", &long] {
        refused("/v1/explain", kind, &form(&[("a.png", png())]), 400, "bad-request");
    }
    // Names are what they are; what else a form says of its parts is no matter.
    server.form("/v1/predict", &[("x\u{202e}gnp.<script>';DROP", b"no picture")]).refused(415, "media-type");
    server.form("/v1/predict", &[("nul\0.png", png())]).refused(400, "bad-request");

    // Kinds.
    for kind in [
        "text/html",
        "application/json",
        "image",
        "/",
        ";",
        "multipart/mixed; boundary=XX",
        "application/x-www-form-urlencoded",
    ] {
        refused("/v1/predict", kind, png(), 415, "media-type");
    }
    let kind = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\nContent-Type: im\xffage/png\r\n\r\nx";
    self::answer(&server, kind).refused(415, "media-type");

    // Cut off.
    let whole = encoded(&pictures()[3], ImageFormat::Png);
    let picture = DynamicImage::from(pictures()[3].clone());
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Bmp] {
        let mut bytes = Cursor::new(vec![]);
        picture.write_to(&mut bytes, format).unwrap();
        let bytes = bytes.into_inner();
        server.post("/v1/predict", "image/png", &bytes).good();
        for part in [30, 50, 70, 90] {
            let message = refused("/v1/predict", "image/png", &bytes[..bytes.len() * part / 100], 400, "image");
            assert!(message.starts_with("the image: "), "{format:?} {part} %: {message}");
        }
    }
    // Noise behind intact first bytes.
    for from in [12, 40, 100] {
        let mut bytes = whole.clone();
        bytes[from..].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 73 + from) as u8);
        refused("/v1/segment", "image/png", &bytes, 400, "image");
    }

    // Bombs: a header that claims much, and a picture that is as large as it says in few bytes.
    let mut claims = png().to_vec();
    claims[16..24].copy_from_slice(&[60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    let mut crc = flate2::Crc::new();
    crc.update(&claims[12..29]);
    claims[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    refused("/v1/predict", "image/png", &claims, 400, "image");
    let blank = |side: u32| {
        let mut bytes = Cursor::new(vec![]);
        image::GrayImage::new(side, side).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let bomb = blank(7000);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let message = refused("/v1/predict", "image/png", &bomb, 413, "too-large");
    assert!(message.contains("7000x7000"), "{message}");
    // Within the limit it is answered, however few its bytes are.
    let large = server.post("/v1/predict", "image/png", &blank(4000)).good();
    assert_eq!(large["images"][0]["width"], 4000);
    alive(&server);
}

#[test]
fn addresses_and_headers_that_mean_no_good() {
    let Some(server) = server(&["classes"]) else { return };
    let get = |path: &str| answer(&server, &request(&format!("GET {path}"), &[], b""));

    for path in [
        "/../../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/style.css/",
        "/style.css%00.png",
        "/v1/../v1/model",
        "/%",
        "/%zz",
        "/C:/Windows/win.ini",
        "/\\..\\..",
        "/.git/config",
        "*",
        "http://localhost/nothing",
    ] {
        get(path).refused(404, "not-found");
        alive(&server);
    }
    for query in ["class=%ff", "class=%00", "class=", "class=nv&class=mel", "class=../../etc/passwd"] {
        let bytes = request(
            &format!("POST /v1/explain?{query}"),
            &["Content-Type: image/png", &format!("Content-Length: {}", png().len())],
            png(),
        );
        answer(&server, &bytes).refused(400, "bad-request");
    }
    get(&format!("/{}", "a".repeat(5000))).refused(414, "address");
    get(&format!("/v1/model?{}", "a".repeat(5000))).refused(414, "address");
    // Above what is read at all there are no words.
    bare(&server, &request(&format!("GET /{}", "a".repeat(66_000)), &[], b""), 431);
    for path in ["/a\0b", "/\x01", "/\x7f", ""] {
        bare(&server, &request(&format!("GET {path}"), &[], b""), 400);
    }

    // Headers: many, large, and both more than is read at all.
    let lines = |count: usize| -> Vec<String> { (0..count).map(|i| format!("X-{i}: y")).collect() };
    let with = |lines: &[String]| request("GET /healthz", &lines.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    assert_eq!(answer(&server, &with(&lines(98))).status, 200);
    assert!(answer(&server, &with(&lines(99))).refused(431, "headers").contains("100"));
    bare(&server, &with(&lines(300)), 431);
    let huge = |bytes: usize| [format!("Cookie: {}", "c".repeat(bytes))];
    assert_eq!(answer(&server, &with(&huge(30_000))).status, 200);
    answer(&server, &with(&huge(40_000))).refused(431, "headers");
    bare(&server, &with(&huge(100_000)), 431);
    bare(&server, &with(&["No colon".to_owned()]), 400);
    bare(&server, &with(&["Sp ace: x".to_owned()]), 400);
    bare(&server, &with(&["Nul: \0".to_owned()]), 400);

    // Methods.
    for method in ["BREW", "TRACE", "get", "PATCH", "PROPFIND", "X".repeat(2000).as_str()] {
        answer(&server, &request(&format!("{method} /v1/predict"), &[], b"")).refused(405, "method");
    }
    bare(&server, &request("G(T /", &[], b""), 400);
    let connect = answer(&server, &request("CONNECT localhost:22", &[], b""));
    connect.refused(404, "not-found");

    // No HTTP at all, or not of this version.
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        bare(&server, bytes, 400);
    }
    for bytes in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET /\r\n\r\n", b"\r\n\r\n\r\n", b"", &[0xff; 5000]] {
        let said = raw(&server, bytes);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&said));
        alive(&server);
    }
}

#[test]
fn lengths_that_mean_no_good() {
    let Some(server) = server(&["classes"]) else { return };
    let post = |headers: &[&str], body: &[u8]| {
        request("POST /v1/predict", &[&["Content-Type: image/png"], headers].concat(), body)
    };
    for length in ["abc", "-1", "1, 2", "99999999999999999999999", "0x10", "1 1"] {
        bare(&server, &post(&[&format!("Content-Length: {length}")], png()), 400);
    }
    bare(&server, &post(&["Content-Length: 5", "Content-Length: 6"], png()), 400);
    bare(&server, &post(&["Content-Length: 18446744073709551615"], png()), 431);
    answer(&server, &post(&["Content-Length: 9999999999"], b"")).refused(413, "too-large");
    // Less comes than was said: it is waited for until the limit, or until the client has gone.
    answer(&server, &post(&["Content-Length: 5000"], b"x")).refused(408, "slow");

    // Chunks. Where a length is said besides, it does not count, and what follows on the connection is not read: a proxy before the
    // server might take it for something else.
    let chunked = |headers: &[&str], close: bool| {
        let mut bytes = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n".to_vec();
        bytes.extend(if close { &b"Connection: close\r\n"[..] } else { b"" });
        headers.iter().for_each(|header| bytes.extend([header.as_bytes(), b"\r\n"].concat()));
        bytes.extend(format!("\r\n{:x}\r\n", png().len()).as_bytes());
        bytes.extend([png(), b"\r\n0\r\n\r\n"].concat());
        bytes
    };
    let chunks = "Transfer-Encoding: chunked";
    for (headers, statuses) in [
        (&[chunks][..], &[200, 404][..]),
        (&["Content-Length: 3", chunks], &[200]),
        (&[chunks, "Content-Length: 3"], &[200]),
    ] {
        answer(&server, &chunked(headers, true)).good();
        let two = [chunked(headers, false), request("GET /nothing", &[], b"")].concat();
        let answers = Answer::parse_all(&raw(&server, &two));
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), statuses, "{headers:?}");
    }
    bare(&server, &post(&["Transfer-Encoding: gzip"], png()), 400);
    bare(&server, &post(&["Transfer-Encoding: chunked, gzip"], png()), 400);
    for body in [
        "zz\r\n",
        "5\r\nhello world",
        "-5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "5;ext\r\nhello\r\n0\r\nTrailer\r\n\r\n",
    ] {
        answer(&server, &post(&["Transfer-Encoding: chunked"], body.as_bytes())).refused(400, "bad-request");
        alive(&server);
    }

    // One after the other on the same connection, sent at once: answered in order, refused ones too.
    let again = |line: &str, headers: &str, body: &[u8]| {
        [
            format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
            body,
        ]
        .concat()
    };
    let all = [
        again("GET /healthz", "", b""),
        again("POST /v1/predict", "Content-Type: image/png\r\n", png()),
        again("POST /v1/predict", "Content-Type: image/png\r\n", b"no picture"),
        again("POST /nothing", "", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        again("GET /v1/model", "", b""),
        request("DELETE /", &[], b""),
    ];
    let answers = Answer::parse_all(&raw(&server, &all.concat()));
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 415, 404, 200, 405]);
    alive(&server);
}

#[test]
fn tokens_that_are_none() {
    let Some(folder) = models() else { return };
    let token = "0123456789abcdefghij";
    let server = Server::start(folder, &["classes"], &["--token", token]);
    let with = |headers: &[&[u8]]| {
        let lines: Vec<u8> = headers.iter().flat_map(|header| [header, &b"\r\n"[..]].concat()).collect();
        answer(
            &server,
            &[b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", lines.as_slice(), b"\r\n"]
                .concat(),
        )
    };
    let long = ["Authorization: Bearer ", &"0123456789abcdefghij".repeat(1000)].concat();
    let headers: [&[u8]; 10] = [
        b"Authorization:",
        b"Authorization: Bearer",
        b"Authorization: Bearer ",
        b"Authorization: Bearer 0123456789abcdefghi",
        b"Authorization: Bearer 0123456789abcdefghij0123456789abcdefghij",
        b"Authorization: Bearer \xff\xfe0123456789abcdefghij",
        b"Authorization: Bearer 0123456789abcdefghij\xc3\xa9",
        b"Authorization: Bearer Bearer 0123456789abcdefghij",
        b"Authorization: 0123456789abcdefghij",
        long.as_bytes(),
    ];
    for header in headers {
        let answer = with(&[header]);
        answer.refused(401, "token");
        assert!(!answer.text().contains(token), "{}", answer.text());
    }
    // The first one counts, and nowhere else is it looked for.
    let right = format!("Authorization: Bearer {token}");
    with(&[b"Authorization: Bearer wrong", right.as_bytes()]).refused(401, "token");
    with(&[format!("Cookie: token={token}").as_bytes()]).refused(401, "token");
    server.get(&format!("/v1/model?token={token}")).refused(401, "token");
    with(&[right.as_bytes()]).good();
    alive(&server);
}
