//! What is asked of a registry.

use larder_oci::{Digest, ImageRef};
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Body, Method, RequestBuilder, Url};

use crate::endpoint::Endpoint;
use crate::piece::Piece;
use crate::{Error, ErrorKind};

/// All types of manifests that larder reads, and other registries' manifests in general.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// A request to a registry.
pub(crate) struct Request<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// What messages name; `None` where it is about no image.
    pub(crate) image_ref: Option<&'a ImageRef>,
    pub(crate) method: Method,
    pub(crate) subject: Subject<'a>,
    pub(crate) content: Content<'a>,
}

/// A part of a blob, in bytes. The default is all of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) first: u64,
    /// `None` for the blob's own.
    pub(crate) end: Option<u64>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// Whether one may come in.
    Root,
    /// A manifest, by tag or digest.
    Manifest(&'a str),
    /// A blob, or a part of it.
    Blob(&'a Digest, Span),
    /// A new upload of a blob; or none, where the registry can take it from another repository.
    NewUpload(&'a Digest, Option<&'a str>),
    /// An upload of a blob, where the registry said.
    Upload(&'a Digest, &'a Url),
}

/// What is sent along.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Nothing,
    /// A manifest, and its media type.
    Document(&'a str, &'a [u8]),
    /// A part of a blob.
    Piece(&'a Piece<'a>),
}

impl Request<'_> {
    /// Returns where the request goes first, at a registry with `scheme`.
    pub(crate) fn url(&self, scheme: &str) -> Result<Url, Error> {
        let path = match self.subject {
            Subject::Upload(_, url) => return Ok(url.clone()),
            Subject::Root => "/v2/".to_owned(),
            Subject::Manifest(name) => self.endpoint.target(&format!("manifests/{name}")),
            Subject::Blob(digest, _) => self.endpoint.target(&format!("blobs/{digest}")),
            Subject::NewUpload(digest, from) => {
                let uploads = self.endpoint.target("blobs/uploads/");
                match from {
                    Some(from) => format!("{uploads}?mount={digest}&from={from}"),
                    None => uploads,
                }
            }
        };
        let host = &self.endpoint.host;
        Url::parse(&format!("{scheme}://{host}{path}"))
            .map_err(|_| Error::new(ErrorKind::Config, format!("`{host}` is not a host")))
    }

    /// Adds headers and content to the message that carries the request.
    ///
    /// # Errors
    /// `Source`, when a blob can't be read.
    pub(crate) fn fill(&self, message: RequestBuilder) -> Result<RequestBuilder, Error> {
        let accept = match self.subject {
            Subject::Manifest(_) => MANIFEST_TYPES,
            _ => "*/*",
        };
        let mut message = message.header(ACCEPT, accept);
        if let Subject::Blob(_, span) = self.subject {
            message = match (span.first, span.end) {
                (0, None) => message,
                (first, None) => message.header(RANGE, format!("bytes={first}-")),
                (first, Some(end)) => message.header(RANGE, format!("bytes={first}-{}", end - 1)),
            };
        }
        Ok(match self.content {
            // Some servers want to hear that nothing comes.
            Content::Nothing if self.method == Method::POST => message.body(Body::from("")),
            Content::Nothing => message,
            Content::Document(media_type, bytes) => message
                .header(CONTENT_TYPE, media_type)
                .body(bytes.to_vec()),
            Content::Piece(piece) => {
                message = message.header(CONTENT_TYPE, "application/octet-stream");
                if let Some(range) = piece.content_range() {
                    message = message.header(CONTENT_RANGE, range);
                }
                message.body(piece.body()?)
            }
        })
    }

    /// Returns whether the request changes something.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Returns what it is about, for messages.
    pub(crate) fn subject(&self) -> String {
        let Some(image_ref) = self.image_ref else {
            return format!("`{}`", self.endpoint.host);
        };
        match self.subject {
            Subject::Root | Subject::Manifest(_) => image_ref.to_string(),
            Subject::Blob(digest, _)
            | Subject::NewUpload(digest, _)
            | Subject::Upload(digest, _) => format!("blob `{digest}` of {image_ref}"),
        }
    }
}
