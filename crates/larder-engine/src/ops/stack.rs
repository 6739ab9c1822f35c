//! The merge and the diff op: snapshots made of the layers of others.
//!
//! Both are about *layers*, as they are exported: what a merge or a diff shows is what its layers
//! make when they are unpacked one after the other. An overlay of the directories in the store
//! would show something else, since these have marks that are meant for what lay beneath: each
//! directory that a step makes hides all that other layers have at its path. So layers that were
//! written above others are packed, and unpacked where they now are; the layers of the result are
//! the old ones nevertheless, and are exported with the blobs that they have.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use larder_store::{ActiveSnapshot, Lease, NewSnapshot, RecordType, SnapshotId};
use larder_tree::apply::{ApplyOptions, LayerForm, Warning, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::diff::{LayerOptions, Style, write_layer};

use crate::error::{BuildError, ErrorClass, Result};
use crate::layers;
use crate::progress::VertexProgress;

/// What makes a merge or a diff.
pub(crate) struct Stacker<'a> {
    pub(crate) lease: &'a Lease,
    /// The vertex' name, for `du`.
    pub(crate) name: String,
    pub(crate) progress: &'a VertexProgress<'a>,
}

impl Stacker<'_> {
    /// Stacks the layers of all `inputs`, later ones above earlier ones.
    pub(crate) fn merge(&self, inputs: &[SnapshotId]) -> Result<SnapshotId> {
        let store = self.lease.store();
        let mut filled: Vec<SnapshotId> = Vec::new();
        let mut layers: Vec<SnapshotId> = Vec::new();
        for input in inputs {
            let chain = store.chain(input)?;
            if !chain.is_empty() {
                filled.push(input.clone());
            }
            // Applied again, a layer does to the tree what it did before.
            layers.retain(|layer| !chain.contains(layer));
            layers.extend(chain);
        }
        for input in filled.iter().skip(1) {
            if !store.is_stackable(input)? {
                return self.stack(&layers);
            }
        }
        self.join(filled)
    }

    /// Returns what `upper` has and `lower` has not, `None` being an empty tree: the layers of
    /// `upper` above those of `lower`, or else one layer with all differences.
    pub(crate) fn diff(
        &self,
        lower: Option<&SnapshotId>,
        upper: Option<&SnapshotId>,
    ) -> Result<SnapshotId> {
        let store = self.lease.store();
        let Some(lower) = lower else {
            return match upper {
                Some(upper) => Ok(upper.clone()),
                None => self.join(Vec::new()),
            };
        };
        let below = store.chain(lower)?;
        let above = match upper {
            Some(upper) => store.chain(upper)?,
            None => Vec::new(),
        };
        match above.strip_prefix(&below[..]) {
            Some(layers) => self.stack(layers),
            None => self.stack(&[self.differences(lower, upper)?]),
        }
    }

    /// Makes the snapshot that has `layers`, lowest first, and shows what they make.
    fn stack(&self, layers: &[SnapshotId]) -> Result<SnapshotId> {
        let store = self.lease.store();
        let (mut done, mut base) = self.longest_chain(layers)?;
        while let Some(layer) = layers.get(done)
            && store.is_stackable(layer)?
        {
            base.push(layer.clone());
            done += 1;
        }
        let base = match (&base[..], done == layers.len()) {
            ([], false) => None,
            _ => Some(self.join(base)?),
        };
        let rest = &layers[done..];
        match base {
            Some(base) if rest.is_empty() => Ok(base),
            base => {
                let shown = self.apply(base.as_ref(), |active, root| {
                    rest.iter().try_for_each(|layer| {
                        self.unpack(active, root, |out| {
                            let options = LayerOptions::default();
                            layers::write_tar(store, layer, out, &options)
                        })
                    })
                })?;
                Ok(self.lease.stack(layers, &shown, &self.name)?)
            }
        }
    }

    /// Returns how many of `layers`, from the lowest on, are all that some snapshot is made of,
    /// and that snapshot, if there is one.
    fn longest_chain(&self, layers: &[SnapshotId]) -> Result<(usize, Vec<SnapshotId>)> {
        for count in (1..=layers.len()).rev() {
            let top = &layers[count - 1];
            if self.lease.store().chain(top)? == layers[..count] {
                return Ok((count, vec![top.clone()]));
            }
        }
        Ok((0, Vec::new()))
    }

    /// Stacks snapshots whose layers may lie upon each other as they are.
    fn join(&self, mut snapshots: Vec<SnapshotId>) -> Result<SnapshotId> {
        match snapshots.len() {
            1 => Ok(snapshots.remove(0)),
            _ => Ok(self.lease.merge(&snapshots, &self.name)?),
        }
    }

    /// Makes a layer upon `lower` that turns it into `upper`.
    fn differences(&self, lower: &SnapshotId, upper: Option<&SnapshotId>) -> Result<SnapshotId> {
        let upper = match upper {
            Some(upper) => upper.clone(),
            None => self.join(Vec::new())?,
        };
        let (below, above) = (self.view(lower)?, self.view(&upper)?);
        self.apply(Some(lower), |active, root| {
            self.unpack(active, root, |out| {
                let options = LayerOptions::default();
                write_layer(&above, Some(&below), Style::Tree, out, &options)?;
                Ok(())
            })
        })
    }

    fn view(&self, snapshot: &SnapshotId) -> Result<Root> {
        let mount = self.lease.store().view(snapshot)?;
        Ok(Root::from_fd(larder_exec::mount::open(&mount)?))
    }

    /// Makes a snapshot upon `base` by what `work` does to it.
    fn apply(
        &self,
        base: Option<&SnapshotId>,
        work: impl FnOnce(&ActiveSnapshot, &Root) -> Result<()>,
    ) -> Result<SnapshotId> {
        let active = self.lease.prepare(&NewSnapshot {
            parent: base,
            description: &self.name,
            record_type: RecordType::Regular,
        })?;
        let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
        work(&active, &root)?;
        drop(root);
        Ok(active.commit()?)
    }

    /// Unpacks the layer that `pack` writes into a tree.
    fn unpack(
        &self,
        active: &ActiveSnapshot,
        root: &Root,
        pack: impl FnOnce(Pipe<'_>) -> Result<()> + Send,
    ) -> Result<()> {
        let failed =
            |error| BuildError::new(ErrorClass::Exhausted, "cannot make a pipe").with_source(error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        let is_broken = AtomicBool::new(false);
        let out = Pipe {
            writer,
            is_broken: &is_broken,
        };
        std::thread::scope(|scope| {
            let packed = scope.spawn(move || pack(out));
            let applied = self.read_layer(active, root, reader);
            let packed = packed.join();
            let packed = packed
                .unwrap_or_else(|_| Err(BuildError::internal("the thread of a layer panicked")));
            match (applied, packed) {
                // What was not written can't be read.
                (Err(_), Err(cause)) if !is_broken.load(Ordering::Relaxed) => Err(cause),
                (applied, packed) => applied.and(packed),
            }
        })
    }

    fn read_layer(&self, active: &ActiveSnapshot, root: &Root, layer: impl Read) -> Result<()> {
        let mut on_warning = |warning: Warning| self.progress.warn(warning.to_string());
        let options = ApplyOptions {
            ownership: self.lease.store().ownership(),
            quota: active.quota(),
            ..ApplyOptions::new(&mut on_warning)
        };
        apply_layer(root, layer, LayerForm::Tree, options)?;
        Ok(())
    }
}

/// Where a layer is written to for another thread.
struct Pipe<'a> {
    writer: io::PipeWriter,
    /// Whether the other thread has given up.
    is_broken: &'a AtomicBool,
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes);
        if let Err(error) = &written
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
