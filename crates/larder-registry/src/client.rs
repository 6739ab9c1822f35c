use std::fmt;
use std::sync::Arc;

use larder_oci::{Descriptor, Digest, ImageRef, media_type};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Response};
use serde::Deserialize;

use crate::answer::{manifest_type, read_limited};
use crate::blob::Download;
use crate::endpoint::{Endpoint, pull_endpoints};
use crate::request::{Content, Request, Span, Subject};
use crate::retry::Retries;
use crate::transport::Transport;
use crate::{BlobSink, Config, Error, ErrorKind, Partial};

/// A larger manifest is refused: registries accept no more.
const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// The digest of what is answered with, or was stored.
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

/// Finds, fetches and pushes images. Clones share connections, tokens and limits.
///
/// Nothing is opened before the first request.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
}

/// What an image reference stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The host that said so: the registry's, or a mirror's.
    pub host: String,
}

/// A manifest or an index, whose bytes have the descriptor's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type, digest and size.
    pub descriptor: Descriptor,
    /// The JSON, as it was sent.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Returns a client.
    pub fn new(config: Config) -> Self {
        Self {
            transport: Arc::new(Transport::new(config)),
        }
    }

    /// Returns a client that takes plain http and unknown certificates from `registry`, and else is
    /// like this one.
    #[must_use]
    pub fn trusting(&self, registry: &str) -> Self {
        let mut config = self.transport.config.clone();
        let section = config.registries.entry(registry.to_owned()).or_default();
        section.insecure = Some(true);
        Self::new(config)
    }

    /// Asks the mirrors and then the registry what `image_ref` stands for. A digest in it wins over
    /// its tag.
    ///
    /// The registry's word is not checked yet: [`Client::fetch_manifest`] does.
    ///
    /// # Errors
    /// The registry's own, after all mirrors failed too: `NotFound`, `Denied`, `Unavailable`,
    /// `Corrupt`, `Config` or `Unsupported`.
    pub async fn resolve(&self, image_ref: &ImageRef) -> Result<Resolved, Error> {
        let name = match (image_ref.digest(), image_ref.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or("latest"),
        };
        let mut attempts = Attempts::default();
        for endpoint in pull_endpoints(&self.transport.config, image_ref)? {
            match self.resolve_at(&endpoint, image_ref, name).await {
                Ok(descriptor) => {
                    return Ok(Resolved {
                        descriptor,
                        host: endpoint.host,
                    });
                }
                Err(error) => attempts.failed(&endpoint, error),
            }
        }
        Err(attempts.last())
    }

    /// Fetches what `image_ref` stands for now: what [`Client::resolve`] and
    /// [`Client::fetch_manifest`] do, in one request. For who has not got it anyway.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub async fn fetch_named(&self, image_ref: &ImageRef) -> Result<Manifest, Error> {
        if let Some(digest) = image_ref.digest() {
            return self.fetch_manifest(image_ref, digest).await;
        }
        let name = image_ref.tag().unwrap_or("latest");
        let mut attempts = Attempts::default();
        for endpoint in pull_endpoints(&self.transport.config, image_ref)? {
            match self.manifest_at(&endpoint, image_ref, name).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => attempts.failed(&endpoint, error),
            }
        }
        Err(attempts.last())
    }

    /// Fetches the manifest or index with `digest` from the mirrors or the registry of
    /// `image_ref`, and checks it.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub async fn fetch_manifest(
        &self,
        image_ref: &ImageRef,
        digest: &Digest,
    ) -> Result<Manifest, Error> {
        require_sha256(digest)?;
        let mut attempts = Attempts::default();
        for endpoint in pull_endpoints(&self.transport.config, image_ref)? {
            let fetched = self
                .manifest_at(&endpoint, image_ref, digest.as_str())
                .await;
            match fetched.and_then(|manifest| require_digest(manifest, digest, &endpoint)) {
                Ok(manifest) => return Ok(manifest),
                Err(error) => attempts.failed(&endpoint, error),
            }
        }
        Err(attempts.last())
    }

    /// Fetches a blob from the mirrors or the registry of `image_ref` into `sink`, from where
    /// `partial` ends. What breaks off is taken up again at that byte. The bytes are good only
    /// once this returns `Ok`: the digest is known at the end.
    ///
    /// At most [`RegistryConfig::max_concurrency`](crate::RegistryConfig) blobs are fetched from one
    /// registry at once; further calls wait. Where there are fewer, a large blob that takes its time
    /// comes by several requests at once, of which the later ones are held in memory: up to 16 MiB
    /// each.
    ///
    /// # Errors
    /// As [`Client::resolve`], and `Sink`.
    ///
    /// # Cancellation
    /// Whenever it is dropped, `sink` holds the blob's first bytes, as far as they came.
    pub async fn fetch_blob(
        &self,
        image_ref: &ImageRef,
        descriptor: &Descriptor,
        partial: Partial,
        sink: &mut dyn BlobSink,
    ) -> Result<(), Error> {
        require_sha256(&descriptor.digest)?;
        let mut download = Download::new(&self.transport, image_ref, descriptor, partial, sink);
        let mut attempts = Attempts::default();
        for endpoint in pull_endpoints(&self.transport.config, image_ref)? {
            match download.fetch_from(&endpoint).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Sink => return Err(error),
                Err(error) => attempts.failed(&endpoint, error),
            }
        }
        Err(attempts.last())
    }

    /// Returns how many bytes a blob has, by the mirrors or the registry of `image_ref`.
    ///
    /// # Errors
    /// As [`Client::resolve`]; `Unsupported` where the answer does not say.
    pub async fn blob_size(&self, image_ref: &ImageRef, digest: &Digest) -> Result<u64, Error> {
        require_sha256(digest)?;
        let mut attempts = Attempts::default();
        for endpoint in pull_endpoints(&self.transport.config, image_ref)? {
            let request = Request {
                endpoint: &endpoint,
                image_ref: Some(image_ref),
                method: Method::HEAD,
                subject: Subject::Blob(digest, Span::default()),
                content: Content::Nothing,
            };
            match self.transport.send_patiently(&request).await {
                Ok(answer) => {
                    let length = answer.headers().get(CONTENT_LENGTH);
                    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                    let unsaid = "the registry does not say how many bytes the blob has";
                    return length.ok_or_else(|| Error::new(ErrorKind::Unsupported, unsaid));
                }
                Err(error) => attempts.failed(&endpoint, error),
            }
        }
        Err(attempts.last())
    }

    /// Asks by HEAD, which registries do not count as a pull; by GET where the answer says too
    /// little.
    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        image_ref: &ImageRef,
        name: &str,
    ) -> Result<Descriptor, Error> {
        let request = Request {
            endpoint,
            image_ref: Some(image_ref),
            method: Method::HEAD,
            subject: Subject::Manifest(name),
            content: Content::Nothing,
        };
        let response = self.transport.send_patiently(&request).await?;
        let described = describe(&response);
        let descriptor = match described {
            Some(descriptor) => descriptor,
            None => {
                self.manifest_at(endpoint, image_ref, name)
                    .await?
                    .descriptor
            }
        };
        match image_ref.digest() {
            Some(digest) if *digest != descriptor.digest => Err(lies(endpoint, digest)),
            _ => Ok(descriptor),
        }
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        image_ref: &ImageRef,
        name: &str,
    ) -> Result<Manifest, Error> {
        let request = Request {
            endpoint,
            image_ref: Some(image_ref),
            method: Method::GET,
            subject: Subject::Manifest(name),
            content: Content::Nothing,
        };
        let mut retries = Retries::new(&self.transport.config, &endpoint.host);
        let (content_type, bytes) = loop {
            match self.manifest_once(&request).await {
                Ok(manifest) => break manifest,
                Err(error) => retries.pause(error).await?,
            }
        };
        let media_type = content_type
            .or_else(|| own_media_type(&bytes))
            .ok_or_else(|| {
                let message = format!("{image_ref} is not an image or an index of images");
                Error::new(ErrorKind::Unsupported, message)
            })?;
        Ok(Manifest {
            descriptor: Descriptor::of(&media_type, &bytes),
            bytes,
        })
    }

    async fn manifest_once(
        &self,
        request: &Request<'_>,
    ) -> Result<(Option<String>, Vec<u8>), Error> {
        let response = self.transport.send(request).await?;
        let content_type = manifest_type(response.headers().get(CONTENT_TYPE));
        let host = &request.endpoint.host;
        let bytes = read_limited(response, MAX_MANIFEST_BYTES, host).await?;
        Ok((content_type, bytes))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.transport.config)
            .finish_non_exhaustive()
    }
}

