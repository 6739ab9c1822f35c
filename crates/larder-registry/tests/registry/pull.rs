//! Images in Debian's registry, mirrors, and what is not there.

use std::process::Command;
use std::sync::Arc;

use larder_oci::{Descriptor, Sha256, media_type};
use larder_registry::{
    BlobSink, Client, Config, CredentialSource, Credentials, DockerConfig, ErrorKind, Partial,
    RegistryConfig,
};
use larder_testkit::{
    Registry, RegistryOptions, WebAnswer as Answer, WebServer as Server, skip, write_tree,
};

use crate::{busybox, client, config, digest_of, fetch, fixture, image};

#[tokio::test]
async fn an_image_is_resolved_and_fetched() {
    let fixture = fixture!();
    let host = fixture.registry.host();
    // Nothing is configured: that the registry speaks http must be found out.
    let client = Client::new(Config::default());
    let resolved = client.resolve(&busybox(host)).await.unwrap();
    assert_eq!(
        (&resolved.descriptor, resolved.host.as_str()),
        (&fixture.manifest, host)
    );

    let pinned = busybox(host).with_digest(fixture.manifest.digest.clone());
    assert_eq!(client.resolve(&pinned).await.unwrap(), resolved);
    let manifest = client
        .fetch_manifest(&pinned, &resolved.descriptor.digest)
        .await
        .unwrap();
    assert_eq!(manifest.descriptor, fixture.manifest);
    assert_eq!(digest_of(&manifest.bytes), fixture.manifest.digest);

    for name in [busybox(host), pinned] {
        assert_eq!(client.fetch_named(&name).await.unwrap(), manifest, "{name}");
    }

    let layer = fetch(&client, host, &fixture.layer()).await.unwrap();
    assert_eq!(digest_of(&layer), fixture.layer().digest);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let fixture = fixture!();
    let host = fixture.registry.host();
    let client = client(host);
    let tag = image(host, "library/busybox:nope");
    let error = client.resolve(&tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), format!("{tag}: not found"));

    let absent = Descriptor::of(media_type::LAYER, b"nowhere");
    let named = client.fetch_named(&tag).await.unwrap_err();
    assert_eq!(
        (named.kind(), named.to_string()),
        (error.kind(), error.to_string())
    );
    let error = fetch(&client, host, &absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains(absent.digest.as_str()),
        "{error}"
    );
    let error = client
        .fetch_manifest(&tag, &absent.digest)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = closed.local_addr().unwrap().to_string();
    drop(closed);
    let error = client(&host).resolve(&busybox(&host)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.to_string(), "cannot reach `127.0.0.1`");
}

#[tokio::test]
async fn mirrors_are_tried_in_order_before_the_registry() {
    let fixture = fixture!();
    let empty = Server::start(|_, _| Answer::status(404));
    let upstream = fixture.registry.host().to_owned();
    let prefixed = Server::start(move |request, _| {
        let mut request = request.clone();
        request.target = request.target.replace("/v2/hub/", "/v2/");
        request.forward(&upstream, &[])
    });
    let mut config = config(empty.host());
    let origin = "registry.invalid";
    let section = RegistryConfig {
        mirrors: vec![empty.host().to_owned(), format!("{}/hub", prefixed.host())],
        ..RegistryConfig::default()
    };
    config.registries.insert(origin.to_owned(), section);
    let client = Client::new(config);
    let resolved = client.resolve(&busybox(origin)).await.unwrap();
    assert_eq!(
        (resolved.descriptor, resolved.host.as_str()),
        (fixture.manifest.clone(), prefixed.host())
    );
    let layer = fetch(&client, origin, &fixture.layer()).await.unwrap();
    assert_eq!(layer, fixture.layer_bytes());

    let targets: Vec<String> = prefixed
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    let layer = fixture.layer().digest;
    assert_eq!(
        targets,
        [
            format!("/v2/hub/library/busybox/manifests/latest?ns={origin}"),
            format!("/v2/hub/library/busybox/blobs/{layer}?ns={origin}"),
        ]
    );
    assert_eq!(empty.requests().len(), 2);
}

