//! The http source: a file on a web server.

use larder_llb::http::HttpSource;
use larder_llb::{Vertex, pb};
use larder_oci::Digest;

use crate::cancel::CancelFlag;
use crate::error::Result;
use crate::progress::VertexProgress;
use crate::web::{WebFetch, parse};
use crate::worker::{BuildWorker, ResultRef};

/// Returns whether a source is such a file.
pub(crate) fn is_http(source: &pb::SourceOp) -> bool {
    HttpSource::parse(source).is_some()
}

/// Finds out what the file is now, and returns the op's digest.
pub(crate) fn resolve(
    worker: &BuildWorker<'_>,
    vertex: &Vertex,
    source: &pb::SourceOp,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<Digest> {
    let http = parse(source)?;
    let found = worker.web.resolve(fetch(worker, &http, progress, cancel))?;
    let digest = found.cache_digest(&http);
    worker.history.add_source(vertex, found.part);
    Ok(digest)
}

/// Returns the tree that holds the file; downloads it if the store lacks it.
pub(crate) fn load(
    worker: &BuildWorker<'_>,
    source: &pb::SourceOp,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<ResultRef> {
    let http = parse(source)?;
    let snapshot = worker.web.load(fetch(worker, &http, progress, cancel))?;
    Ok(ResultRef::Snapshot(snapshot))
}

fn fetch<'a>(
    worker: &BuildWorker<'a>,
    source: &'a HttpSource,
    progress: &'a VertexProgress<'a>,
    cancel: &'a CancelFlag,
) -> WebFetch<'a> {
    WebFetch {
        source,
        secrets: worker.secrets,
        progress,
        cancel,
    }
}
