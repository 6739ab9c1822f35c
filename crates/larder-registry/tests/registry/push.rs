//! Pushes to Debian's registry, by way of a proxy that breaks things, and to hand-made registries.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use larder_oci::{Descriptor, ImageRef, media_type};
use larder_registry::{
    BlobPush, BlobSource, Client, Config, ErrorKind, KnownLogin, Partial, Pushed, RegistryConfig,
};
use larder_testkit::{
    Fault, FaultProxy, On, Registry, RegistryOptions, WebAnswer as Answer, WebServer as Server,
    skip,
};

use crate::{Recorder, config, image};

/// Larger blobs go in several pieces in these tests.
const PIECE: usize = 100_000;
const UPLOADS: &str = "/blobs/uploads/";

/// A registry of the test's own behind a proxy.
struct Setup {
    registry: Registry,
    proxy: FaultProxy,
}

impl Setup {
    fn new(options: &RegistryOptions) -> anyhow::Result<Self> {
        let registry = Registry::start_with(options)?;
        let proxy = FaultProxy::start(registry.host())?;
        Ok(Self { registry, proxy })
    }

    fn image(&self, name: &str) -> ImageRef {
        image(self.proxy.host(), name)
    }

    fn client(&self) -> Client {
        self.recorded().0
    }

    fn recorded(&self) -> (Client, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let config = Config {
            observer: recorder.clone(),
            piece_bytes: PIECE as u64,
            ..config(self.proxy.host())
        };
        (Client::new(config), recorder)
    }

    /// Returns what the registry itself says is the blob's content.
    fn stored(&self, repository: &str, blob: &Descriptor) -> Vec<u8> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        self.registry.request("GET", &path, &[], &[]).unwrap().body
    }
}

macro_rules! setup {
    () => {
        match Setup::new(&RegistryOptions::default()) {
            Ok(setup) => setup,
            Err(error) => skip!("no registry: {error:#}"),
        }
    };
}

/// Returns `length` bytes that differ with `seed`, all of them letters.
fn letters(length: usize, seed: usize) -> Vec<u8> {
    let letter = |at: usize| b'a' + ((at * at + seed) % 26) as u8;
    (0..length).map(letter).collect()
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::LAYER, bytes)
}

async fn push(
    client: &Client,
    image_ref: &ImageRef,
    bytes: &Vec<u8>,
    mount_from: &[&str],
) -> Result<Pushed, larder_registry::Error> {
    let mount_from: Vec<String> = mount_from.iter().map(|&from| from.to_owned()).collect();
    client
        .push_blob(&BlobPush {
            image_ref,
            descriptor: &layer(bytes),
            source: bytes,
            mount_from: &mount_from,
            on_sent: &|_| {},
        })
        .await
}

/// Returns the manifest of an image with these blobs.
fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<Descriptor> = layers.iter().map(|bytes| layer(bytes)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": Descriptor::of(media_type::CONFIG, config),
        "layers": layers,
    });
    serde_json::to_vec(&manifest).unwrap()
}