#[tokio::test]
async fn a_registry_that_says_nothing_of_digests_is_asked_for_the_bytes() {
    let fixture = fixture!();
    let upstream = fixture.registry.host().to_owned();
    let terse = Server::start(move |request, _| {
        let mut answer = request.forward(&upstream, &[]);
        answer.headers.retain(|(name, _)| name == "content-length");
        answer
    });
    let resolved = client(terse.host())
        .resolve(&busybox(terse.host()))
        .await
        .unwrap();
    assert_eq!(resolved.descriptor, fixture.manifest);
    let methods: Vec<String> = terse
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[tokio::test]
async fn a_fetch_goes_on_where_an_earlier_one_ended() {
    let fixture = fixture!();
    let upstream = fixture.registry.host().to_owned();
    let server = Server::start(move |request, _| request.forward(&upstream, &[]));
    let (client, host) = (client(server.host()), server.host());
    let (layer, bytes) = (fixture.layer(), fixture.layer_bytes());

    for (beginning, requests_count) in [
        (bytes[..100_000].to_vec(), 1),
        // All there: no byte is missing, and none is asked for.
        (bytes.to_vec(), 0),
        // Other bytes: found out at the end, and fetched anew.
        (vec![7; 100_000], 2),
        (vec![7; bytes.len()], 1),
    ] {
        let before = server.requests().len();
        let mut hash = Sha256::new();
        hash.update(&beginning);
        let partial = Partial {
            offset_bytes: beginning.len() as u64,
            hash,
        };
        let mut sink = beginning.clone();
        client
            .fetch_blob(&busybox(host), &layer, partial, &mut sink)
            .await
            .unwrap();
        assert_eq!(sink, bytes);
        let requests = &server.requests()[before..];
        assert_eq!(requests.len(), requests_count);
        if beginning.len() < bytes.len() {
            assert_eq!(requests[0].header("range"), Some("bytes=100000-"));
        }
    }
}

#[tokio::test]
async fn a_sink_that_hashes_is_believed_and_nothing_else() {
    /// Hashes other bytes than it is given, if it is so `wrong`.
    struct Hashing {
        hash: Sha256,
        wrong: bool,
        restarts: usize,
    }
    impl BlobSink for Hashing {
        fn write(&mut self, chunk: &[u8]) -> std::io::Result<()> {
            self.hash.update(chunk);
            Ok(())
        }
        fn restart(&mut self) -> std::io::Result<()> {
            self.hash = Sha256::new();
            self.restarts += 1;
            Ok(())
        }
        fn sha256(&self) -> Option<Sha256> {
            let mut hash = self.hash.clone();
            if self.wrong {
                hash.update(b"more");
            }
            Some(hash)
        }
    }
    let fixture = fixture!();
    let host = fixture.registry.host();
    let (layer, bytes) = (fixture.layer(), fixture.layer_bytes());
    let other = vec![7; 100_000];
    // What is right or wrong before the fetch, and in the sink; how often it begins anew, and what of that comes out.
    for (beginning, wrong, restarts, is_fetched) in [
        (&bytes[..0], false, 0, true),
        (&bytes[..100_000], false, 0, true),
        (&other, false, 1, true),
        (&bytes[..0], true, 1, false),
    ] {
        let mut hash = Sha256::new();
        hash.update(beginning);
        let mut sink = Hashing {
            hash,
            wrong,
            restarts: 0,
        };
        let partial = Partial {
            offset_bytes: beginning.len() as u64,
            ..Partial::default()
        };
        let fetched = client(host)
            .fetch_blob(&busybox(host), &layer, partial, &mut sink)
            .await;
        let outcome = fetched.map_err(|error| error.kind());
        let expected = is_fetched.then_some(()).ok_or(ErrorKind::Corrupt);
        assert_eq!(outcome, expected);
        assert_eq!(sink.restarts, restarts);
    }
}

#[tokio::test]
async fn logins_of_docker_are_shown_to_registries_that_want_them() {
    let options = RegistryOptions {
        basic_auth: true,
        ..RegistryOptions::default()
    };
    let registry = match Registry::start_with(&options) {
        Ok(registry) => registry,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
        media_type::INDEX
    );
    let pushed = registry.push_manifest(
        "library/busybox",
        "latest",
        media_type::INDEX,
        manifest.as_bytes(),
    );
    let pushed = pushed.unwrap();
    let host = registry.host();
    let home = tempfile::tempdir().unwrap();
    let with_login = |auth: &str| {
        let text = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
        fs_err::write(home.path().join("config.json"), text).unwrap();
        let credentials: Arc<dyn CredentialSource> = Arc::new(DockerConfig::new(home.path()));
        Client::new(Config {
            credentials,
            ..config(host)
        })
    };

    let right = with_login("YWxpOm9wZW4gc2VzYW1l");
    assert_eq!(
        right.resolve(&busybox(host)).await.unwrap().descriptor,
        pushed
    );
    let wrong = with_login("YWxpOndyb25n");
    for (client, who) in [(wrong, "wrong password"), (client(host), "nobody")] {
        let error = client.resolve(&busybox(host)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{who}");
        let words = "pull access denied, repository does not exist or may require authorization";
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some());
    }
}

/// Runs itself once more, with the helper on the search path.
#[tokio::test]
async fn a_helper_of_docker_knows_the_password() {
    const HOME: &str = "LARDER_TEST_DOCKER_HOME";
    const NAME: &str = "pull::a_helper_of_docker_knows_the_password";
    if let Some(home) = std::env::var_os(HOME) {
        let source = DockerConfig::new(home);
        let known = source.credentials("known.example").await.unwrap();
        let Some(Credentials::Password { username, password }) = known else {
            panic!("{known:?}");
        };
        assert_eq!((username.as_str(), password.expose()), ("helen", "of troy"));
        assert_eq!(source.credentials("unknown.example").await.unwrap(), None);
        let error = source.credentials("broken.example").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.to_string().contains("a secret"), "{error}");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helper = r#"#!/bin/sh
read -r server
case $server in
known.example) printf '{"Username":"helen","Secret":"of troy"}' ;;
unknown.example) echo 'credentials not found in native keychain'; exit 1 ;;
*) echo 'a secret'; exit 1 ;;
esac
"#;
    let config = r#"{"credsStore":"test"}"#;
    let files = [("config.json", config), ("docker-credential-test*", helper)];
    write_tree(home.path(), &files);
    let path = format!("{}:/usr/bin:/bin", home.path().display());
    let output = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact"])
        .env(HOME, home.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
