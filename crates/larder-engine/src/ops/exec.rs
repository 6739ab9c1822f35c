//! RUN: one process over a fresh snapshot.

use std::collections::HashMap;

use larder_exec::{Outcome, Stream};
use larder_llb::cache_map::platform_of;
use larder_llb::{Vertex, pb};
use larder_oci::Platform;
use larder_store::{ActiveSnapshot, CacheMountGuard, Watch};

use crate::cancel::CancelFlag;
use crate::emulation;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::LogStream;
use crate::ops::ssh::AgentSocket;
use crate::progress::VertexProgress;
use crate::solve::WorkError;
use crate::worker::{BuildWorker, ResultRef};

mod limits;
mod mounts;
mod process;
pub(crate) mod watch;

pub(crate) use process::process_user;

/// Where the root filesystem is mounted.
const ROOT: &str = "/";

/// Runs the process of `exec`. Returns a result for each of `outputs`.
pub(crate) fn run(
    worker: &BuildWorker<'_>,
    vertex: &Vertex,
    exec: &pb::ExecOp,
    outputs: &[usize],
    inputs: &[ResultRef],
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<Vec<ResultRef>, WorkError> {
    let platform = vertex.op.platform.as_ref();
    let platform = platform.map_or_else(Platform::host, platform_of);
    let meta = exec.meta.clone().unwrap_or_default();
    let mut step = Step {
        worker,
        inputs,
        args: meta.args.join(" "),
        active: HashMap::new(),
        held: Vec::new(),
    };
    let (root, mut mounts) = step.mounts(exec, &meta.cwd, progress, cancel)?;
    mounts.extend(emulation::interpreter(&platform)?);
    let mut spec = step.spec(exec, &meta, root, mounts, progress)?;
    let limits = limits::of(vertex.metadata.linux_resources.as_ref());
    spec.limits = limits.clone();
    let process = larder_exec::Cancel::new().map_err(BuildError::from)?;
    cancel.ends(&process);
    let mut output = |stream: Stream, bytes: &[u8]| {
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        progress.log(stream, bytes);
    };
    let watch = step.watch().map_err(BuildError::from)?;
    let exit = watch::run(watch, &process, || {
        larder_exec::run(spec, &mut output, &process)
    });
    step.held.clear();
    let exit = exit
        .map_err(|error| error.context(format!("process {:?} was stopped", meta.args.join(" "))))?;
    let exit = exit.map_err(|error| match error.kind() {
        larder_exec::ErrorKind::Command => {
            progress.log(LogStream::Stderr, format!("{error}\n").as_bytes());
            emulation::explain(failed_process(&meta, "exit code: 1"), &platform)
        }
        _ => BuildError::from(error),
    })?;
    for unmet in &exit.unmet {
        progress.warn(format!("not limited: {unmet}"));
    }
    let died = |code: i32| {
        let memory = if exit.oom_killed {
            limits::out_of_memory(&limits)
        } else {
            String::new()
        };
        failed_process(&meta, &format!("exit code: {code}{memory}"))
    };
    match exit.outcome {
        Outcome::Canceled => return Err(BuildError::canceled().into()),
        Outcome::Exited(code) if is_success(code, &meta.valid_exit_codes) => {}
        Outcome::Exited(code) => {
            return Err(died(code).into());
        }
        // A shell reports a signal this way, and so do BuildKit's runtimes.
        Outcome::Signaled(signal) => {
            return Err(died(128 + signal).into());
        }
    }
    step.commit(exec, outputs)
}

fn is_success(code: i32, valid: &[i32]) -> bool {
    if valid.is_empty() {
        code == 0
    } else {
        valid.contains(&code)
    }
}

fn failed_process(meta: &pb::Meta, how: &str) -> BuildError {
    let args = meta.args.join(" ");
    BuildError::new(
        ErrorClass::Step,
        format!("process {args:?} did not complete successfully: {how}"),
    )
}

/// A RUN step in the making.
struct Step<'a> {
    worker: &'a BuildWorker<'a>,
    inputs: &'a [ResultRef],
    args: String,
    /// Writable snapshots, by mount.
    active: HashMap<usize, ActiveSnapshot>,
    /// What must live until the process has ended: cache mounts, and trees bound read-write whose
    /// changes are dropped.
    held: Vec<Held>,
}

enum Held {
    #[expect(dead_code, reason = "it serves as long as it lives")]
    Agent(AgentSocket),
    Cache(CacheMountGuard),
    Discarded(ActiveSnapshot),
}

impl Step<'_> {
    /// Returns what is to be looked after while the process writes.
    fn watch(&self) -> larder_store::Result<Option<Watch>> {
        let mut snapshots: Vec<&ActiveSnapshot> = self.active.values().collect();
        let mut mounts = Vec::new();
        for held in &self.held {
            match held {
                Held::Agent(_) => {}
                Held::Cache(guard) => mounts.push(guard),
                Held::Discarded(active) => snapshots.push(active),
            }
        }
        self.worker.lease.watch(snapshots, mounts)
    }

    /// Commits what is asked for, in the order of `outputs`.
    fn commit(mut self, exec: &pb::ExecOp, outputs: &[usize]) -> Result<Vec<ResultRef>, WorkError> {
        let mut results = Vec::with_capacity(outputs.len());
        for &output in outputs {
            let position = larder_llb::output_mounts(exec).nth(output);
            let position = position
                .ok_or_else(|| BuildError::invalid(format!("a step has no output {output}")))?;
            let result = match self.active.remove(&position) {
                Some(active) => BuildWorker::commit(active)?,
                // What is read-only comes out as it went in.
                None => match usize::try_from(exec.mounts[position].input) {
                    Ok(input) => self.inputs[input].clone(),
                    Err(_) => {
                        return Err(
                            BuildError::invalid("an empty read-only mount has no output").into(),
                        );
                    }
                },
            };
            results.push(result);
        }
        Ok(results)
    }
}
