//! The build op: a build of the graph that a step has made.

use std::io::Read as _;

use larder_llb::{Definition, Message as _, pb};
use larder_store::SnapshotId;
use larder_tree::beneath::Root;
use rustix::fs::{Mode, OFlags};

use crate::build::llb;
use crate::cancel::CancelFlag;
use crate::error::{BuildError, ErrorClass, Result};
use crate::images::Images;
use crate::policy;
use crate::solve::{self, Job};
use crate::worker::{BuildWorker, ResultRef};

/// The input that has the graph, and by default the name of its file.
const DEFINITION: &str = "buildkit.llb.definition";
/// The attribute that names the file.
const FILENAME: &str = "llbbuild.filename";
/// How large the file may be.
const MAX_BYTES: u64 = 32 << 20;
/// How deep builds may be nested. A build may be nested in itself.
const MAX_DEPTH: usize = 16;

/// Builds what `build` says. Returns the tree of the result.
pub(crate) fn run(
    worker: &BuildWorker<'_>,
    build: &pb::BuildOp,
    inputs: &[ResultRef],
    cancel: &CancelFlag,
) -> Result<SnapshotId> {
    if worker.depth == MAX_DEPTH {
        return Err(BuildError::invalid(format!(
            "builds are nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let input = build.inputs.get(DEFINITION).ok_or_else(|| {
        BuildError::invalid(format!("no llb definition input {DEFINITION} found"))
    })?;
    let filename = build.attrs.get(FILENAME);
    let filename = filename.map_or(DEFINITION, String::as_str);
    let definition = read(worker, &inputs[input.input as usize], filename)?;
    let Some(result) = solved(worker, definition, cancel)? else {
        return Ok(worker.lease.merge(&[], "empty build")?);
    };
    worker.snapshot_of(&result)
}

/// Reads the graph in a file.
fn read(worker: &BuildWorker<'_>, tree: &ResultRef, filename: &str) -> Result<Definition> {
    let failed = |source| {
        let what = format!("cannot read `{filename}` of a nested build");
        BuildError::new(ErrorClass::NotFound, what).with_source(source)
    };
    let root = Root::from_fd(worker.open_view(tree)?);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = root.open_file(filename, flags, Mode::empty());
    let file = std::fs::File::from(file.map_err(BuildError::from)?);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(BuildError::invalid(format!(
            "{filename} is not a regular file"
        )));
    }
    if metadata.len() > MAX_BYTES {
        return Err(BuildError::invalid(format!(
            "`{filename}` has more than {MAX_BYTES} bytes, as no LLB definition has"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let invalid = || format!("`{filename}` is no LLB definition");
    let definition = pb::Definition::decode(&bytes[..])
        .map_err(|error| BuildError::invalid(invalid()).with_source(error))?;
    Definition::from_pb(&definition)
        .map_err(|error| BuildError::invalid(invalid()).with_source(error))
}

/// Solves a graph within the build; `None` for an empty one.
fn solved(
    worker: &BuildWorker<'_>,
    definition: Definition,
    cancel: &CancelFlag,
) -> Result<Option<ResultRef>> {
    let mut definition = definition;
    if let Some(rewritten) = policy::apply(worker.policy, &definition, &Vec::new())? {
        definition = rewritten.definition;
    }
    worker.granted.check(&definition)?;
    let finder = Images::new(worker.engine, &worker.lease, false, cancel);
    let finder = finder.with_layouts(worker.layouts.clone());
    let mut images = worker.images.clone();
    images.extend(llb::source_images(&definition, &finder)?);
    let lowered = llb::lowered(definition);
    let nested = worker.nested(&lowered, &images);
    let job = Job {
        worker: &nested,
        definition: &lowered.definition,
        reporter: worker.reporter,
    };
    let limit = worker.engine.config.worker.oci.max_parallelism;
    let done = solve::solve(&[job], cancel, limit, &|_, solved, _| {
        Ok(solved.map(|solved| solved.result))
    });
    let mut done = done.map_err(|failed| failed.error)?;
    Ok(done.pop().flatten())
}
