//! `serve` as a client sees it: what it answers, what it refuses, and how it stops.

mod common;

#[path = "serve/client.rs"]
mod client;
#[path = "serve/hostile.rs"]
mod hostile;
#[path = "serve/lost.rs"]
mod lost;
#[path = "serve/patience.rs"]
mod patience;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::{Answer, Server, assert_same, encoded, form, models, picture_of, pictures, probabilities, send};
use common::{fails, ok};
use image::ImageFormat;
use serde_json::Value;

#[test]
fn it_answers_as_the_other_commands_do() {
    let Some(folder) = models() else { return };
    let own = tempfile::tempdir().unwrap();
    let dir = own.path();
    let server = Server::start(folder, &["classes", "masks.safetensors"], &["--batch", "4"]);
    let pictures = pictures();
    let files: Vec<(String, Vec<u8>)> =
        pictures.iter().enumerate().map(|(i, p)| (format!("p{i}.png"), encoded(p, ImageFormat::Png))).collect();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
    let run = |name: &str| folder.join(name).display().to_string();
    let printed = |args: &[&str]| -> Vec<Value> { serde_json::from_str(&ok(dir, args)).unwrap() };

    // One picture, as `predict` labels it.
    let (classes, masks) = (run("classes"), run("masks.safetensors"));
    let told = &printed(&["predict", &classes, "p0.png", "--top-k", "7", "--format", "json"])[0];
    let answer = server.post("/v1/predict", "image/png", &files[0].1).good();
    let image = &answer["images"][0];
    let scores = told["top"].as_array().unwrap().iter();
    let scores: Vec<(String, f64)> =
        scores.map(|c| (c["class"].as_str().unwrap().to_owned(), c["score"].as_f64().unwrap())).collect();
    assert_same(&probabilities(image), &scores);
    assert_eq!((&image["label"], &image["width"], &image["height"]), (&told["label"], &64.into(), &48.into()));
    assert_eq!(answer["temperature"], told["temperature"]);
    assert_eq!(answer["note"], "For research. Not a diagnosis.");

    // Several, more than a batch has: in order, each as by itself.
    let parts: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let all = server.form("/v1/predict", &parts).good();
    assert_eq!(all["images"].as_array().unwrap().len(), pictures.len());
    for ((name, bytes), image) in files.iter().zip(all["images"].as_array().unwrap()) {
        assert_eq!(image["name"], name.as_str());
        let alone = server.post("/v1/predict", "application/octet-stream", bytes).good();
        assert_same(&probabilities(&alone["images"][0]), &probabilities(image));
    }

    // Masks, as `predict --out` draws them; points of the outline lie on the picture, and around what is inside.
    let drawn = printed(&["predict", &masks, "p1.png", "--out", "masks", "--format", "json"]);
    let segmented = server.post("/v1/segment", "image/png", &files[1].1).good();
    let image = &segmented["images"][0];
    assert_eq!(image["share"], drawn[0]["share"]);
    assert!(drawn[0]["shape"]["area"].as_u64().is_some_and(|area| area > 0), "{}", drawn[0]);
    assert_eq!(image["shape"], drawn[0]["shape"]);
    let mask = image::open(dir.join("masks/p1_segmentation.png")).unwrap().into_luma8();
    assert_eq!(picture_of(&image["mask"]).into_luma8(), mask);
    let points: Vec<&Value> =
        image["contours"].as_array().unwrap().iter().flat_map(|ring| ring.as_array().unwrap()).collect();
    assert_eq!(points.is_empty(), mask.pixels().all(|p| p[0] == 0));
    assert!(points.iter().all(|p| p[0].as_u64().unwrap() <= 40 && p[1].as_u64().unwrap() <= 70), "{points:?}");

    // Maps, as `explain` draws them.
    let told = &printed(&["explain", &classes, "p3.png", "--class", "mel", "--out", "maps", "--format", "json"])[0];
    let map = server.post("/v1/explain?class=mel", "image/png", &files[3].1).good()["images"][0].clone();
    for key in ["class", "method", "layer"] {
        assert_eq!(map[key], told[key], "{key}");
    }
    assert!((map["probability"].as_f64().unwrap() - told["probability"].as_f64().unwrap()).abs() < 1e-6, "{told}");
    for (key, file) in [("overlay", "maps/p3_overlay.png"), ("heat", "maps/p3_heat.png")] {
        assert_eq!(picture_of(&map[key]).into_rgb8(), image::open(dir.join(file)).unwrap().into_rgb8(), "{key}");
    }
    let predicted = server.form("/v1/explain", &parts[..2]).good();
    for (image, predicted) in predicted["images"].as_array().unwrap().iter().zip(all["images"].as_array().unwrap()) {
        assert_eq!(image["class"], predicted["label"]);
    }

    // Pictures instead of JSON.
    for (path, key) in [("/v1/explain?class=mel", "overlay"), ("/v1/segment", "mask")] {
        let png = server.ask("POST", path, &["Content-Type: image/png", "Accept: image/png"], &files[3].1);
        assert!(png.status == 200 && png.head.contains("content-type: image/png"), "{png:?}");
        let json = server.post(path, "image/png", &files[3].1).good();
        assert_eq!(
            image::load_from_memory(&png.body).unwrap().into_rgb8(),
            picture_of(&json["images"][0][key]).into_rgb8()
        );
        let two = server.ask(
            "POST",
            path,
            &["Content-Type: multipart/form-data; boundary=XX", "Accept: image/png"],
            &form(&parts[..2]),
        );
        two.refused(400, "bad-request");
    }

    what_it_tells(&server);
    what_it_refuses(&server, &files[0].1);
    // Nothing was written.
    let written = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some()).collect()
    };
    assert_eq!(written(folder), [folder.join("masks.safetensors")]);
}