#[tokio::test]
async fn what_is_pushed_can_be_fetched_and_is_sent_once() {
    let setup = setup!();
    let client = setup.client();
    let tagged = setup.image("team/app:1");
    let (config, small, large) = (b"{}".to_vec(), letters(10, 0), letters(3 * PIECE + 7, 1));
    let blobs = [&config, &small, &large];
    for bytes in blobs {
        assert_eq!(
            push(&client, &tagged, bytes, &[]).await.unwrap(),
            Pushed::Uploaded
        );
    }
    let document = manifest(&config, &[&small, &large]);
    let put = client.push_manifest(&tagged, media_type::MANIFEST, &document);
    assert_eq!(put.await.unwrap(), Pushed::Uploaded);
    let total: usize = blobs.iter().map(|bytes| bytes.len()).sum();
    assert_eq!(setup.proxy.uploaded_bytes(), total as u64);
    assert_eq!(
        setup.proxy.count("PATCH", UPLOADS),
        3,
        "pieces of the large one"
    );
    assert_eq!(setup.proxy.count("PUT", UPLOADS), 3);

    let resolved = client.resolve(&tagged).await.unwrap().descriptor;
    assert_eq!(resolved, Descriptor::of(media_type::MANIFEST, &document));
    let mut fetched = Vec::new();
    let (blob, whole) = (layer(&large), Partial::default());
    let fetch = client.fetch_blob(&tagged, &blob, whole, &mut fetched);
    fetch.await.unwrap();
    assert_eq!(fetched, large);

    setup.proxy.forget();
    for bytes in blobs {
        assert_eq!(
            push(&client, &tagged, bytes, &[]).await.unwrap(),
            Pushed::Existed
        );
    }
    let again = client.push_manifest(&tagged, media_type::MANIFEST, &document);
    assert_eq!(again.await.unwrap(), Pushed::Existed);
    for name in [
        "team/app:2".to_owned(),
        format!("team/app@{}", resolved.digest),
    ] {
        let name = setup.image(&name);
        let put = client.push_manifest(&name, media_type::MANIFEST, &document);
        put.await.unwrap();
        assert_eq!(client.resolve(&name).await.unwrap().descriptor, resolved);
    }
    assert_eq!(setup.proxy.uploaded_bytes(), 0);
    assert_eq!(setup.proxy.count("POST", ""), 0);
}

#[tokio::test]
async fn blobs_are_taken_from_other_repositories() {
    let setup = setup!();
    let client = setup.client();
    let bytes = letters(5000, 2);
    push(&client, &setup.image("team/base:1"), &bytes, &[])
        .await
        .unwrap();
    setup.proxy.forget();
    let other = setup.image("team/other:1");
    let pushed = push(&client, &other, &bytes, &["team/nothing", "team/base"]).await;
    assert_eq!(pushed.unwrap(), Pushed::Mounted("team/base".to_owned()));
    assert_eq!(setup.proxy.uploaded_bytes(), 0);
    assert_eq!(setup.stored("team/other", &layer(&bytes)), bytes);

    // Where that does not help, the upload that the registry has begun is used.
    setup.proxy.forget();
    let third = setup.image("team/third:1");
    let pushed = push(&client, &third, &bytes, &["team/nothing"]).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(setup.proxy.count("POST", UPLOADS), 1);

    // An offer sends nothing.
    setup.proxy.forget();
    let fourth = setup.image("team/fourth:1");
    let blob = layer(&bytes);
    let offer = client.offer_blob(&fourth, &blob, &[]);
    assert_eq!(offer.await.unwrap(), None);
    assert_eq!(setup.proxy.uploaded_bytes(), 0);
    assert!(!client.has_blob(&fourth, &blob).await.unwrap());
    assert!(client.has_blob(&third, &blob).await.unwrap());
}

