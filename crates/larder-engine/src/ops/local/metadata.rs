//! Local sources of which only a listing is transferred, with some of their files.

use std::io::Write as _;

use larder_llb::pb;
use larder_store::{Lease, NewSnapshot, RecordType, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::context::{METADATA_NAME, Tree, metadata};
use larder_tree::copy::{self, CopyOptions};
use larder_tree::quota;
use rustix::fs::{Mode, OFlags};

use super::whole_tree;
use crate::error::{BuildError, ErrorClass, Result};

/// The attribute that asks for a listing.
const ATTRIBUTE: &str = "local.metadatatransfer";

/// Returns whether a source asks for a listing. The words for yes and no are those of Go.
pub(super) fn is_asked_for(source: &pb::SourceOp) -> Result<bool> {
    match source.attrs.get(ATTRIBUTE).map(String::as_str) {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(value) => Err(BuildError::invalid(format!(
            "invalid value for {ATTRIBUTE} {value:?}"
        ))),
    }
}

/// Returns a snapshot with the listing of a tree, and the files that match `exceptions`.
pub(super) fn snapshot(lease: &Lease, tree: &Tree, exceptions: Vec<String>) -> Result<SnapshotId> {
    let active = lease.prepare(&NewSnapshot {
        parent: None,
        description: "local source for context",
        record_type: RecordType::LocalSource,
    })?;
    let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
    if !exceptions.is_empty() {
        let options = CopyOptions {
            include_patterns: exceptions,
            exclude_patterns: vec![METADATA_NAME.to_owned()],
            ..whole_tree()
        };
        copy::copy_within(tree, &root, &options, active.quota())?;
    }
    let listing = metadata(tree)?;
    let failed = |error: std::io::Error| {
        let message = format!("cannot write `{METADATA_NAME}`");
        BuildError::new(ErrorClass::Exhausted, message).with_source(error)
    };
    let length = listing.len() as u64;
    let needed = quota::content_bytes(length) + quota::directories_bytes(METADATA_NAME.as_ref());
    active.quota().take(needed).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = root.open_file(METADATA_NAME, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&listing).map_err(failed)?;
    drop((file, root));
    Ok(active.commit()?)
}
