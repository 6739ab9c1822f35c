//! The blobs of a push, each from where it is.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use larder_oci::{Descriptor, ImageRef};
use larder_registry::{BlobPush, Client, Pushed};

use super::PushedBlob;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Fetcher, Origin, repository};
use crate::progress::StatusProgress;
use crate::task::Tasks;

/// Threads that read blobs. The registry's client bounds how many are pushed at once; these only
/// must not be the narrower bound.
const THREADS: usize = 16;

/// Pushes blobs to the repository of `name`, many at once; returns what became of each.
pub(super) fn push_all(
    fetcher: &Fetcher<'_>,
    client: &Client,
    name: &ImageRef,
    blobs: &[Descriptor],
) -> Result<Vec<PushedBlob>> {
    let waiting = Mutex::new(blobs.iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(blobs.len()));
    let work = || -> Result<()> {
        loop {
            let next = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next();
            let Some((position, blob)) = next else {
                return Ok(());
            };
            let pushed = push_blob(fetcher, client, name, blob).inspect_err(|_| {
                // The others are not begun any more.
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                while waiting.next().is_some() {}
            })?;
            let blob = PushedBlob {
                descriptor: blob.clone(),
                pushed,
            };
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((position, blob));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..blobs.len().min(THREADS))
            .map(|_| Tasks::spawn(scope, "push", work))
            .collect();
        let failed = |source| {
            BuildError::new(ErrorClass::Exhausted, "cannot start a thread").with_source(source)
        };
        let panicked = |_| BuildError::internal("the thread of a push panicked");
        let ended: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.map_err(failed)?.join().map_err(panicked)?)
            .collect();
        ended.into_iter().collect::<Result<()>>()
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(position, _)| *position);
    Ok(done.into_iter().map(|(_, blob)| blob).collect())
}

fn push_blob(
    fetcher: &Fetcher<'_>,
    client: &Client,
    name: &ImageRef,
    blob: &Descriptor,
) -> Result<Pushed> {
    fetcher.cancel.check()?;
    let origins: Vec<ImageRef> = fetcher
        .lease
        .store()
        .origins(&blob.digest)?
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let is_neighbour = |origin: &&ImageRef| {
        origin.registry() == name.registry() && origin.repository() != name.repository()
    };
    let mount_from: Vec<String> = origins
        .iter()
        .filter(is_neighbour)
        .map(|origin| origin.repository().to_owned())
        .collect();
    let held = fetcher
        .lease
        .hold_blobs(std::slice::from_ref(&blob.digest))?;
    if !held {
        let offered = client.offer_blob(name, blob, &mount_from);
        if let Some(pushed) = until_canceled(fetcher, offered)? {
            return Ok(pushed);
        }
        copy_through(fetcher, name, blob, &origins)?;
    }
    let file = fetcher.lease.store().open_blob(&blob.digest)?;
    let status: Mutex<Option<StatusProgress<'_>>> = Mutex::default();
    let on_sent = |bytes: u64| {
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        status
            .get_or_insert_with(|| {
                let id = format!("pushing {}", blob.digest);
                fetcher.progress.status(id, blob.size_bytes)
            })
            .set(bytes);
    };
    let push = BlobPush {
        image_ref: name,
        descriptor: blob,
        source: &file,
        mount_from: &mount_from,
        on_sent: &on_sent,
    };
    let pushed = until_canceled(fetcher, client.push_blob(&push))?;
    if let Some(status) = status.into_inner().unwrap_or_else(PoisonError::into_inner) {
        status.done();
    }
    Ok(pushed)
}

/// Fetches a blob that only another registry has.
fn copy_through(
    fetcher: &Fetcher<'_>,
    name: &ImageRef,
    blob: &Descriptor,
    origins: &[ImageRef],
) -> Result<()> {
    let far = |origin: &&ImageRef| repository(origin) != repository(name);
    let origin = origins.iter().find(far).ok_or_else(|| {
        let message = format!(
            "blob `{}` is not in the store, and no registry is known to have it",
            blob.digest
        );
        BuildError::new(ErrorClass::NotFound, message)
    })?;
    fetcher.blob(blob, &Origin::Registry(origin.clone()))
}

/// Waits for `work`, unless the user wants an end first.
pub(super) fn until_canceled<T>(
    fetcher: &Fetcher<'_>,
    work: impl Future<Output = Result<T, larder_registry::Error>>,
) -> Result<T> {
    let tasks = &fetcher.engine.tasks;
    tasks
        .until_canceled(fetcher.cancel, work)?
        .map_err(in_words)
}

/// The hint for who can't reach a registry is about base images.
fn in_words(error: larder_registry::Error) -> BuildError {
    let error = BuildError::from(error);
    match error.class() {
        ErrorClass::Unavailable => error.without_hint(),
        _ => error,
    }
}