#[tokio::test]
async fn uploads_go_on_after_a_fault() {
    let setup = setup!();
    let (patch, put) = (On::new("PATCH", UPLOADS), On::new("PUT", UPLOADS));
    let size = 3 * PIECE;
    let busy = Fault::Answer {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "0".to_owned())],
        body: b"later".to_vec(),
    };
    // What befalls which request, and the bytes that are sent in all.
    let faults = [
        (patch.clone().after(1), Fault::answer(500), size + PIECE),
        (
            patch.clone().after(1).times(3),
            Fault::answer(503),
            size + 3 * PIECE,
        ),
        (patch.clone().after(1), busy, size + PIECE),
        (put.clone(), Fault::answer(502), size + PIECE),
        // The registry has all: it is not sent again.
        (put.clone(), Fault::LoseAnswer, size),
        // It forgets an upload of which a piece was answered to nobody.
        (patch.clone().after(1), Fault::LoseAnswer, 2 * PIECE + size),
        (On::new("POST", UPLOADS), Fault::answer(503), size),
        (On::new("HEAD", "/blobs/"), Fault::LoseAnswer, size),
        (
            On::new("POST", UPLOADS),
            Fault::Delay(Duration::from_millis(50)),
            size,
        ),
    ];
    for (number, (on, fault, sent)) in faults.into_iter().enumerate() {
        let bytes = letters(size, 100 + number);
        let (client, recorder) = setup.recorded();
        setup.proxy.forget();
        setup.proxy.inject(on, fault.clone());
        let name = setup.image("team/app:1");
        let pushed = push(&client, &name, &bytes, &[]).await;
        assert_eq!(pushed.unwrap(), Pushed::Uploaded, "{fault:?}");
        assert_eq!(setup.proxy.uploaded_bytes(), sent as u64, "{fault:?}");
        assert_eq!(setup.stored("team/app", &layer(&bytes)), bytes);
        let is_failure = !matches!(fault, Fault::Delay(_));
        let retries = recorder.retries.lock().unwrap().len();
        assert_eq!(retries > 0, is_failure, "{fault:?}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_half_a_piece() {
    let setup = setup!();
    let size = 3 * PIECE;
    let bytes = letters(size, 150);
    let (client, recorder) = setup.recorded();
    let second = On::new("PATCH", UPLOADS).after(1);
    setup.proxy.inject(second, Fault::CutRequest(1000));
    let name = setup.image("team/app:1");
    let pushed = push(&client, &name, &bytes, &[]).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(setup.stored("team/app", &layer(&bytes)), bytes);
    assert!(!recorder.retries.lock().unwrap().is_empty());
    // The registry forgets the upload as soon as it sees that the piece broke off. Asked before that,
    // it wants the next piece, and then refuses it.
    let forgotten = PIECE + 1000 + size;
    let sent = setup.proxy.uploaded_bytes() as usize;
    assert!(
        [forgotten, forgotten + PIECE].contains(&sent),
        "{sent} bytes were sent"
    );
}

#[tokio::test]
async fn manifests_go_on_after_a_fault() {
    let setup = setup!();
    let client = setup.client();
    let config = b"{}".to_vec();
    push(&client, &setup.image("team/app:1"), &config, &[])
        .await
        .unwrap();
    for (number, fault) in [Fault::answer(503), Fault::LoseAnswer, Fault::CutRequest(3)]
        .into_iter()
        .enumerate()
    {
        let document = manifest(&config, &[]);
        let name = setup.image(&format!("team/app:{number}"));
        setup.proxy.inject(On::new("PUT", "/manifests/"), fault);
        let put = client.push_manifest(&name, media_type::MANIFEST, &document);
        assert_eq!(put.await.unwrap(), Pushed::Uploaded);
        assert_eq!(
            client.resolve(&name).await.unwrap().descriptor,
            Descriptor::of(media_type::MANIFEST, &document)
        );
    }
}

#[tokio::test]
async fn a_registry_that_takes_one_piece_only_gets_one() {
    let setup = setup!();
    let client = setup.client();
    for (number, status) in [400, 404, 405, 416].into_iter().enumerate() {
        let bytes = letters(3 * PIECE, 200 + number);
        setup.proxy.forget();
        setup
            .proxy
            .inject(On::new("PATCH", UPLOADS).after(1), Fault::answer(status));
        let name = setup.image("team/app:1");
        push(&client, &name, &bytes, &[]).await.unwrap();
        assert_eq!(setup.stored("team/app", &layer(&bytes)), bytes);
        assert_eq!(setup.proxy.count("PATCH", UPLOADS), 2);
        assert_eq!(setup.proxy.count("PUT", UPLOADS), 1);
    }
}

#[tokio::test]
async fn lies_about_digests_are_found_out() {
    let setup = setup!();
    let client = setup.client();
    let name = setup.image("team/app:1");
    let other = layer(b"other").digest.to_string();
    let lie = || Fault::SetHeader("docker-content-digest", other.clone());
    let bytes = letters(10, 3);
    setup.proxy.inject(On::new("PUT", UPLOADS), lie());
    let error = push(&client, &name, &bytes, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&other), "{error}");
    setup.proxy.inject(On::new("HEAD", "/blobs/"), lie());
    let error = client.has_blob(&name, &layer(&bytes)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);

    push(&client, &name, &b"{}".to_vec(), &[]).await.unwrap();
    setup.proxy.inject(On::new("PUT", "/manifests/"), lie());
    let document = manifest(b"{}", &[]);
    let put = client.push_manifest(&name, media_type::MANIFEST, &document);
    assert_eq!(put.await.unwrap_err().kind(), ErrorKind::Corrupt);
    // A name that pins other content is not pushed to at all.
    setup.proxy.forget();
    let pinned = name.with_digest(layer(b"other").digest);
    let put = client.push_manifest(&pinned, media_type::MANIFEST, &document);
    assert_eq!(put.await.unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(setup.proxy.exchanges().len(), 0);
}

#[tokio::test]
async fn refusals_are_told_and_not_repeated() {
    let json = |status, code: &str| Fault::Answer {
        status,
        headers: Vec::new(),
        body: format!(r#"{{"errors":[{{"code":"{code}","message":"because"}}]}}"#).into_bytes(),
    };
    let setup = setup!();
    let client = setup.client();
    let name = setup.image("team/app:1");
    let post = On::new("POST", UPLOADS);
    let put = On::new("PUT", UPLOADS);
    let denied = "push access denied, repository does not exist or may require authorization";
    for (on, fault, kind, text) in [
        (post.clone(), json(403, "DENIED"), ErrorKind::Denied, denied),
        (
            post.clone(),
            json(404, "NAME_UNKNOWN"),
            ErrorKind::NotFound,
            "name_unknown: because",
        ),
        (
            put.clone(),
            Fault::answer(413),
            ErrorKind::Rejected,
            "is larger than",
        ),
        (
            put.clone(),
            json(400, "DIGEST_INVALID"),
            ErrorKind::Rejected,
            "digest_invalid: because",
        ),
        (put.clone(), json(403, "DENIED"), ErrorKind::Denied, denied),
    ] {
        setup.proxy.forget();
        setup.proxy.inject(on.times(9), fault);
        let bytes = letters(50, 4);
        let error = push(&client, &name, &bytes, &[]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("team/app:1"), "{error}");
        assert_eq!(setup.proxy.count("POST", UPLOADS), 1, "{error}");
        assert!(setup.proxy.count("PUT", UPLOADS) <= 1, "{error}");
    }
    // What the manifest names is not there.
    let document = manifest(b"nowhere", &[]);
    let put = client.push_manifest(&name, media_type::MANIFEST, &document);
    let error = put.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(
        error.to_string().contains("manifest_blob_unknown"),
        "{error}"
    );
}

#[tokio::test]
async fn attempts_have_an_end() {
    let setup = setup!();
    let client = setup.client();
    let name = setup.image("team/app:1");
    for method in ["POST", "PATCH", "PUT"] {
        setup.proxy.forget();
        setup
            .proxy
            .inject(On::new(method, UPLOADS).times(100), Fault::answer(500));
        let bytes = letters(2 * PIECE, 5);
        let error = push(&client, &name, &bytes, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(setup.proxy.count(method, UPLOADS), 5, "{method}");
    }
}

/// Half of the piece came, and the registry knows it.
#[tokio::test]
async fn an_upload_goes_on_in_the_middle_of_a_piece_where_the_registry_can() {
    let bytes = letters(100, 6);
    let received = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::clone(&received);
    let registry = Server::start(move |request, _| {
        let mut received = inside.lock().unwrap();
        let at = |number: usize| format!("/v2/team/app{UPLOADS}{number}?x=1");
        let length = received.len();
        match request.method.as_str() {
            "HEAD" => Answer::status(404),
            "POST" => Answer::status(202).header("Location", &at(0)),
            "PATCH" if length == 0 => {
                received.extend_from_slice(&request.body.as_bytes()[..30]);
                Answer::status(500)
            }
            "GET" => Answer::status(204)
                .header("Location", &at(length))
                .header("Range", &format!("0-{}", length - 1)),
            "PATCH" => {
                assert_eq!(request.target, at(length));
                let range = format!("{length}-{}", length + request.body.len() - 1);
                assert_eq!(request.header("content-range"), Some(range.as_str()));
                received.extend_from_slice(request.body.as_bytes());
                Answer::status(202).header("Location", &at(received.len()))
            }
            _ => {
                assert!(
                    request.target.starts_with(&at(length)),
                    "{}",
                    request.target
                );
                assert!(
                    request.target.contains("&digest=sha256%3A"),
                    "{}",
                    request.target
                );
                received.extend_from_slice(request.body.as_bytes());
                Answer::status(201)
            }
        }
    });
    let client = Client::new(Config {
        piece_bytes: 40,
        ..config(registry.host())
    });
    let name = image(registry.host(), "team/app:1");
    push(&client, &name, &bytes, &[]).await.unwrap();
    assert_eq!(*received.lock().unwrap(), bytes);
    let methods: Vec<String> = registry
        .requests()
        .into_iter()
        .map(|it| it.method)
        .collect();
    assert_eq!(methods, ["HEAD", "POST", "PATCH", "GET", "PATCH", "PUT"]);
}

#[tokio::test]
async fn a_registry_says_how_small_a_piece_may_be() {
    let registry = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Answer::status(404),
        "POST" => Answer::status(202)
            .header("Location", "/up")
            .header("OCI-Chunk-Min-Length", "60"),
        "PATCH" => Answer::status(202).header("Location", "/up"),
        _ => Answer::status(201),
    });
    let client = Client::new(Config {
        piece_bytes: 10,
        ..config(registry.host())
    });
    let name = image(registry.host(), "team/app:1");
    push(&client, &name, &letters(100, 7), &[]).await.unwrap();
    let lengths: Vec<usize> = registry.requests().iter().map(|it| it.body.len()).collect();
    assert_eq!(lengths, [0, 0, 60, 40]);
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_replaced() {
    let tokens = Server::start(|_, number| Answer::json(&format!(r#"{{"token":"t{number}"}}"#)));
    let realm = tokens.host().to_owned();
    let registry = Server::start(move |request, number| {
        // The first token is good for three requests.
        let valid = if number < 4 { "Bearer t0" } else { "Bearer t1" };
        if request.header("authorization") != Some(valid) {
            let challenge =
                format!("Bearer realm=\"http://{realm}/token\",scope=\"repository:team/app:pull\"");
            return Answer::status(401).header("WWW-Authenticate", &challenge);
        }
        match request.method.as_str() {
            "HEAD" => Answer::status(404),
            "PUT" => Answer::status(201),
            _ => Answer::status(202).header("Location", "/up"),
        }
    });
    let client = Client::new(Config {
        piece_bytes: 40,
        ..config(registry.host())
    });
    let name = image(registry.host(), "team/app:1");
    push(&client, &name, &letters(100, 8), &[]).await.unwrap();
    let asked: Vec<String> = tokens.requests().into_iter().map(|it| it.target).collect();
    let expected = "/token?scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    assert_eq!(asked, [expected, expected]);
    let sent: usize = registry.requests().iter().map(|it| it.body.len()).sum();
    assert_eq!(sent, 40 + 40 + 40 + 20, "the refused piece, again");
}

#[tokio::test]
async fn a_mount_shows_that_it_reads_the_other_repository() {
    let tokens = Server::start(|request, _| {
        if request.target.contains("base") {
            // Who may not read there gets no such token.
            return Answer::status(403);
        }
        Answer::json(r#"{"token":"t"}"#)
    });
    let realm = tokens.host().to_owned();
    let registry = Server::start(move |request, _| {
        if request.header("authorization") != Some("Bearer t") {
            let challenge = format!("Bearer realm=\"http://{realm}/token\"");
            return Answer::status(401).header("WWW-Authenticate", &challenge);
        }
        match request.method.as_str() {
            "HEAD" => Answer::status(404),
            "PUT" => Answer::status(201),
            _ => Answer::status(202).header("Location", "/up"),
        }
    });
    let client = Client::new(config(registry.host()));
    let name = image(registry.host(), "team/app:1");
    let pushed = push(&client, &name, &letters(100, 9), &["team/base"]).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    let asked: Vec<String> = tokens.requests().into_iter().map(|it| it.target).collect();
    let own = "scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    let mount = format!("/token?{own}&scope=repository%3Ateam%2Fbase%3Apull");
    assert_eq!(asked, [format!("/token?{own}"), mount]);
}

#[tokio::test]
async fn the_place_of_an_upload_may_be_another_server_which_sees_no_token() {
    let storage = Server::start(|_, _| Answer::status(201));
    let place = format!("http://{}/signed?key=1", storage.host());
    let tokens = Server::start(|_, _| Answer::json(r#"{"token":"t"}"#));
    let realm = tokens.host().to_owned();
    let registry = Server::start(move |request, _| {
        match (request.header("authorization"), request.method.as_str()) {
            (None, _) => {
                let challenge = format!("Bearer realm=\"http://{realm}/token\"");
                Answer::status(401).header("WWW-Authenticate", &challenge)
            }
            (_, "HEAD") => Answer::status(404),
            _ => Answer::status(202).header("Location", &place),
        }
    });
    let client = Client::new(config(registry.host()));
    let name = image(registry.host(), "team/app:1");
    let bytes = letters(100, 10);
    push(&client, &name, &bytes, &[]).await.unwrap();
    let request = &storage.requests()[0];
    assert_eq!(request.header("authorization"), None);
    assert!(
        request.target.starts_with("/signed?key=1&digest="),
        "{}",
        request.target
    );
    assert_eq!(request.body.as_bytes(), bytes);
}

#[tokio::test]
async fn a_source_that_fails_ends_the_push() {
    struct Broken(u64);
    impl BlobSource for Broken {
        fn open(&self, _offset_bytes: u64) -> std::io::Result<Box<dyn Read + Send + Sync>> {
            match self.0 {
                0 => Err(std::io::ErrorKind::PermissionDenied.into()),
                length => Ok(Box::new(std::io::repeat(b'x').take(length))),
            }
        }
    }
    let setup = setup!();
    let client = setup.client();
    let name = setup.image("team/app:1");
    let descriptor = layer(&letters(PIECE, 11));
    for length in [0, 10] {
        let push = BlobPush {
            image_ref: &name,
            descriptor: &descriptor,
            source: &Broken(length),
            mount_from: &[],
            on_sent: &|_| {},
        };
        let error = client.push_blob(&push).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(
            error.to_string().contains(descriptor.digest.as_str()),
            "{error}"
        );
    }
    assert_eq!(
        setup.proxy.count("POST", UPLOADS),
        2,
        "it is not tried again"
    );
}

#[tokio::test]
async fn the_caller_hears_how_much_was_sent() {
    let setup = setup!();
    let bytes = letters(3 * PIECE, 12);
    let file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut &file, &bytes).unwrap();
    let delay = Fault::Delay(Duration::from_millis(300));
    setup.proxy.inject(On::new("", UPLOADS).times(3), delay);
    let heard = Mutex::new(Vec::new());
    let name = setup.image("team/app:1");
    let push = BlobPush {
        image_ref: &name,
        descriptor: &layer(&bytes),
        source: &file,
        mount_from: &[],
        on_sent: &|sent| heard.lock().unwrap().push(sent),
    };
    setup.client().push_blob(&push).await.unwrap();
    let heard = heard.into_inner().unwrap();
    assert!(heard.len() > 1 && heard.is_sorted(), "{heard:?}");
    assert_eq!(heard.last(), Some(&(bytes.len() as u64)));
}

#[tokio::test]
async fn as_many_blobs_are_pushed_at_once_as_configured() {
    /// How many pieces are being taken, and how many were at most.
    #[derive(Default)]
    struct Count {
        now: usize,
        most: usize,
    }
    let shared = Arc::new((Mutex::new(Count::default()), Condvar::new()));
    let inside = Arc::clone(&shared);
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Answer::status(404),
        "POST" => Answer::status(202).header("Location", "/up"),
        _ => {
            let (count, changed) = &*inside;
            let mut count = count.lock().unwrap();
            count.now += 1;
            count.most = count.most.max(count.now);
            changed.notify_all();
            // Waits for a third, which must not come.
            let more = |count: &mut Count| count.most < 3;
            let wait = changed.wait_timeout_while(count, Duration::from_millis(100), more);
            wait.unwrap().0.now -= 1;
            Answer::status(201)
        }
    });
    let mut config = config(server.host());
    let section = RegistryConfig {
        http: Some(true),
        max_concurrency: Some(2),
        ..RegistryConfig::default()
    };
    config.registries.insert(server.host().to_owned(), section);
    let client = Client::new(config);
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (client, name) = (client.clone(), image(server.host(), "team/app:1"));
        pushes.spawn(async move { push(&client, &name, &letters(10, number), &[]).await });
    }
    while let Some(pushed) = pushes.join_next().await {
        assert_eq!(pushed.unwrap().unwrap(), Pushed::Uploaded);
    }
    assert_eq!(shared.0.lock().unwrap().most, 2);
}

#[tokio::test]
async fn mirrors_are_not_pushed_to() {
    let setup = setup!();
    let mirror = Server::start(|_, _| Answer::status(500));
    let mut config = config(setup.proxy.host());
    let section = config.registries.get_mut(setup.proxy.host()).unwrap();
    section.mirrors = vec![mirror.host().to_owned()];
    let client = Client::new(config);
    let name = setup.image("team/app:1");
    push(&client, &name, &b"{}".to_vec(), &[]).await.unwrap();
    let document = manifest(b"{}", &[]);
    let put = client.push_manifest(&name, media_type::MANIFEST, &document);
    assert_eq!(put.await.unwrap(), Pushed::Uploaded);
    assert_eq!(mirror.requests().len(), 0);
}

#[tokio::test]
async fn only_who_may_push_can() {
    let options = RegistryOptions {
        basic_auth: true,
        ..RegistryOptions::default()
    };
    let setup = match Setup::new(&options) {
        Ok(setup) => setup,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let login = |password: &str| larder_registry::Credentials::Password {
        username: Registry::USER.to_owned(),
        password: password.to_owned().into(),
    };
    let client = |password: Option<&str>| {
        let mut config = config(setup.proxy.host());
        if let Some(password) = password {
            config.credentials = Arc::new(KnownLogin(login(password)));
        }
        Client::new(config)
    };
    let name = setup.image("team/app:1");
    let host = setup.proxy.host();
    for password in [None, Some("wrong")] {
        let client = client(password);
        let error = client.log_in(host).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let expected = format!("`{host}` refuses the login: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
        let error = push(&client, &name, &letters(10, 13), &[])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("push access denied"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let client = client(Some(Registry::PASSWORD));
    client.log_in(host).await.unwrap();
    push(&client, &name, &letters(10, 13), &[]).await.unwrap();
}
