//! Fetches layers that the store does not have, and unpacks them into a snapshot.

mod arrival;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use larder_llb::cache_map::chain_id;
use larder_oci::{Descriptor, Digest, ImageRef, Sha256};
use larder_registry::{BlobSink, Partial};
use larder_store::{BlobWriter, Lease, NewLayer, SnapshotId, UnpackedLayer};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::progress::{StatusProgress, VertexProgress};
use crate::task::Tasks;
use arrival::Arrival;

/// Bytes copied at a time from a directory.
const BUFFER_BYTES: usize = 1 << 17;

/// How long a server may send nothing of what can be made instead.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon it is noticed that nobody waits any more.
const POLL: Duration = Duration::from_millis(50);

/// A layer that need not be in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FarLayer {
    /// Its blob.
    pub(crate) descriptor: Descriptor,
    /// The digest of its uncompressed tar.
    pub(crate) diff_id: Digest,
    /// When it was made, where that is known.
    pub(crate) created_at: Option<Timestamp>,
}

/// Where blobs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In a registry, in the repository of the reference.
    Registry(ImageRef),
    /// The same, where plain http and unknown certificates will do.
    InsecureRegistry(ImageRef),
    /// In an OCI layout: a directory of the user's.
    Layout(PathBuf),
    /// Only where the store has noted them to be.
    Noted,
}

impl Origin {
    /// Returns what a cache import from there is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry(image_ref) | Self::InsecureRegistry(image_ref) => image_ref.to_string(),
            Self::Layout(directory) => format!("local:{}", directory.display()),
            Self::Noted => "store".to_owned(),
        }
    }
}

/// Fetches layers for a build.
#[derive(Clone, Copy)]
pub(crate) struct Fetcher<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) lease: &'a Lease,
    pub(crate) progress: &'a VertexProgress<'a>,
    pub(crate) cancel: &'a CancelFlag,
    /// How long a server may send nothing, where others than the registry's client set a bound.
    patience: Option<Duration>,
    /// Why what is fetched comes too late: what else is needed could not be had.
    failure: Option<&'a Mutex<Option<BuildError>>>,
}

impl<'a> Fetcher<'a> {
    /// Returns what fetches with `lease` until `cancel` is set.
    pub(crate) fn new(
        engine: &'a Engine,
        lease: &'a Lease,
        progress: &'a VertexProgress<'a>,
        cancel: &'a CancelFlag,
    ) -> Self {
        Self {
            engine,
            lease,
            progress,
            cancel,
            patience: None,
            failure: None,
        }
    }

    /// Returns the same for what can be made instead: a server that falls silent is given up soon.
    pub(crate) fn impatient(self) -> Self {
        let patience = Some(PATIENCE);
        Self { patience, ..self }
    }

    /// Returns the tree of `layers`, lowest first: as it is in the store, else with the missing
    /// layers fetched and unpacked, all at once.
    pub(crate) fn tree(
        &self,
        layers: &[FarLayer],
        origin: &Origin,
        description: &str,
    ) -> Result<SnapshotId> {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let chain = |count: usize| {
            chain_id(&diff_ids[..count]).ok_or_else(|| BuildError::internal("no layers"))
        };
        let mut below = None;
        let mut present = 0;
        for count in (1..=layers.len()).rev() {
            if let Some(snapshot) = self.lease.snapshot_by_chain_id(&chain(count)?)? {
                (below, present) = (Some(snapshot), count);
                break;
            }
        }
        let unpacked = self.unpack_all(&layers[present..], origin)?;
        for (offset, layer) in unpacked.into_iter().enumerate() {
            let count = present + offset + 1;
            let new = NewLayer {
                parent: below.as_ref(),
                chain_id: &chain(count)?,
                blob: Some(&layers[count - 1].descriptor),
                description,
                created_at: layers[count - 1].created_at,
            };
            below = Some(self.lease.link(layer, &new)?);
        }
        below.ok_or_else(|| BuildError::internal("a tree came out without layers"))
    }

    /// Fetches and unpacks layers, each on threads of its own: the registry client bounds how
    /// many arrive at once.
    ///
    /// # Errors
    /// The first: the others are given up then.
    fn unpack_all(&self, layers: &[FarLayer], origin: &Origin) -> Result<Vec<UnpackedLayer>> {
        let failure = Mutex::new(None);
        let fetcher = Fetcher {
            failure: Some(&failure),
            ..*self
        };
        let unpacked: Result<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = layers
                .iter()
                .map(|layer| {
                    Tasks::spawn(scope, "layer", move || {
                        let unpacked = fetcher.layer(layer, origin);
                        unpacked.map_err(|error| fetcher.failed(error))
                    })
                })
                .collect();
            let finished: Vec<_> = threads.into_iter().map(finish).collect();
            finished.into_iter().collect()
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        unpacked.map_err(|error| failure.unwrap_or(error))
    }

