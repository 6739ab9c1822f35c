//! Definitions for people to read.

use std::fmt::Write as _;

use larder_oci::{Digest, go_json};
use prost::Message;
use serde::Serialize;

use crate::{GraphError, pb};
use pb::op::Op;

/// Returns the ops of a definition as JSON, one a line, as BuildKit's `dump-llb` prints them. The
/// graph need not be sound.
///
/// # Errors
/// [`GraphError::Decode`] for bytes that are no op.
pub fn json(definition: &pb::Definition) -> Result<String, GraphError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line<'a> {
        op: &'a pb::Op,
        digest: &'a str,
        op_metadata: Option<&'a pb::OpMetadata>,
    }
    let mut lines = Vec::new();
    for (digest, op) in &ops(definition)? {
        lines.extend(go_json(&Line {
            op,
            digest: digest.as_str(),
            op_metadata: definition.metadata.get(digest.as_str()),
        }));
        lines.push(b'\n');
    }
    Ok(String::from_utf8_lossy(&lines).into_owned())
}

/// Returns a definition as a graph in the language of Graphviz. It need not be sound.
///
/// # Errors
/// [`GraphError::Decode`] for bytes that are no op.
pub fn dot(definition: &pb::Definition) -> Result<String, GraphError> {
    let ops = ops(definition)?;
    let mut text = String::from("digraph {\n");
    for (digest, op) in &ops {
        let (label, shape) = node(digest, op);
        let (id, label) = (quoted(digest.as_str()), quoted(&label));
        writeln!(text, "  {id} [label={label} shape=\"{shape}\"];").expect("strings grow");
    }
    for (digest, op) in &ops {
        for (position, input) in op.inputs.iter().enumerate() {
            let (from, to) = (quoted(&input.digest), quoted(digest.as_str()));
            let label = quoted(mounted_at(op, position));
            writeln!(text, "  {from} -> {to} [label={label}];").expect("strings grow");
        }
    }
    text.push_str("}\n");
    Ok(text)
}

fn ops(definition: &pb::Definition) -> Result<Vec<(Digest, pb::Op)>, GraphError> {
    let ops = definition.def.iter().enumerate();
    ops.map(|(position, bytes)| match pb::Op::decode(&bytes[..]) {
        Ok(op) => Ok((Digest::sha256(bytes), op)),
        Err(source) => Err(GraphError::Decode { position, source }),
    })
    .collect()
}

fn node(digest: &Digest, op: &pb::Op) -> (String, &'static str) {
    match &op.op {
        Some(Op::Source(source)) => (source.identifier.clone(), "ellipse"),
        Some(Op::Exec(exec)) => {
            let args = exec.meta.as_ref().map(|meta| meta.args.join(" "));
            (args.unwrap_or_default(), "box")
        }
        Some(Op::File(_)) => (crate::graph::name::of(op, &[]), "note"),
        Some(Op::Build(_)) => ("build".to_owned(), "box3d"),
        Some(Op::Merge(_)) => ("merge".to_owned(), "invtriangle"),
        Some(Op::Diff(_)) => ("diff".to_owned(), "doublecircle"),
        Some(Op::Passthrough(_)) | None => (digest.to_string(), "plaintext"),
    }
}

/// Returns where an exec op mounts an input, unless it is the root filesystem.
fn mounted_at(op: &pb::Op, input: usize) -> &str {
    let Some(Op::Exec(exec)) = &op.op else {
        return "";
    };
    let mut mounts = exec.mounts.iter();
    let mount = mounts.rfind(|mount| mount.input == input as i64 && mount.dest != "/");
    mount.map_or("", |mount| &mount.dest)
}

/// Returns a string as Graphviz reads it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('\n', "\\n"))
}