/// The pages, the models, the counters, the headers.
fn what_it_tells(server: &Server) {
    let model = server.get("/v1/model").good();
    let classes = model["predict"]["classes"].as_array().unwrap();
    assert!(classes.iter().any(|c| c["class"] == "mel" && c["guide"]["title"] == "Melanoma"), "{model}");
    assert_eq!(model["predict"]["models"][0]["name"], "simple-cnn");
    assert_eq!(model["segment"]["models"][0]["name"], "unet-small");
    assert_eq!(model["explain"]["layer"], "conv3");
    assert!(!model.to_string().contains('/'), "no path: {model}");
    for (path, kind, words) in [
        ("/", "text/html", "For research. Not a diagnosis."),
        ("/style.css", "text/css", ":root"),
        ("/app.js", "text/javascript", "/v1/predict"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        ("/docs", "text/html", "POST /v1/predict"),
        ("/healthz", "text/plain", "ok"),
        ("/metrics", "text/plain; version=0.0.4", "lesion_gpu_requests_total{route=\"/v1/predict\",status=\"200\"}"),
        ("/openapi.json", "application/json", "\"openapi\":\"3.1.0\""),
    ] {
        let answer = server.get(path);
        assert!(
            answer.status == 200 && answer.head.contains(&format!("content-type: {kind}")),
            "{path}: {}",
            answer.head
        );
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let metrics = server.get("/metrics").text();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // Six by themselves and five in one request, which needs two batches.
    assert_eq!(value("lesion_gpu_images_total{work=\"predict\"}"), 11.0);
    assert!(value("lesion_gpu_batches_total{work=\"predict\"}") >= 8.0);
    assert_eq!(value("lesion_gpu_queue_length"), 0.0);

    // The page has nothing inline and nothing from elsewhere, so the strictest policy fits; errors have the headers too.
    let page = server.get("/").text();
    for foreign in ["http:", "https:", "//", "<style", "style=", "onclick", "onload", "javascript:"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for answer in [server.get("/"), server.get("/nothing"), server.post("/v1/predict", "text/plain", b"")] {
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(answer.head.contains(header), "{header}: {}", answer.head);
        }
        assert!(
            !answer.head.contains("access-control-allow") && !answer.head.contains("unsafe-inline"),
            "{}",
            answer.head
        );
    }
}

/// What is wrong is said, with its status, and the server lives on.
fn what_it_refuses(server: &Server, png: &[u8]) {
    let post = |kind: &str, body: &[u8]| server.post("/v1/predict", kind, body);
    server.get("/nothing").refused(404, "not-found");
    for path in
        ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/style.css/../../Cargo.toml", "/v1/model/"]
    {
        server.get(path).refused(404, "not-found");
    }
    for (method, path) in [("GET", "/v1/predict"), ("PUT", "/v1/segment"), ("DELETE", "/"), ("OPTIONS", "/v1/explain")]
    {
        server.ask(method, path, &[], &[]).refused(405, "method");
    }
    post("text/plain", png).refused(415, "media-type");
    server.ask("POST", "/v1/predict", &[], png).refused(415, "media-type");
    post("image/png", b"GIF89a, says its first bytes").refused(415, "media-type");
    post("image/png", b"no picture at all").refused(415, "media-type");
    post("image/png", b"").refused(400, "bad-request");
    server.post("/v1/explain?class=nothing", "image/png", png).refused(400, "bad-request");

    // Forms: broken, empty, with too many parts, and with names that mean mischief.
    post("multipart/form-data", png).refused(400, "bad-request");
    post("multipart/form-data; boundary=XX", b"--XX\r\nContent-Disp").refused(400, "bad-request");
    server.form("/v1/predict", &[]).refused(400, "bad-request");
    let many: Vec<(&str, &[u8])> = vec![("a", png); 17];
    server.form("/v1/predict", &many).refused(413, "too-large");
    let thousands: Vec<(&str, &[u8])> = vec![("a", b"x"); 20_000];
    server.form("/v1/predict", &thousands).refused(413, "too-large");
    let named = server.form("/v1/predict", &[("../../../etc/passwd", png), ("C:\\Windows\\x.png", png)]).good();
    assert_eq!((&named["images"][0]["name"], &named["images"][1]["name"]), (&"passwd".into(), &"x.png".into()));

    // Damaged pictures: which one is said. The others of the request are not answered.
    let jpeg = encoded(&pictures()[0], ImageFormat::Jpeg);
    let message = post("image/jpeg", &jpeg[..jpeg.len() / 2]).refused(400, "image");
    assert!(message.starts_with("the image: ") && message.contains("truncated"), "{message}");
    let message =
        server.form("/v1/predict", &[("one.png", png), ("two.png", &png[..png.len() / 2])]).refused(400, "image");
    assert!(message.starts_with("image 2 ('two.png'): "), "{message}");

    // Bombs: small files that say they are large, in pixels and in bytes.
    let bomb = |width: u32, height: u32| {
        let mut bytes = png.to_vec();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        bytes
    };
    let message = post("image/png", &bomb(7000, 7000)).refused(413, "too-large");
    assert!(message.contains("7000x7000") && message.contains("40.0 million"), "{message}");
    assert!([400, 413].contains(&post("image/png", &bomb(60_000, 60_000)).status));
    assert_eq!(post("image/png", &bomb(0, 10)).status, 400);
    let mut stream = server.connect();
    send(&mut stream, "POST", "/v1/predict", &["Content-Type: image/png"], 21 << 20, b"");
    let message = Answer::read(stream).refused(413, "too-large");
    assert!(message.contains("20.0 MiB"), "{message}");

    // Only this machine's own names are answered, and only its own page may ask.
    let by = |headers: &[&str], path: &str| server.ask("GET", path, headers, &[]);
    by(&["Host: evil.example"], "/").refused(403, "host");
    by(&["Host: 127.0.0.1.evil.example"], "/v1/model").refused(403, "host");
    by(&["Host: localhost:1", "Origin: http://evil.example"], "/v1/model").refused(403, "origin");
    assert_eq!(by(&[&format!("Host: {}", server.address)], "/v1/model").status, 200);
    post("image/png", png).good();
}

/// Whatever `predict` takes for a model, and all views of each picture, as it shows them.
#[test]
fn it_takes_bare_weights_and_shows_all_views_as_predict_does() {
    let Some(folder) = models() else { return };
    let own = tempfile::tempdir().unwrap();
    let dir = own.path();
    let file = |name: &str| dir.join(name).display().to_string();
    let weights = file("bare.safetensors");
    ok(folder, &["export", "classes", "--out", &weights]);
    let pictures = pictures();
    let png = encoded(&pictures[1], ImageFormat::Png);
    std::fs::write(dir.join("p.png"), &png).unwrap();
    let bare = ["--model", "simple-cnn", "--weights", &weights, "--size", "32", "--classes", "a,b,c,d,e,f,g"];
    let masks = folder.join("masks.safetensors").display().to_string();
    let server = Server::start(folder, &["masks.safetensors"], &[&bare[..], &["--tta", "--batch", "2"]].concat());

    let printed = |args: &[&str]| -> Value {
        let all: Vec<Value> =
            serde_json::from_str(&ok(dir, &[&["predict", "--format", "json"], args].concat())).unwrap();
        all[0].clone()
    };
    let scores = |told: &Value| -> Vec<(String, f64)> {
        let scores = told["top"].as_array().unwrap().iter();
        scores.map(|c| (c["class"].as_str().unwrap().to_owned(), c["score"].as_f64().unwrap())).collect()
    };
    let told = printed(&[&["p.png", "--tta", "--top-k", "7"], &bare[..]].concat());
    let plain = printed(&[&["p.png", "--top-k", "7"], &bare[..]].concat());
    let answer = server.post("/v1/predict", "image/png", &png).good();
    assert_same(&probabilities(&answer["images"][0]), &scores(&told));
    assert_eq!((&answer["views"], &told["views"]), (&8.into(), &8.into()));
    // The views differ, so this is not what the plain picture gives.
    let sorted = |mut scores: Vec<(String, f64)>| {
        scores.sort_by(|a, b| a.0.cmp(&b.0));
        scores
    };
    let (views, plain) = (sorted(scores(&told)), sorted(scores(&plain)));
    assert!(views.iter().zip(&plain).any(|(a, b)| (a.1 - b.1).abs() > 1e-5), "{views:?} {plain:?}");

    let drawn = printed(&[&masks, "p.png", "--tta", "--out", "masks"]);
    let segmented = server.post("/v1/segment", "image/png", &png).good();
    let image = &segmented["images"][0];
    assert_eq!((&image["shape"], &segmented["views"]), (&drawn["shape"], &8.into()));
    let mask = image::open(dir.join("masks/p_segmentation.png")).unwrap().into_luma8();
    assert_eq!(picture_of(&image["mask"]).into_luma8(), mask);
    let model = server.get("/v1/model").good();
    for part in ["predict", "segment"] {
        assert_eq!(model[part]["models"][0]["views"], 8, "{model}");
    }
    // What is explained is the picture as it is.
    let map = server.post("/v1/explain", "image/png", &png).good();
    assert_eq!((&map["views"], &map["models"]), (&Value::Null, &1.into()));
    let document = server.get("/openapi.json").text();
    assert!(document.contains("\"views\"") && document.contains("\"asymmetry\""), "{document}");
}

#[test]
fn too_much_is_refused_and_the_server_lives_on() {
    let Some(folder) = models() else { return };
    let flags = [
        "--queue",
        "4",
        "--max-files",
        "4",
        "--batch",
        "4",
        "--max-wait",
        "1500",
        "--read-timeout",
        "2",
        "--max-body",
        "1",
        "--max-requests",
        "6",
        "--max-requests-of-client",
        "5",
    ];
    let server = Server::start(folder, &["classes"], &flags);
    let png = encoded(&pictures()[0], ImageFormat::Png);
    let part: (&str, &[u8]) = ("a.png", &png);
    server.post("/v1/segment", "image/png", &png).refused(404, "not-found");

    // Three wait for a fourth to fill their batch; two more have no place.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.form("/v1/predict", &[part; 3]));
        std::thread::sleep(Duration::from_millis(500));
        let full = server.form("/v1/predict", &[part; 2]);
        assert!(full.refused(503, "busy").contains("waiting") && full.head.contains("retry-after: 1"), "{}", full.head);
        // One more fills the batch, and nobody waits any longer.
        let start = Instant::now();
        server.post("/v1/predict", "image/png", &png).good();
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert_eq!(waits.join().unwrap().good()["images"].as_array().unwrap().len(), 3);
    });
    let batches = "lesion_gpu_batches_total{work=\"predict\"} 1";
    assert!(server.get("/metrics").text().lines().any(|line| line == batches), "{}", server.get("/metrics").text());

    // Slow senders: each holds a place until it is told that it is too slow.
    let mut slow: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
    for stream in &mut slow {
        send(stream, "POST", "/v1/predict", &["Content-Type: image/png"], png.len(), &png[..10]);
    }
    std::thread::sleep(Duration::from_millis(300));
    let other = server.post("/v1/predict", "image/png", &png);
    other.refused(429, "too-many");
    assert!(other.head.contains("retry-after: 1"), "{}", other.head);
    slow.into_iter().for_each(|stream| drop(Answer::read(stream).refused(408, "slow")));
    // And of headers: the connection is closed.
    let mut stream = server.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").unwrap();
    let (start, mut rest) = (Instant::now(), vec![]);
    let _ = stream.read_to_end(&mut rest);
    assert!(start.elapsed() < Duration::from_secs(20) && !String::from_utf8_lossy(&rest).contains("200"), "{rest:?}");
    // Without a length, what comes is counted.
    let mut stream = server.connect();
    let head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\n\
                Transfer-Encoding: chunked\r\n\r\n100001\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&vec![0; (1 << 20) + 1]);
    Answer::read(stream).refused(413, "too-large");

    // A flood: everybody gets an answer, in words if it is no.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || {
            let answer = server.form("/v1/predict", &[part; 2]);
            if answer.status != 200 {
                answer.json();
            }
            answer.status
        };
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.iter().any(|&status| status != 200), "{statuses:?}");
    server.post("/v1/predict", "image/png", &png).good();
    assert_eq!(server.get("/healthz").text(), "ok\n");
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("lesion_gpu_requests_total{route=\"/v1/predict\",status=\"408\"} 5"), "{metrics}");
    assert!(metrics.contains("lesion_gpu_requests_in_progress 0"), "{metrics}");
}

