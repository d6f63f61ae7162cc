//! Fetching published weights, from servers on the loopback that behave well and badly.

#[path = "common/server.rs"]
mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lesion_gpu::hub::{Known, Progress, Settings, Source};
use lesion_gpu::{Error, Kind, Result};
use server::{Reply, Request, Server, serve, sha256};

/// A file that takes several reads.
fn content() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn settings(endpoint: &str, folder: &Path) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        offline: None,
        token: None,
        hub_cache: None,
        torch_cache: None,
        folder: folder.to_owned(),
        pauses: vec![Duration::from_millis(5); 3],
        silence: Duration::from_millis(400),
    }
}

const HUB: &[Source] = &[Source::Hub { repository: "org/net", file: "model.safetensors" }];

fn known(sources: &'static [Source]) -> Known {
    Known { model: "resnet18", sources, normalize: "imagenet", size: 224, licence: "none" }
}

/// A file published at a URL of a server, whose name has the checksum of `content`.
fn published(server: &Server, content: &[u8]) -> Known {
    let url = format!("{}/models/net-{}.pth", server.address, &sha256(content)[..8]);
    known(Box::leak(Box::new([Source::Url(Box::leak(url.into_boxed_str()))])))
}

fn fetch(settings: &Settings, known: &Known) -> Result<PathBuf> {
    settings.weights(known, &mut |_| Ok(()))
}

/// The files under a folder, by name.
fn files(folder: &Path) -> Vec<String> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => names.extend(files(&path)),
            path => names.push(path.file_name().unwrap().to_string_lossy().into_owned()),
        }
    }
    names.sort();
    names
}

/// Ends a transfer once something is there, as Ctrl-C does.
fn interrupt(progress: Progress<'_>) -> Result<()> {
    match progress {
        Progress::Fetching(_, done, _) if done > 0 => Err(Error::new(Kind::Interrupted, "interrupted")),
        _ => Ok(()),
    }
}

