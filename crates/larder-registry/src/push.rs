use larder_oci::{Descriptor, Digest, ImageRef};
use reqwest::{Method, Response, StatusCode};

use crate::client::{CONTENT_DIGEST, describe};
use crate::endpoint::{Endpoint, login_endpoint, push_endpoint};
use crate::piece::BlobSource;
use crate::request::{Content, Request, Span, Subject};
use crate::upload::Upload;
use crate::{Client, Error, ErrorKind};

/// Repositories from which a blob is tried to be taken. Each that does not help costs a request.
const MAX_MOUNTS: usize = 3;

/// A blob to be pushed.
#[derive(Clone, Copy)]
pub struct BlobPush<'a> {
    /// Names the repository.
    pub image_ref: &'a ImageRef,
    /// The blob.
    pub descriptor: &'a Descriptor,
    /// Its bytes. Not opened if the registry has them.
    pub source: &'a dyn BlobSource,
    /// Other repositories of the same registry that may have it, the likeliest first.
    pub mount_from: &'a [String],
    /// Hears how many bytes were sent in all, now and then. Falls back where an upload is begun
    /// anew. Called from the future.
    pub on_sent: &'a (dyn Fn(u64) + Send + Sync),
}

/// How a registry came to what was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It had it.
    Existed,
    /// It took it from this other repository.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

/// Pushing: always to the registry itself, never to a mirror.
impl Client {
    /// Returns whether the repository of `image_ref` has a blob.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`, `Config`, `Unsupported`; `Corrupt` if the registry names another
    /// digest.
    pub async fn has_blob(
        &self,
        image_ref: &ImageRef,
        descriptor: &Descriptor,
    ) -> Result<bool, Error> {
        self.has_blob_at(&push_endpoint(image_ref), image_ref, &descriptor.digest)
            .await
    }

    /// Pushes a blob: asks whether the repository has it, then for it to be taken from another one,
    /// and at last sends it. What breaks off is taken up again where it broke off, as far as the
    /// registry knows how.
    ///
    /// At most [`RegistryConfig::max_concurrency`](crate::RegistryConfig) blobs are pushed to one
    /// registry at once; further calls wait.
    ///
    /// # Errors
    /// `NotFound`, when the registry knows no such repository and makes none; `Denied`;
    /// `Rejected`; `Source`; `Unavailable`, `Corrupt`, `Config`, `Unsupported`.
    pub async fn push_blob(&self, push: &BlobPush<'_>) -> Result<Pushed, Error> {
        let endpoint = push_endpoint(push.image_ref);
        let host = self.transport.host(&endpoint)?;
        let permit = host.uploads().acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let offer = self.offer(&endpoint, push.image_ref, push.descriptor, push.mount_from);
        match offer.await? {
            Offer::Taken(pushed) => Ok(pushed),
            Offer::Wanted(begun) => {
                Upload::new(self, &endpoint, push, begun).run().await?;
                Ok(Pushed::Uploaded)
            }
        }
    }

    /// Does what [`Client::push_blob`] does without the blob's bytes. Returns `None` if the registry
    /// wants them.
    ///
    /// # Errors
    /// As [`Client::push_blob`], without `Source`.
    pub async fn offer_blob(
        &self,
        image_ref: &ImageRef,
        descriptor: &Descriptor,
        mount_from: &[String],
    ) -> Result<Option<Pushed>, Error> {
        let endpoint = push_endpoint(image_ref);
        let host = self.transport.host(&endpoint)?;
        let permit = host.uploads().acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        match self
            .offer(&endpoint, image_ref, descriptor, mount_from)
            .await?
        {
            Offer::Taken(pushed) => Ok(Some(pushed)),
            Offer::Wanted(_) => Ok(None),
        }
    }