#[test]
fn elsewhere_it_wants_a_token_and_it_stops_when_told() {
    let Some(folder) = models() else { return };
    let server = Server::start(
        folder,
        &["classes", "classes"],
        &["--listen", "0.0.0.0:0", "--max-wait", "1000", "--batch", "4"],
    );
    let token = server.token.clone().expect("a token is printed");
    assert!(token.len() == 32 && token.chars().all(|c| c.is_ascii_hexdigit()), "{token}");
    let png = encoded(&pictures()[0], ImageFormat::Png);
    let with = |authorization: &str| {
        let headers = ["Host: clinic.example", "Content-Type: image/png", authorization];
        server.ask("POST", "/v1/predict", &headers, &png)
    };
    let refused = with("X-None: 1");
    refused.refused(401, "token");
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    with("Authorization: Bearer 00000000000000000000000000000000").refused(401, "token");
    with(&format!("Authorization: Basic {token}")).refused(401, "token");
    for path in ["/v1/model", "/metrics"] {
        server.get(path).refused(401, "token");
    }
    for path in ["/", "/app.js", "/healthz", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    // Twice the same run: their mean is what each says.
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(with(&bearer).good()["models"], 2);

    #[cfg(unix)]
    {
        let mut server = server;
        // What was begun is answered, then the program ends well.
        let mut stream = server.connect();
        send(&mut stream, "POST", "/v1/predict", &["Content-Type: image/png", &bearer], png.len(), &png);
        std::thread::sleep(Duration::from_millis(300));
        server.terminate();
        Answer::read(stream).good();
        let status = server.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let Some(folder) = models() else { return };
    assert!(fails(folder, 2, &["serve", "classes", "--listen", "somewhere"]).contains("--listen"));
    assert!(fails(folder, 2, &["serve", "classes", "--token", "short"]).contains("at least 16"));
    assert!(fails(folder, 2, &["serve", "classes", "--queue", "4", "--max-files", "8"]).contains("--queue"));
    assert!(fails(folder, 2, &["serve", "classes", "--size", "64"]).contains("--size is for bare weights"));
    assert!(fails(folder, 2, &["serve", "--model", "simple-cnn"]).contains("--weights"));
    assert!(fails(folder, 2, &["serve"]).contains("RUN"));
    assert!(fails(folder, 2, &["serve", "classes", "--layer", "none", "--listen", "127.0.0.1:0"]).contains("conv3"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(fails(folder, 11, &["serve", "classes", "--listen", &address]).contains("could not listen"));
    assert!(fails(folder, 11, &["serve", "nothing-here", "--listen", "127.0.0.1:0"]).contains("nothing-here"));
}