    /// Keeps the first error of what is fetched together, for which the rest is given up.
    fn failed(&self, error: BuildError) -> BuildError {
        let Some(failure) = self.failure else {
            return error;
        };
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        BuildError::canceled()
    }

    /// Whether nobody waits any more.
    fn is_in_vain(&self) -> bool {
        let is_some = |failure: &Mutex<Option<_>>| {
            let failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.is_some()
        };
        self.cancel.is_set() || self.failure.is_some_and(is_some)
    }

    /// Waits until there is no point in waiting for `blob`, of which something was `heard` last.
    async fn given_up(&self, blob: &Digest, heard: &Heard) -> BuildError {
        while !self.is_in_vain() {
            if let Some(patience) = self.patience.filter(|&it| heard.is_silent_for(it)) {
                let seconds = patience.as_secs();
                let message = format!("nothing came of blob `{blob}` within {seconds} s");
                return BuildError::new(ErrorClass::Unavailable, message);
            }
            tokio::time::sleep(POLL).await;
        }
        BuildError::canceled()
    }

    /// Unpacks a layer: as it is in the store, else while it arrives.
    fn layer(&self, layer: &FarLayer, origin: &Origin) -> Result<UnpackedLayer> {
        if self.is_in_vain() {
            return Err(BuildError::canceled());
        }
        let digest = &layer.descriptor.digest;
        if self.lease.hold_blobs(std::slice::from_ref(digest))? {
            return self.unpack_stored(layer);
        }
        let arrival = Arrival::default();
        let unpacked = std::thread::scope(|scope| {
            let unpacking = Tasks::spawn(scope, "unpack", || self.unpack(layer, arrival.reader()));
            // However it ends, nobody is to wait for more.
            let ending = arrival.ending();
            let fetched = self.fetch(&layer.descriptor, origin, Some(&arrival));
            fetched.map_err(|error| error.of_fetch(digest))?;
            ending.finish();
            let status = self.progress.status(format!("extracting {digest}"), 0);
            let unpacked = finish(unpacking);
            status.done();
            Ok::<_, BuildError>(unpacked)
        });
        match unpacked? {
            Err(_) if arrival.is_broken() => self.unpack_stored(layer),
            unpacked => unpacked,
        }
    }

    fn unpack_stored(&self, layer: &FarLayer) -> Result<UnpackedLayer> {
        let digest = &layer.descriptor.digest;
        let status = self.progress.status(format!("extracting {digest}"), 0);
        let unpacked = self.unpack(layer, self.lease.store().open_blob(digest)?)?;
        status.done();
        Ok(unpacked)
    }

    fn unpack(&self, layer: &FarLayer, blob: impl Read) -> Result<UnpackedLayer> {
        let mut warn =
            |warning: larder_tree::apply::Warning| self.progress.warn(warning.to_string());
        Ok(self.lease.unpack(&layer.diff_id, blob, &mut warn)?)
    }

    /// Has a blob in the store, held by the lease: as it is there, else fetched from `origin`, or
    /// from where it is known to be.
    pub(crate) fn blob(&self, descriptor: &Descriptor, origin: &Origin) -> Result<()> {
        self.cancel.check()?;
        if self
            .lease
            .hold_blobs(std::slice::from_ref(&descriptor.digest))?
        {
            return Ok(());
        }
        let fetched = self.fetch(descriptor, origin, None);
        fetched.map_err(|error| error.of_fetch(&descriptor.digest))
    }

