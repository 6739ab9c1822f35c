//! Registries that break off, are busy, or lie.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use larder_oci::{Descriptor, media_type};
use larder_registry::{BlobSink, Client, ErrorKind, Partial, RegistryConfig};
use larder_testkit::{WebAnswer as Answer, WebRequest as Request, WebServer as Server};

use crate::{Fixture, busybox, client, config, digest_of, fetch, fixture, recorded};

/// Starts a server that forwards all requests, and gives `change` the answers about blobs, with
/// how many of these came before.
fn meddle<F>(fixture: &Fixture, change: F) -> Server
where
    F: Fn(&Request, Answer, usize) -> Answer + Send + Sync + 'static,
{
    let upstream = fixture.registry.host().to_owned();
    let blobs = Mutex::new(0);
    Server::start(move |request, _| {
        let answer = request.forward(&upstream, &[]);
        if !request.is_blob() {
            return answer;
        }
        let number = {
            let mut blobs = blobs.lock().unwrap();
            *blobs += 1;
            *blobs - 1
        };
        change(request, answer, number)
    })
}

/// After how many bytes of a blob the connection breaks.
const PIECE: usize = 100_000;

#[tokio::test]
async fn downloads_that_break_off_are_resumed() {
    let fixture = fixture!();
    for without_length in [false, true] {
        let server = meddle(fixture, move |_, answer, _| {
            let answer = answer.cut_after(PIECE);
            if without_length {
                answer.without_length()
            } else {
                answer
            }
        });
        let (client, recorder) = recorded(server.host());
        let bytes = fetch(&client, server.host(), &fixture.layer())
            .await
            .unwrap();
        assert_eq!(bytes, fixture.layer_bytes());

        // More pieces than attempts: each that brings bytes begins the count anew.
        let ranges: Vec<Option<String>> = server
            .requests()
            .iter()
            .map(|request| request.header("range").map(str::to_owned))
            .collect();
        assert_eq!(ranges.len(), bytes.len().div_ceil(PIECE));
        assert!(ranges.len() > 5);
        assert_eq!(ranges[0], None);
        assert_eq!(ranges[2], Some(format!("bytes={}-", 2 * PIECE)));
        assert_eq!(recorder.retries.lock().unwrap().len(), ranges.len() - 1);
        let received = recorder.received.lock().unwrap();
        assert!(received.is_sorted());
        assert_eq!(received.last(), Some(&(bytes.len() as u64)));
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_beginning_again() {
    let fixture = fixture!();
    let upstream = fixture.registry.host().to_owned();
    let server = Server::start(move |request, number| {
        let answer = request.forward(&upstream, &["range"]);
        if number == 0 {
            answer.cut_after(300_000)
        } else {
            answer
        }
    });
    let bytes = fetch(&client(server.host()), server.host(), &fixture.layer())
        .await
        .unwrap();
    assert_eq!(bytes, fixture.layer_bytes());
    assert_eq!(server.requests()[1].header("range"), Some("bytes=300000-"));
}

#[tokio::test]
async fn busy_registries_are_asked_again() {
    let fixture = fixture!();
    let busy = |status: u16| Answer::status(status).body("later");
    for trouble in [
        busy(429).header("Retry-After", "0"),
        busy(500),
        busy(502),
        busy(503),
        busy(504),
        Answer::status(200)
            .header("content-length", "10")
            .cut_after(0),
    ] {
        let upstream = fixture.registry.host().to_owned();
        let answer = trouble.clone();
        // Both the manifest and the blob fail twice first.
        let counts = Mutex::new([0; 2]);
        let server = Server::start(move |request, _| {
            let mut counts = counts.lock().unwrap();
            let count = &mut counts[usize::from(request.is_blob())];
            *count += 1;
            if *count <= 2 && request.method == "GET" {
                answer.clone()
            } else {
                request.forward(&upstream, &[])
            }
        });
        let client = client(server.host());
        let host = server.host();
        let digest = &fixture.manifest.digest;
        let manifest = client.fetch_manifest(&busybox(host), digest).await;
        assert_eq!(
            manifest.unwrap().descriptor,
            fixture.manifest,
            "{trouble:?}"
        );
        if trouble.status != 200 {
            let bytes = fetch(&client, host, &fixture.layer()).await.unwrap();
            assert_eq!(bytes, fixture.layer_bytes(), "{trouble:?}");
        }
    }
}

#[tokio::test]
async fn attempts_have_an_end() {
    for (answer, attempts_count) in [
        (Answer::status(503), 5),
        (Answer::status(429).header("Retry-After", "0"), 5),
        // Longer than larder waits.
        (Answer::status(429).header("Retry-After", "3600"), 1),
    ] {
        let server = Server::start(move |_, _| answer.clone());
        let error = client(server.host())
            .resolve(&busybox(server.host()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(server.requests().len(), attempts_count);
    }
}

type Lie = fn(&mut Answer);

#[tokio::test]
async fn other_bytes_are_refused() {
    let fixture = fixture!();
    let lies: [(&str, Lie); 4] = [
        ("sent other bytes as", |answer| answer.body[1000] ^= 1),
        ("bytes, not", |answer| {
            answer.body.push(0);
            answer.headers.retain(|(name, _)| name != "content-length");
        }),
        ("sent more than the", |answer| {
            answer.body.push(0);
            answer.without_length = true;
        }),
        ("sent no bytes of", |answer| answer.status = 204),
    ];
    for (what, lie) in lies {
        let server = meddle(fixture, move |_, mut answer, _| {
            lie(&mut answer);
            answer
        });
        let layer = fixture.layer();
        let mut sink = Vec::new();
        let client = client(server.host());
        let image_ref = busybox(server.host());
        let fetched = client.fetch_blob(&image_ref, &layer, Partial::default(), &mut sink);
        let error = fetched.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(
            text.contains(what) && text.contains(layer.digest.as_str()),
            "{text}"
        );
        assert!(sink.is_empty(), "wrong bytes are not kept");
        assert_eq!(server.requests().len(), 1, "a liar is not asked again");
    }
}

#[tokio::test]
async fn another_range_than_asked_for_is_refused() {
    let fixture = fixture!();
    let server = meddle(fixture, |_, mut answer, number| {
        for (name, value) in &mut answer.headers {
            if name == "content-range" {
                *value = value.replace("bytes 1000-", "bytes 0-");
            }
        }
        if number == 0 {
            answer.cut_after(1000)
        } else {
            answer
        }
    });
    let error = fetch(&client(server.host()), server.host(), &fixture.layer())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains("sent another range of"),
        "{error}"
    );
}

#[tokio::test]
async fn where_a_mirror_lies_the_registry_is_asked() {
    let fixture = fixture!();
    let mirror = meddle(fixture, |_, mut answer, _| {
        answer.body[1000] ^= 1;
        answer
    });
    let host = fixture.registry.host();
    let mut config = config(mirror.host());
    let section = RegistryConfig {
        http: Some(true),
        mirrors: vec![mirror.host().to_owned()],
        ..RegistryConfig::default()
    };
    config.registries.insert(host.to_owned(), section);
    let bytes = fetch(&Client::new(config), host, &fixture.layer())
        .await
        .unwrap();
    assert_eq!(bytes, fixture.layer_bytes());
    assert_eq!(mirror.requests().len(), 1);
}

#[tokio::test]
async fn another_manifest_and_one_without_end_are_refused() {
    let manifest = r#"{"schemaVersion":2,"config":{}}"#;
    let server = Server::start(move |_, _| {
        Answer::status(200)
            .header("Content-Type", media_type::MANIFEST)
            .body(manifest)
    });
    let host = server.host();
    let asked = digest_of(b"another");
    let error = client(host)
        .fetch_manifest(&busybox(host), &asked)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(asked.as_str()), "{error}");
    let pinned = busybox(host).with_digest(asked);
    assert_eq!(
        client(host).resolve(&pinned).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );

    let server = Server::start(|_, _| Answer::status(200).body(vec![b' '; (4 << 20) + 1]));
    let host = server.host();
    let error = client(host).resolve(&busybox(host)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("4194304"), "{error}");

    let server = Server::start(|_, _| Answer::json("[]"));
    let host = server.host();
    let error = client(host).resolve(&busybox(host)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_fetch() {
    struct Full;
    impl BlobSink for Full {
        fn write(&mut self, _chunk: &[u8]) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn restart(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let fixture = fixture!();
    let host = fixture.registry.host();
    let error = client(host)
        .fetch_blob(
            &busybox(host),
            &fixture.layer(),
            Partial::default(),
            &mut Full,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sink);
}

#[tokio::test]
async fn digests_that_larder_cannot_compute_are_refused_before_any_request() {
    let digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let blob = Descriptor::new(media_type::LAYER, digest, 1);
    let error = fetch(&client("registry.invalid"), "registry.invalid", &blob)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn at_most_four_blobs_are_fetched_at_once() {
    /// How many requests are being served, and how many were at most.
    #[derive(Default)]
    struct Count {
        now: usize,
        most: usize,
    }
    let shared = Arc::new((Mutex::new(Count::default()), Condvar::new()));
    let inside = Arc::clone(&shared);
    let server = Server::start(move |_, _| {
        let (count, changed) = &*inside;
        let mut count = count.lock().unwrap();
        count.now += 1;
        count.most = count.most.max(count.now);
        changed.notify_all();
        // Waits for a fifth, which must not come.
        let wait = changed.wait_timeout_while(count, Duration::from_millis(100), |c| c.most < 5);
        let (mut count, _) = wait.unwrap();
        count.now -= 1;
        Answer::status(200).body("x")
    });
    let client = client(server.host());
    let blob = Descriptor::of(media_type::LAYER, b"x");
    let mut fetches = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, blob, host) = (client.clone(), blob.clone(), server.host().to_owned());
        fetches.spawn(async move { fetch(&client, &host, &blob).await });
    }
    while let Some(fetched) = fetches.join_next().await {
        assert_eq!(fetched.unwrap().unwrap(), b"x");
    }
    assert_eq!(shared.0.lock().unwrap().most, 4);
}