#[test]
fn a_file_of_the_hub_is_found_by_redirect_and_the_token_stays_at_home() {
    let bytes = content();
    let store = Server::with_file(bytes.clone());
    let (to, hash) = (format!("{}/blob?signed=1", store.address), sha256(&bytes));
    let hub = Server::new(move |request, _| match request.path.as_str() {
        // A repository that was renamed.
        "/org/net/resolve/main/model.safetensors" => Reply::new(307).with("location", "/org/new/resolve/main/x"),
        _ => Reply::new(302).with("location", to.clone()).with("x-linked-etag", format!("\"{hash}\"")),
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { token: Some("secret".into()), ..settings(&hub.address, folder.path()) };
    let mut seen = vec![];
    let path = settings
        .weights(&known(HUB), &mut |progress| {
            if let Progress::Fetching(name, done, total) = progress {
                seen.push((name.to_owned(), done, total));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(seen.last(), Some(&("org/net".to_owned(), bytes.len() as u64, Some(bytes.len() as u64))));
    assert_eq!(files(folder.path()), ["model.safetensors", "model.safetensors.sha256"]);
    assert!(hub.requests().iter().all(|r| r.header("authorization") == Some("Bearer secret")));
    assert!(store.requests().iter().all(|r| r.header("authorization").is_none()), "the token went elsewhere");
    // The next time nobody is asked.
    let before = hub.requests().len();
    assert_eq!(fetch(&settings, &known(HUB)).unwrap(), path);
    assert_eq!((hub.requests().len(), store.gets().len()), (before, 1));
    // Unless the file was damaged meanwhile.
    std::fs::write(&path, b"damaged").unwrap();
    assert_eq!(std::fs::read(fetch(&settings, &known(HUB)).unwrap()).unwrap(), bytes);
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_was() {
    let bytes = content();
    let server = Server::with_file(bytes.clone());
    let folder = tempfile::tempdir().unwrap();
    let (settings, known) = (settings("http://127.0.0.1:1", folder.path()), published(&server, &bytes));
    assert_eq!(settings.weights(&known, &mut interrupt).unwrap_err().kind(), Kind::Interrupted);
    assert!(files(folder.path()).iter().any(|name| name.ends_with(".part")), "{:?}", files(folder.path()));
    let path = fetch(&settings, &known).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let second = &server.gets()[1];
    assert!(second.first().is_some_and(|first| first > 0), "{second:?}");
    assert_eq!(second.header("if-range"), Some(format!("\"{}\"", sha256(&bytes)).as_str()));
    assert_eq!(files(folder.path()).len(), 2, "{:?}", files(folder.path()));
}

#[test]
fn a_transfer_that_breaks_off_or_falls_silent_goes_on_by_itself() {
    let bytes = content();
    for silent in [false, true] {
        let served = bytes.clone();
        let server = Server::new(move |request, before| {
            let reply = serve(&served, request);
            let half = reply.body.len() / 2;
            match before {
                0..3 => Reply {
                    promised: Some(reply.body.len()),
                    body: reply.body[..half].to_vec(),
                    silence: [Duration::ZERO, Duration::from_secs(if silent { 2 } else { 0 })],
                    ..reply
                },
                _ => reply,
            }
        });
        let folder = tempfile::tempdir().unwrap();
        // More breaks than failures in a row are allowed: each got further.
        let settings = Settings { pauses: vec![Duration::ZERO; 1], ..settings("http://127.0.0.1:1", folder.path()) };
        let path = fetch(&settings, &published(&server, &bytes)).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        let firsts: Vec<_> = server.gets().iter().map(Request::first).collect();
        assert_eq!(firsts, [None, Some(150_000), Some(225_000), Some(262_500)]);
    }
}

#[test]
fn a_server_that_cannot_go_on_begins_anew() {
    let bytes = content();
    type Answer = fn(&[u8]) -> Reply;
    let ways: [(&str, Answer); 4] = [
        ("ignores the range", |bytes| Reply::new(200).body(bytes)),
        ("has no such range", |_| Reply::new(416)),
        ("sends another range", |bytes| Reply::new(206).with("content-range", "bytes 7-9/300000").body(&bytes[7..10])),
        ("has another version", |bytes| {
            let first = 150_000;
            Reply::new(206)
                .with("content-range", format!("bytes {first}-299999/300000"))
                .with("etag", "\"another\"")
                .body(&bytes[first..])
        }),
    ];
    for (what, reply) in ways {
        let served = bytes.clone();
        let server = Server::new(move |request, before| match before {
            0 => Reply { promised: Some(300_000), ..serve(&served, request).body(&served[..150_000]) },
            1 => reply(&served),
            _ => serve(&served, request),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = fetch(&settings("http://127.0.0.1:1", folder.path()), &published(&server, &bytes));
        assert_eq!(std::fs::read(path.unwrap()).unwrap(), bytes, "{what}");
    }
}

#[test]
fn trouble_passes_or_ends_in_advice() {
    let bytes = content();
    let served = bytes.clone();
    let troubled = Server::new(move |request, before| match before {
        0 => Reply::new(503),
        1 => Reply::new(500),
        2 => Reply { silence: [Duration::from_secs(2), Duration::ZERO], ..Reply::new(200) },
        _ => serve(&served, request),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = fetch(&settings("http://127.0.0.1:1", folder.path()), &published(&troubled, &bytes)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);

    let statuses: [(u16, usize, &str); 4] =
        [(500, 4, "in trouble"), (404, 1, "does not have the file"), (401, 1, "HF_TOKEN"), (418, 1, "something else")];
    for (status, requests, says) in statuses {
        let server = Server::new(move |_, _| Reply::new(status));
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&server.address, folder.path());
        let error = fetch(&settings, &known(HUB)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Io, "{text}");
        let url = format!("{}/org/net/resolve/main/model.safetensors", server.address);
        let place = folder.path().join("models--org--net").join("model.safetensors").display().to_string();
        for part in [says, &url, &place, "--weights model.safetensors --normalize imagenet", "--pretrained"] {
            assert!(text.contains(part), "no '{part}' in: {text}");
        }
        assert_eq!(server.requests().len(), requests, "{status}");
        // The advice is right.
        let file = Path::new(&place);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"by hand").unwrap();
        assert_eq!(fetch(&settings, &known(HUB)).unwrap(), file);
    }
}

#[test]
fn nobody_there_is_an_error_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    // Somebody who says nothing.
    let begun = Instant::now();
    let settings_ =
        Settings { pauses: vec![], silence: Duration::from_millis(200), ..settings(&address, folder.path()) };
    assert_eq!(fetch(&settings_, &known(HUB)).unwrap_err().kind(), Kind::Io);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(listener);
    assert_eq!(fetch(&settings(&address, folder.path()), &known(HUB)).unwrap_err().kind(), Kind::Io);
    assert_eq!(
        fetch(&settings("http://no.such.host.invalid", folder.path()), &known(HUB)).unwrap_err().kind(),
        Kind::Io
    );
}

#[test]
fn a_wrong_checksum_is_an_error_and_nothing_stays() {
    let bytes = content();
    let served = bytes.clone();
    let server = Server::new(move |request, before| match before {
        0 => serve(&served[1..], request),
        _ => serve(&served, request),
    });
    let folder = tempfile::tempdir().unwrap();
    let (settings, known) = (settings("http://127.0.0.1:1", folder.path()), published(&server, &bytes));
    let error = fetch(&settings, &known).unwrap_err();
    assert_eq!(error.kind(), Kind::Weights, "{error}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
    assert_eq!(std::fs::read(fetch(&settings, &known).unwrap()).unwrap(), bytes);
}

#[test]
fn a_server_without_a_checksum_is_not_trusted() {
    let server = Server::new(|_, _| Reply::new(200).with("etag", "\"v1\"").body(b"x"));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&settings(&server.address, folder.path()), &known(HUB)).unwrap_err();
    assert!(error.to_string().contains("no SHA-256"), "{error}");
    assert!(server.gets().is_empty());
}

#[test]
fn the_next_source_is_tried() {
    let bytes = content();
    let (hub, other) = (Server::new(|_, _| Reply::new(404)), Server::with_file(bytes.clone()));
    let sources = [HUB, published(&other, &bytes).sources].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = fetch(&settings(&hub.address, folder.path()), &known(Box::leak(sources.into_boxed_slice()))).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[test]
fn offline_nobody_is_asked() {
    let server = Server::with_file(content());
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { offline: Some("HF_HUB_OFFLINE"), ..settings(&server.address, folder.path()) };
    let error = fetch(&settings, &known(HUB)).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.to_string().contains("--weights"), "{error}");
    assert!(server.requests().is_empty());
}

#[cfg(unix)]
#[test]
fn what_other_tools_have_fetched_is_used_if_it_is_whole() {
    let bytes = content();
    let server = Server::new(|_, _| Reply::new(404));
    let folder = tempfile::tempdir().unwrap();
    let (hub, torch) = (folder.path().join("hub"), folder.path().join("torch"));
    let settings = Settings {
        offline: Some("HF_HUB_OFFLINE"),
        hub_cache: Some(hub.clone()),
        torch_cache: Some(torch.clone()),
        ..settings(&server.address, &folder.path().join("own"))
    };
    // As huggingface_hub lays it out.
    let repository = hub.join("models--org--net");
    let (snapshot, blob) = (repository.join("snapshots").join("abc"), repository.join("blobs").join(sha256(&bytes)));
    for path in [&snapshot, blob.parent().unwrap(), &repository.join("refs")] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(repository.join("refs").join("main"), "abc").unwrap();
    std::fs::write(&blob, &bytes).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join("model.safetensors")).unwrap();
    assert_eq!(fetch(&settings, &known(HUB)).unwrap(), snapshot.join("model.safetensors"));
    std::fs::write(&blob, &bytes[1..]).unwrap();
    assert!(fetch(&settings, &known(HUB)).is_err());
    // As torch.hub does.
    let known = published(&server, &bytes);
    let file = torch.join(format!("net-{}.pth", &sha256(&bytes)[..8]));
    std::fs::create_dir_all(&torch).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(fetch(&settings, &known).unwrap(), file);
    std::fs::write(&file, &bytes[1..]).unwrap();
    assert!(fetch(&settings, &known).is_err());
}

#[test]
fn two_at_a_time_do_not_mix() {
    let bytes = content();
    let served = bytes.clone();
    let server = Server::new(move |request, _| Reply {
        silence: [Duration::from_millis(300), Duration::ZERO],
        ..serve(&served, request)
    });
    let folder = tempfile::tempdir().unwrap();
    let (settings, known) = (settings("http://127.0.0.1:1", folder.path()), published(&server, &bytes));
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| fetch(&settings, &known))).collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let (right, wrong): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(std::fs::read(right[0].as_ref().unwrap()).unwrap(), bytes);
    for error in wrong {
        assert!(error.unwrap_err().to_string().contains("another lesion-gpu"));
    }
}

/// Beginning anew up to the same place is no progress.
#[test]
fn a_server_that_always_breaks_at_the_same_place_is_given_up() {
    let bytes = content();
    let server = Server::new({
        let bytes = bytes.clone();
        move |_, before| {
            assert!(before < 50, "it goes on for ever");
            Reply { promised: Some(bytes.len()), ..Reply::new(200).body(&bytes[..150_000]) }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&settings("http://127.0.0.1:1", folder.path()), &published(&server, &bytes)).unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error}");
    // The first got somewhere; then as many as there are pauses, and the last.
    assert_eq!(server.requests().len(), 5 - 1);
}

/// What this machine refuses is said as it is, and no other server is asked.
#[test]
fn trouble_on_this_machine_is_not_the_networks() {
    let bytes = content();
    let (first, second) = (Server::with_file(bytes.clone()), Server::with_file(bytes.clone()));
    let sources = [published(&first, &bytes).sources, published(&second, &bytes).sources].concat();
    let known = known(Box::leak(sources.into_boxed_slice()));
    let folder = tempfile::tempdir().unwrap();
    let settings = settings("http://127.0.0.1:1", folder.path());

    let part = format!("net-{}.pth.{}.part", &sha256(&bytes)[..8], &sha256(&bytes)[..8]);
    std::fs::create_dir_all(folder.path().join("torchvision")).unwrap();
    let part = std::fs::File::create(folder.path().join("torchvision").join(part)).unwrap();
    part.lock().unwrap();
    let error = fetch(&settings, &known).unwrap_err();
    assert!(error.what().contains("another lesion-gpu") && error.to_string().contains("wait for it"), "{error}");
    drop(part);

    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = fetch(&Settings { folder: file.join("hub"), ..settings }, &known).unwrap_err();
    assert!(error.kind() == Kind::Io && error.what().starts_with("could not write"), "{error}");
    assert!(second.requests().is_empty());
}

/// A file that is not the published one may be somebody's own: it stays until the right one is there.
#[test]
fn a_wrong_file_is_named_and_stays_until_it_is_replaced() {
    let bytes = content();
    let server = Server::with_file(bytes.clone());
    let known = published(&server, &bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torchvision").join(format!("net-{}.pth", &sha256(&bytes)[..8]));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"mine").unwrap();
    let online = settings("http://127.0.0.1:1", folder.path());
    let offline = Settings { offline: Some("TRANSFORMERS_OFFLINE"), ..online.clone() };
    let mut wrong = vec![];
    let mut report = |progress: Progress<'_>| {
        if let Progress::Wrong(path) = progress {
            wrong.push(path.to_owned());
        }
        Ok(())
    };
    let error = offline.weights(&known, &mut report).unwrap_err();
    assert!(error.what().contains("TRANSFORMERS_OFFLINE forbids"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    assert_eq!(std::fs::read(online.weights(&known, &mut report).unwrap()).unwrap(), bytes);
    assert_eq!(wrong, [path.clone(), path.clone()]);
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_of_others_that_cannot_be_read_is_as_good_as_absent() {
    let bytes = content();
    let server = Server::with_file(bytes.clone());
    let known = published(&server, &bytes);
    let folder = tempfile::tempdir().unwrap();
    // A file whose reading fails, also for those who may read everything.
    let name = format!("net-{}.pth", &sha256(&bytes)[..8]);
    std::os::unix::fs::symlink("/proc/self/mem", folder.path().join(name)).unwrap();
    let settings = settings("http://127.0.0.1:1", &folder.path().join("own"));
    let settings = Settings { torch_cache: Some(folder.path().to_owned()), ..settings };
    assert_eq!(std::fs::read(fetch(&settings, &known).unwrap()).unwrap(), bytes);
}

#[test]
fn a_token_that_is_refused_or_invalid_is_named() {
    let server = Server::new(|_, _| Reply::new(401));
    let folder = tempfile::tempdir().unwrap();
    let with = |token: &str| {
        let settings = Settings { token: Some(token.into()), ..settings(&server.address, folder.path()) };
        fetch(&settings, &known(HUB)).unwrap_err()
    };
    let error = with("expired");
    assert!(error.what().contains("refused the token"), "{error}");
    assert_eq!(server.requests().len(), 1);
    let error = with("two\nlines");
    assert!(error.kind() == Kind::Usage && error.what().contains("the token for the hub is invalid"), "{error}");
    assert!(!error.to_string().contains("lines"), "a token is nobody's business: {error}");
    assert_eq!(server.requests().len(), 1);
}
