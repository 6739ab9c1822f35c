use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;
use larder_oci::{Descriptor, Digest, media_type};
use tempfile::TempDir;

use crate::{OciArchive, Response, apt, request};

/// Between two looks whether the registry listens.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 500;
/// Another process may take the port that was found free.
const ATTEMPTS: u32 = 5;

/// Serves until standard input ends, which it does with the process that holds its other end: so
/// that a registry in a `static`, and that of a killed test, end too.
const SERVE: &str =
    "exec 3<&0; docker-registry serve \"$1\" & pid=$!; { cat <&3; kill $pid; } & wait $pid";

/// A registry on a free loopback port, with storage of its own. Ends when dropped.
///
/// It is Debian's `docker-registry`, installed where it is missing. It speaks plain http and lets
/// images be deleted.
pub struct Registry {
    host: String,
    child: Child,
    authorization: Option<String>,
    dir: TempDir,
}

/// How a [`Registry`] differs from the plain one.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Whether it wants [`Registry::USER`] and [`Registry::PASSWORD`], by HTTP's Basic
    /// authentication.
    pub basic_auth: bool,
    /// Speaks TLS. [`Registry::request`] and what builds on it then don't work.
    pub tls: Option<RegistryTls>,
}

/// PEM files of a [`Registry`] that speaks TLS.
#[derive(Debug, Clone)]
pub struct RegistryTls {
    /// Its certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// Who signs the certificates that clients must show, if they must.
    pub client_ca: Option<PathBuf>,
    /// A folder with images that another registry has stored, to be served by this one.
    pub data: Option<PathBuf>,
}

impl RegistryTls {
    /// Returns what goes into the `http` map of the registry's configuration.
    fn yaml(&self) -> String {
        let client_ca = match &self.client_ca {
            Some(path) => format!(", clientcas: [\"{}\"]", path.display()),
            None => String::new(),
        };
        format!(
            ", tls: {{certificate: \"{}\", key: \"{}\"{client_ca}}}",
            self.certificate.display(),
            self.key.display()
        )
    }
}

impl Registry {
    /// The user that a registry with `basic_auth` knows.
    pub const USER: &str = "ali";
    /// That user's password.
    pub const PASSWORD: &str = "open sesame";
    const HTPASSWD: &str = "ali:$2b$04$MjdMJnE9OESZOUKf5YtJSOQ/53jCH3JngtQ2I5hx3l0XgvfTUSE1e\n";
    /// `ali:open sesame` in base64.
    const BASIC: &str = "Basic YWxpOm9wZW4gc2VzYW1l";

    /// Starts an empty registry and waits until it listens.
    pub fn start() -> Result<Self> {
        Self::start_with(&RegistryOptions::default())
    }

    /// Starts an empty registry with `options`.
    pub fn start_with(options: &RegistryOptions) -> Result<Self> {
        apt::install(&["docker-registry"])?;
        for _ in 0..ATTEMPTS {
            if let Some(registry) = Self::try_start(options)? {
                return Ok(registry);
            }
        }
        bail!("docker-registry found no free port in {ATTEMPTS} attempts")
    }

    /// Starts a registry; `None` if it ended at once, as it does when its port is taken.
    fn try_start(options: &RegistryOptions) -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let path = |name: &str| dir.path().join(name);
        let auth = if options.basic_auth {
            fs::write(path("htpasswd"), Self::HTPASSWD)?;
            let file = path("htpasswd");
            format!(
                "auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n",
                file.display()
            )
        } else {
            String::new()
        };
        let tls = options
            .tls
            .as_ref()
            .map(RegistryTls::yaml)
            .unwrap_or_default();
        let data = match options.tls.as_ref().and_then(|tls| tls.data.clone()) {
            Some(data) => data,
            None => path("data"),
        };
        let config = format!(
            "version: 0.1\n\
             log: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{host}\"{tls}}}\n{auth}",
            data.display()
        );
        fs::write(path("config.yml"), config)?;
        let log = fs::File::create(path("log"))?;
        let child = Command::new("sh")
            .args(["-c", SERVE, "sh"])
            .arg(path("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.into_parts().0))
            .spawn()
            .context("cannot start docker-registry")?;
        let mut registry = Self {
            host,
            child,
            authorization: options.basic_auth.then(|| Self::BASIC.to_owned()),
            dir,
        };
        for _ in 0..POLLS {
            if registry.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if TcpStream::connect(&registry.host).is_ok() {
                return Ok(Some(registry));
            }
            thread::sleep(POLL);
        }
        bail!("docker-registry does not listen on {}", registry.host)
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the folder in which its images lie.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Sends a request, with credentials where the registry wants them. `path` begins with `/v2/`.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let mut headers = headers.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        request(&self.host, method, path, &headers, body)
    }

    /// Stores `bytes` as a blob of `repository`.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256(bytes);
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.request("POST", &uploads, &[], &[])?;
        let location = begun.header("location").context("no upload was begun")?;
        let path = location.strip_prefix("http://").unwrap_or(location);
        let path = &path[path.find('/').unwrap_or(0)..];
        let separator = if path.contains('?') { '&' } else { '?' };
        let put = format!("{path}{separator}digest={digest}");
        let headers = [("Content-Type", "application/octet-stream")];
        let done = self.request("PUT", &put, &headers, bytes)?;
        ensure!(
            done.status == 201,
            "the registry refused a blob: {}",
            done.status
        );
        Ok(digest)
    }

    /// Stores a manifest or an index under `tag`, or under its digest.
    pub fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor> {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let done = self.request("PUT", &path, &[("Content-Type", media_type)], bytes)?;
        ensure!(
            done.status == 201,
            "the registry refused a manifest: {} {}",
            done.status,
            String::from_utf8_lossy(&done.body)
        );
        Ok(Descriptor::of(media_type, bytes))
    }

    /// Stores the image of an OCI archive as `repository:tag`; returns its manifest's descriptor.
    pub fn push_archive(&self, archive: &Path, repository: &str, tag: &str) -> Result<Descriptor> {
        let archive = OciArchive::open(archive)?;
        let manifest = archive.manifest()?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.push_blob(repository, archive.blob(&blob.digest)?)?;
        }
        let bytes = archive.blob(&archive.manifest_descriptor()?.digest)?;
        self.push_manifest(repository, tag, media_type::MANIFEST, bytes)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // `wait` closes standard input first.
        let _ = self.child.wait();
    }
}
