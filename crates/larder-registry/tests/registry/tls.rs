//! Registries that speak TLS, with certificates that only the test trusts.

use std::path::{Path, PathBuf};
use std::process::Command;

use larder_oci::{Descriptor, media_type};
use larder_registry::{
    BlobPush, Client, Config, ErrorKind, KeyPair, Pushed, RegistryConfig, WebClient, WebRequest,
};
use larder_testkit::{Registry, RegistryOptions, RegistryTls, install, skip};

use crate::{busybox, fixture, image};

/// Makes an authority and two certificates that it signs, in `dir`.
const MAKE_CERTIFICATES: &str = r"set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca
for name in server client; do
  openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
  printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >$name.ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
    -extfile $name.ext -out $name.cert
done
";

fn make_certificates(dir: &Path) -> anyhow::Result<()> {
    install(&["openssl"])?;
    let made = Command::new("sh")
        .args(["-c", MAKE_CERTIFICATES])
        .current_dir(dir)
        .output()?;
    let complaints = String::from_utf8_lossy(&made.stderr);
    anyhow::ensure!(made.status.success(), "openssl failed: {complaints}");
    Ok(())
}

#[tokio::test]
async fn certificates_are_trusted_and_shown_as_configured() {
    let fixture = fixture!();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let start = |client_ca: Option<PathBuf>| {
        Registry::start_with(&RegistryOptions {
            tls: Some(RegistryTls {
                certificate: path("server.cert"),
                key: path("server.key"),
                client_ca,
                data: Some(fixture.registry.data()),
            }),
            ..RegistryOptions::default()
        })
    };
    let registries = make_certificates(dir.path())
        .and_then(|()| Ok((start(None)?, start(Some(path("ca.crt")))?)));
    let (open, closed) = match registries {
        Ok(registries) => registries,
        Err(error) => skip!("no registry with TLS: {error:#}"),
    };
    // As Docker's `certs.d`: the authority, and the client's pair.
    let certs_d = path("certs.d");
    fs_err::create_dir(&certs_d).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs_err::copy(path(name), certs_d.join(name)).unwrap();
    }

    let nothing = RegistryConfig::default();
    let https = RegistryConfig {
        http: Some(false),
        ..nothing.clone()
    };
    let ca = RegistryConfig {
        ca: vec![path("ca.crt")],
        ..nothing.clone()
    };
    let insecure = RegistryConfig {
        insecure: Some(true),
        ..nothing.clone()
    };
    let pair = RegistryConfig {
        keypair: vec![KeyPair {
            key: path("client.key"),
            cert: path("client.cert"),
        }],
        ..ca.clone()
    };
    let folder = RegistryConfig {
        tlsconfigdir: vec![certs_d],
        ..nothing
    };
    let missing = RegistryConfig {
        ca: vec![path("nowhere")],
        ..ca.clone()
    };
    let garbled = RegistryConfig {
        keypair: vec![KeyPair {
            key: path("ca.crt"),
            cert: path("ca.crt"),
        }],
        ..ca.clone()
    };
    // The same section holds for files that are no images.
    for (section, expected) in [(&ca, None), (&https, Some(ErrorKind::Config))] {
        let config = Config {
            registries: [(open.host().to_owned(), section.clone())].into(),
            ..crate::config(open.host())
        };
        let url = format!("https://{}/v2/", open.host());
        let request = WebRequest {
            url: &url,
            headers: &[],
            authorization: None,
        };
        let mut answer = Vec::new();
        let fetched = WebClient::new(config)
            .fetch(&request, &[], &mut answer)
            .await;
        assert_eq!(fetched.err().map(|error| error.kind()), expected);
    }
    for (name, registry, section, expected) in [
        ("nobody's word", &open, https, Some(ErrorKind::Config)),
        ("the authority", &open, ca.clone(), None),
        ("no check", &open, insecure, None),
        (
            "no certificate shown",
            &closed,
            ca,
            Some(ErrorKind::Unavailable),
        ),
        (
            "no certificate shown, and http tried",
            &closed,
            RegistryConfig::default(),
            Some(ErrorKind::Config),
        ),
        ("a certificate shown", &closed, pair, None),
        ("a folder", &closed, folder, None),
        ("a missing file", &open, missing, Some(ErrorKind::Config)),
        ("no key", &open, garbled, Some(ErrorKind::Config)),
    ] {
        let host = registry.host();
        let config = Config {
            registries: [(host.to_owned(), section)].into(),
            ..crate::config(host)
        };
        let client = Client::new(config);
        let resolved = client.resolve(&busybox(host)).await;
        match (resolved, expected) {
            (Ok(resolved), None) => {
                assert_eq!(resolved.descriptor, fixture.manifest, "{name}");
                // What is sent goes by connections of its own.
                let bytes = name.as_bytes().to_vec();
                let push = BlobPush {
                    image_ref: &image(host, "team/tls"),
                    descriptor: &Descriptor::of(media_type::LAYER, &bytes),
                    source: &bytes,
                    mount_from: &[],
                    on_sent: &|_| {},
                };
                let pushed = client.push_blob(&push);
                assert_eq!(pushed.await.unwrap(), Pushed::Uploaded, "{name}");
            }
            (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{name}: {error:?}"),
            (resolved, _) => panic!("{name}: {resolved:?}"),
        }
    }
}