    /// Stores a manifest or an index under the tag of `image_ref`, or under its digest if it has
    /// one. What it names must have been pushed before. Nothing is sent if the registry has it
    /// there already.
    ///
    /// # Errors
    /// As [`Client::push_blob`]; `Rejected` also if what the manifest names is missing, or its
    /// digest is not that of `image_ref`; `Corrupt` if the registry stored something else.
    pub async fn push_manifest(
        &self,
        image_ref: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Pushed, Error> {
        let digest = Digest::sha256(bytes);
        let name = match image_ref.digest() {
            Some(own) if *own != digest => {
                let message = format!("{image_ref} is not the name of manifest `{digest}`");
                return Err(Error::new(ErrorKind::Rejected, message));
            }
            Some(own) => own.as_str(),
            None => image_ref.tag().unwrap_or("latest"),
        };
        let endpoint = push_endpoint(image_ref);
        let mut request = Request {
            endpoint: &endpoint,
            image_ref: Some(image_ref),
            method: Method::HEAD,
            subject: Subject::Manifest(name),
            content: Content::Nothing,
        };
        match self.transport.send_patiently(&request).await {
            Ok(answer) if describe(&answer).is_some_and(|found| found.digest == digest) => {
                return Ok(Pushed::Existed);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        request.method = Method::PUT;
        request.content = Content::Document(media_type, bytes);
        let answer = self.transport.send_patiently(&request).await?;
        require_stored(&answer, &digest, &endpoint)?;
        Ok(Pushed::Uploaded)
    }

    /// Shows the configured credentials to `registry` (`docker.io`, `host[:port]`), to learn whether
    /// they are good.
    ///
    /// # Errors
    /// `Denied` if they are not; `Unavailable`, `NotFound`, `Config`, `Unsupported`.
    pub async fn log_in(&self, registry: &str) -> Result<(), Error> {
        let endpoint = login_endpoint(registry);
        let request = Request {
            endpoint: &endpoint,
            image_ref: None,
            method: Method::GET,
            subject: Subject::Root,
            content: Content::Nothing,
        };
        self.transport.send_patiently(&request).await.map(drop)
    }

    pub(crate) async fn has_blob_at(
        &self,
        endpoint: &Endpoint,
        image_ref: &ImageRef,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let request = Request {
            endpoint,
            image_ref: Some(image_ref),
            method: Method::HEAD,
            subject: Subject::Blob(digest, Span::default()),
            content: Content::Nothing,
        };
        match self.transport.send_patiently(&request).await {
            Ok(answer) => require_stored(&answer, digest, endpoint).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks whether the registry has a blob in the repository, or in another one.
    async fn offer(
        &self,
        endpoint: &Endpoint,
        image_ref: &ImageRef,
        descriptor: &Descriptor,
        mount_from: &[String],
    ) -> Result<Offer, Error> {
        let digest = &descriptor.digest;
        if self.has_blob_at(endpoint, image_ref, digest).await? {
            return Ok(Offer::Taken(Pushed::Existed));
        }
        let mut begun = None;
        for from in mount_from.iter().take(MAX_MOUNTS) {
            match self.mount(endpoint, image_ref, digest, from).await? {
                Mount::Done => return Ok(Offer::Taken(Pushed::Mounted(from.clone()))),
                Mount::Begun(answer) => begun = Some(answer),
                Mount::Refused => {}
            }
        }
        Ok(Offer::Wanted(begun))
    }

    /// Asks the registry to take a blob from the repository `from`.
    async fn mount(
        &self,
        endpoint: &Endpoint,
        image_ref: &ImageRef,
        digest: &Digest,
        from: &str,
    ) -> Result<Mount, Error> {
        let endpoint = endpoint.mounting(from);
        let request = Request {
            endpoint: &endpoint,
            image_ref: Some(image_ref),
            method: Method::POST,
            subject: Subject::NewUpload(digest, Some(from)),
            content: Content::Nothing,
        };
        match self.transport.send_patiently(&request).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => {
                require_stored(&answer, digest, &endpoint)?;
                Ok(Mount::Done)
            }
            Ok(answer) => Ok(Mount::Begun(answer)),
            // Who may not read there may well write here.
            Err(error) if is_refusal(&error) => Ok(Mount::Refused),
            Err(error) => Err(error),
        }
    }
}

/// What came of an offer of a blob.
enum Offer {
    Taken(Pushed),
    /// The registry wants the bytes, and may have begun an upload.
    Wanted(Option<Response>),
}

/// What came of the wish for a blob of another repository.
enum Mount {
    Done,
    /// The registry waits for the bytes.
    Begun(Response),
    Refused,
}

fn is_refusal(error: &Error) -> bool {
    use ErrorKind::{Denied, NotFound, Rejected};
    matches!(error.kind(), Denied | NotFound | Rejected)
}

/// Checks that the registry means the same content, if it says which it means.
pub(crate) fn require_stored(
    answer: &Response,
    digest: &Digest,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    let stored = answer.headers().get(CONTENT_DIGEST);
    match stored.and_then(|stored| stored.to_str().ok()) {
        Some(stored) if stored != digest.as_str() => {
            let message = format!("`{}` says `{stored}` is `{digest}`", endpoint.host);
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        _ => Ok(()),
    }
}