/// The failures at one endpoint after the other.
#[derive(Default)]
struct Attempts {
    last: Option<Error>,
}

impl Attempts {
    fn failed(&mut self, endpoint: &Endpoint, error: Error) {
        tracing::debug!(host = endpoint.host, %error, "endpoint failed");
        self.last = Some(error);
    }

    fn last(self) -> Error {
        self.last
            .expect("there is always the registry itself to fail")
    }
}

/// Returns what the headers of an answer to HEAD tell, if they tell all.
pub(crate) fn describe(response: &Response) -> Option<Descriptor> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    Some(Descriptor::new(
        &manifest_type(response.headers().get(CONTENT_TYPE))?,
        header(CONTENT_DIGEST)?.parse().ok()?,
        header(CONTENT_LENGTH.as_str())?.parse().ok()?,
    ))
}

/// Returns the media type that a manifest gives itself; by its fields, where it gives none.
fn own_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        #[serde(default)]
        media_type: String,
        config: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let fields: Fields = serde_json::from_slice(bytes).ok()?;
    let own = fields.media_type.as_str();
    match (own, fields.config, fields.manifests) {
        (own, ..) if media_type::is_index(own) || media_type::is_manifest(own) => {
            Some(own.to_owned())
        }
        ("", Some(_), None) => Some(media_type::MANIFEST.to_owned()),
        ("", None, Some(_)) => Some(media_type::INDEX.to_owned()),
        _ => None,
    }
}

pub(crate) fn require_sha256(digest: &Digest) -> Result<(), Error> {
    if digest.algorithm() == "sha256" {
        return Ok(());
    }
    let message = format!("cannot check `{digest}`: larder computes sha256 digests only");
    Err(Error::new(ErrorKind::Unsupported, message))
}

fn require_digest(
    manifest: Manifest,
    digest: &Digest,
    endpoint: &Endpoint,
) -> Result<Manifest, Error> {
    if manifest.descriptor.digest == *digest {
        Ok(manifest)
    } else {
        Err(lies(endpoint, digest))
    }
}

fn lies(endpoint: &Endpoint, digest: &Digest) -> Error {
    let message = format!(
        "`{}` sent other bytes as manifest `{digest}`",
        endpoint.host
    );
    Error::new(ErrorKind::Corrupt, message)
}
