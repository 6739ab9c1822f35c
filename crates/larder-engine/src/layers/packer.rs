//! Who packs layers, and what a run has packed: each layer once, for all that want it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use larder_store::{Lease, SnapshotId};
use larder_tree::compression::Threads;
use rustix::process::{Pid, getpriority_process, setpriority_process};

use super::{PackedLayer, Recipe};
use crate::cancel::CancelFlag;
use crate::error::{BuildError, Result};

/// How much a thread that gives way is nicer than others: beside one that doesn't it gets a tenth
/// of a processor.
const NICENESS: i32 = 10;

/// Packs layers for a run.
#[derive(Clone, Copy)]
pub(crate) struct Packer<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) packed: &'a Packed,
    pub(crate) cancel: &'a CancelFlag,
    gives_way: bool,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(lease: &'a Lease, packed: &'a Packed, cancel: &'a CancelFlag) -> Self {
        Self {
            lease,
            packed,
            cancel,
            gives_way: false,
        }
    }

    /// Lets its threads give way to all others, until another packer waits for what they make.
    pub(crate) fn giving_way(self) -> Self {
        Self {
            gives_way: true,
            ..self
        }
    }

    /// Returns the threads that compress one layer: one a processor.
    pub(super) fn threads(&self) -> Threads {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = Threads::new(count);
        if self.gives_way {
            let polite = Arc::clone(&self.packed.polite);
            threads.beginning_with(move || polite.join())
        } else {
            threads
        }
    }

    /// Returns `out`, into which nothing can be written once the work is to end.
    pub(super) fn until_canceled<'w>(&self, out: &'w mut dyn Write) -> impl Write + use<'a, 'w> {
        UntilCanceled {
            out,
            cancel: self.cancel,
        }
    }

    /// Returns a failure as what it was, which a cancellation is not.
    pub(super) fn failed(&self, error: BuildError) -> BuildError {
        self.cancel.check().err().unwrap_or(error)
    }

    /// Makes a layer in the form that `recipe` says, unless that was done. Who asks for what another
    /// is about to make waits for it.
    pub(super) fn once(
        &self,
        id: &SnapshotId,
        recipe: &Recipe,
        pack: impl FnOnce() -> Result<PackedLayer>,
    ) -> Result<PackedLayer> {
        if self.gives_way {
            self.packed.polite.begin();
        }
        let slot = self.packed.slot(id, recipe);
        let mut slot = match slot.try_lock() {
            Err(TryLockError::WouldBlock) => {
                if !self.gives_way {
                    self.packed.polite.hurry();
                }
                lock(&slot)
            }
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(slot) => slot,
        };
        if let Some(made) = &*slot {
            return Ok(made.clone());
        }
        let layer = pack()?;
        *slot = Some(layer.clone());
        Ok(layer)
    }
}

/// The layers that a run has packed.
#[derive(Default)]
pub(crate) struct Packed {
    slots: Mutex<HashMap<(SnapshotId, Recipe), Slot>>,
    polite: Arc<Polite>,
}

/// A layer in one form. Held while the layer is packed.
type Slot = Arc<Mutex<Option<PackedLayer>>>;

impl Packed {
    fn slot(&self, id: &SnapshotId, recipe: &Recipe) -> Slot {
        let mut slots = lock(&self.slots);
        slots.entry((id.clone(), *recipe)).or_default().clone()
    }
}

/// Threads that give way to others. There is one layer at a time that such threads pack.
#[derive(Default)]
struct Polite {
    threads: Mutex<Hurry>,
}

#[derive(Default)]
struct Hurry {
    /// Those that give way, with their priorities before.
    threads: Vec<(Pid, i32)>,
    /// Whether somebody waits for the layer.
    is_on: bool,
}

impl Polite {
    /// Forgets the threads of the layer before.
    fn begin(&self) {
        *lock(&self.threads) = Hurry::default();
    }

    /// Lets the calling thread give way.
    fn join(&self) {
        let mut hurry = lock(&self.threads);
        let thread = rustix::thread::gettid();
        if !hurry.is_on
            && let Ok(before) = getpriority_process(Some(thread))
            && setpriority_process(Some(thread), before + NICENESS).is_ok()
        {
            hurry.threads.push((thread, before));
        }
    }

    /// Lets no thread of the layer in work give way any more, as far as this process may.
    fn hurry(&self) {
        let mut hurry = lock(&self.threads);
        hurry.is_on = true;
        for (thread, before) in hurry.threads.drain(..) {
            // Without the privilege it goes on as nice as it is.
            let _ = setpriority_process(Some(thread), before);
        }
    }
}

struct UntilCanceled<'a, 'w> {
    out: &'w mut dyn Write,
    cancel: &'a CancelFlag,
}

impl Write for UntilCanceled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_set() {
            return Err(io::Error::other("the build was canceled"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
