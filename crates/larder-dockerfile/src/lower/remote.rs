//! What is fetched: files from web servers, git repositories, and the build contexts that are such.

use larder_llb::git::{GitRef, GitSource};
use larder_llb::http::url_name;
use larder_llb::{Definition, pb};
use larder_oci::Digest;

use super::config::file_node;
use super::dag::{Dag, Node};
use crate::error::Error;
use crate::path;

/// The name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";
/// What a build context is saved as.
pub(super) const CONTEXT_FILE: &str = "context";

/// What is at the URL of a build context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpContext {
    /// A Dockerfile: the context is this file, called `context`.
    File,
    /// An archive: the context is what it holds.
    Archive,
}

impl HttpContext {
    /// Returns the graph whose result is the build context at `url`.
    ///
    /// # Errors
    /// Never for a URL; `Internal` if the graph can't be made.
    pub fn definition(self, url: &str) -> Result<Definition, Error> {
        let mut dag = Dag::default();
        let name = "[internal] load remote build context".to_owned();
        let mut result = dag.add(http_node(url, CONTEXT_FILE, None, name));
        if self == Self::Archive {
            let copy = pb::FileActionCopy {
                src: path::absolute("/", CONTEXT_FILE),
                dest: "/".to_owned(),
                mode: -1,
                timestamp: -1,
                attempt_unpack_docker_compatibility: true,
                ..pb::FileActionCopy::default()
            };
            let action = pb::FileAction {
                input: -1,
                secondary_input: 0,
                output: 0,
                action: Some(pb::file_action::Action::Copy(copy)),
            };
            let name = format!("copy /{CONTEXT_FILE} /");
            let mut node = file_node(vec![action], name);
            node.inputs = vec![result];
            result = dag.add(node);
        }
        let (definition, _) = dag.finish(Some(result), None)?;
        Ok(definition)
    }
}

/// Returns the graph whose result is the build context in a git repository; `.git` is kept if
/// `keep_git_dir` or the repository's own options say so.
///
/// # Errors
/// `Internal` if the graph can't be made.
pub fn git_context(named: &GitRef, keep_git_dir: bool) -> Result<Definition, Error> {
    let mut dag = Dag::default();
    let name = format!("[internal] load git source {}", named.redacted());
    let node = git_node(&GitSource::new(named, keep_git_dir), name);
    let result = dag.add(node);
    let (definition, _) = dag.finish(Some(result), None)?;
    Ok(definition)
}

/// Returns the node of a git repository.
pub(super) fn git_node(source: &GitSource, name: String) -> Node {
    let mut node = Node::new(pb::op::Op::Source(source.to_op()), name);
    for cap in source.caps() {
        node.cap(&cap);
    }
    node
}

/// Returns the node of a file that is downloaded, and saved as `filename`.
pub(super) fn http_node(
    url: &str,
    filename: &str,
    checksum: Option<&Digest>,
    name: String,
) -> Node {
    let source = http_op(url, filename, checksum);
    let mut node = Node::new(pb::op::Op::Source(source), name);
    node.cap("source.http");
    if checksum.is_some() {
        node.cap("source.http.checksum");
    }
    node
}

/// Returns the source of a file that is downloaded, and saved as `filename`.
pub(super) fn http_op(url: &str, filename: &str, checksum: Option<&Digest>) -> pb::SourceOp {
    let mut source = pb::SourceOp {
        identifier: url.to_owned(),
        ..pb::SourceOp::default()
    };
    let mut attr = |name: &str, value: &str| {
        source
            .attrs
            .insert(format!("http.{name}"), value.to_owned());
    };
    attr("filename", filename);
    if let Some(checksum) = checksum {
        attr("checksum", checksum.as_str());
    }
    source
}

/// Returns the name that ADD gives a downloaded file: the last part of the URL's path.
pub(super) fn file_name(url: &str) -> String {
    url_name(url).unwrap_or_else(|| UNNAMED.to_owned())
}