    /// Fetches a blob into the store; tells `arrival` how far it is.
    fn fetch(
        &self,
        descriptor: &Descriptor,
        origin: &Origin,
        arrival: Option<&Arrival>,
    ) -> Result<()> {
        let (own, insecure) = match origin {
            Origin::Layout(directory) => return self.copy(descriptor, directory, arrival),
            Origin::Registry(image_ref) => (Some(image_ref), false),
            Origin::InsecureRegistry(image_ref) => (Some(image_ref), true),
            Origin::Noted => (None, false),
        };
        let mut repositories = self.lease.store().origins(&descriptor.digest)?;
        repositories.retain(|noted| own.is_none_or(|own| *noted != repository(own)));
        let noted = repositories.iter().filter_map(|text| text.parse().ok());
        let mut last = None;
        for from in noted.chain(own.cloned()) {
            match self.download(descriptor, (&from, insecure), arrival) {
                Ok(()) => return Ok(()),
                Err(error) if error.class() == ErrorClass::Canceled => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let digest = &descriptor.digest;
            let message =
                format!("blob `{digest}` is not in the store, and no registry is known to have it");
            BuildError::new(ErrorClass::NotFound, message)
        }))
    }

    fn download(
        &self,
        descriptor: &Descriptor,
        (from, insecure): (&ImageRef, bool),
        arrival: Option<&Arrival>,
    ) -> Result<()> {
        let status = self
            .progress
            .status(descriptor.digest.to_string(), descriptor.size_bytes);
        let heard = Heard::default();
        let mut sink = self.sink(descriptor, &status, arrival)?;
        sink.heard = Some(&heard);
        let partial = Partial {
            offset_bytes: sink.writer.offset(),
            ..Partial::default()
        };
        status.set(sink.writer.offset());
        let mut client = self.engine.registry().clone();
        if insecure {
            client = client.trusting(from.registry());
        }
        let fetch = async {
            tokio::select! {
                fetched = client.fetch_blob(from, descriptor, partial, &mut sink) => fetched.map_err(BuildError::from),
                error = self.given_up(&descriptor.digest, &heard) => Err(error),
            }
        };
        let fetched = self.engine.tasks.block_on(fetch)?;
        self.cancel.check()?;
        fetched?;
        sink.commit()?;
        status.done();
        Ok(())
    }

    fn copy(
        &self,
        descriptor: &Descriptor,
        directory: &Path,
        arrival: Option<&Arrival>,
    ) -> Result<()> {
        let digest = &descriptor.digest;
        let failed = |source: io::Error| {
            BuildError::new(
                ErrorClass::NotFound,
                format!("cannot read blob `{digest}` of `{}`", directory.display()),
            )
            .with_source(source)
        };
        let status = self
            .progress
            .status(digest.to_string(), descriptor.size_bytes);
        let mut sink = self.sink(descriptor, &status, None)?;
        sink.writer.restart()?;
        sink.announce(arrival)?;
        let path = layout_blob(directory, digest);
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            sink.write(&buffer[..count]).map_err(failed)?;
        }
        self.cancel.check()?;
        sink.commit()?;
        status.done();
        Ok(())
    }

    fn sink<'s>(
        &'s self,
        descriptor: &Descriptor,
        status: &'s StatusProgress<'s>,
        arrival: Option<&'s Arrival>,
    ) -> Result<Sink<'s>> {
        let expected = Some((descriptor.digest.clone(), descriptor.size_bytes));
        let mut sink = Sink {
            writer: self.lease.blob_writer(expected)?,
            status,
            arrival: None,
            heard: None,
            cancel: self.cancel,
        };
        sink.announce(arrival)?;
        Ok(sink)
    }
}

/// Waits for the thread of a layer.
fn finish(
    thread: io::Result<ScopedJoinHandle<'_, Result<UnpackedLayer>>>,
) -> Result<UnpackedLayer> {
    let failed = |source| {
        BuildError::new(ErrorClass::Exhausted, "cannot start a thread").with_source(source)
    };
    let panicked = |_| BuildError::internal("the thread of a layer panicked");
    thread.map_err(failed)?.join().map_err(panicked)?
}

/// Returns where an OCI layout has a blob.
pub(crate) fn layout_blob(directory: &Path, digest: &Digest) -> PathBuf {
    directory
        .join("blobs")
        .join(digest.algorithm())
        .join(digest.hex())
}

/// Returns the repository of a reference, as the store notes it.
pub(crate) fn repository(image_ref: &ImageRef) -> String {
    format!("{}/{}", image_ref.registry(), image_ref.repository())
}

/// Writes a download into the store.
struct Sink<'a> {
    writer: BlobWriter,
    status: &'a StatusProgress<'a>,
    arrival: Option<&'a Arrival>,
    heard: Option<&'a Heard>,
    cancel: &'a CancelFlag,
}

/// When a server was asked, or sent something, last.
#[derive(Default)]
struct Heard(Mutex<Option<Instant>>);

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the server was asked, and has sent nothing for so long.
    fn is_silent_for(&self, time: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() >= time)
    }
}

impl<'a> Sink<'a> {
    /// Tells `arrival` what is there, and what comes.
    fn announce(&mut self, arrival: Option<&'a Arrival>) -> Result<()> {
        if let Some(arrival) = arrival {
            arrival.begin(self.writer.file()?, self.writer.readable_bytes());
        }
        self.arrival = arrival;
        Ok(())
    }

    fn commit(self) -> Result<()> {
        let size_bytes = self.writer.offset();
        self.writer.commit()?;
        if let Some(arrival) = self.arrival {
            arrival.grow(size_bytes);
        }
        Ok(())
    }
}

impl BlobSink for Sink<'_> {
    fn begun(&mut self) {
        if let Some(heard) = self.heard {
            heard.now();
        }
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.begun();
        if self.cancel.is_set() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        io::Write::write_all(&mut self.writer, chunk)?;
        self.status.set(self.writer.offset());
        if let Some(arrival) = self.arrival {
            arrival.grow(self.writer.readable_bytes());
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        if let Some(arrival) = self.arrival {
            arrival.break_off();
        }
        self.writer.restart().map_err(io::Error::other)
    }

    fn sha256(&self) -> Option<Sha256> {
        Some(self.writer.hasher())
    }
}
