//! What is fetched: files from web servers, and the build contexts that are such files.

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

/// Returns the node of a file that is downloaded, and saved as `filename`.
pub(super) fn http_node(
    url: &str,
    filename: &str,
    checksum: Option<&Digest>,
    name: String,
) -> Node {
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
    let mut node = Node::new(pb::op::Op::Source(source), name);
    node.cap("source.http");
    if checksum.is_some() {
        node.cap("source.http.checksum");
    }
    node
}

/// Returns the name that ADD gives a downloaded file: the last part of the URL's path.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['#', '?']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let decoded = decode(path).unwrap_or_default();
    let base = decoded.trim_end_matches('/').rsplit('/').next();
    match base.unwrap_or_default() {
        "" | "." => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// Decodes `%XX`; `None` for what is not encoded so, or no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_their_urls_end() {
        for (url, name) in [
            ("https://example.com/a.tar", "a.tar"),
            ("https://example.com/d/a.tar?x=1/2#f/g", "a.tar"),
            ("https://example.com/d/", "d"),
            ("https://example.com/a%20b%2Bc", "a b+c"),
            ("https://example.com/a%2Fb", "b"),
            ("https://example.com/%zz", UNNAMED),
            ("https://example.com/", UNNAMED),
            ("https://example.com", UNNAMED),
            ("https://example.com?x=/y", UNNAMED),
            ("https://example.com/.", UNNAMED),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
