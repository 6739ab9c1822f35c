use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use larder_oci::Digest;

use crate::{Error, ErrorKind, Lease, Result, Store};

/// How long a waiter that may be canceled sleeps between two attempts.
const POLL: Duration = Duration::from_millis(10);

/// How a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockMode {
    Shared,
    Exclusive,
}

/// An advisory lock (`flock`) on a file; ends with this value, and with its process.
///
/// Each value has an open file of its own, so threads exclude each other as processes do.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: OwnedFd,
    path: PathBuf,
}

impl FileLock {
    /// Locks the file at `path`, made if absent. Waits.
    pub(crate) fn wait(path: &Path, mode: LockMode) -> Result<Self> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            let lock = Self::open(path)?;
            match rustix::io::retry_on_intr(|| rustix::fs::flock(&lock.file, operation)) {
                Ok(()) if lock.is_at_path()? => return Ok(lock),
                Ok(()) => {}
                Err(errno) => return Err(Error::io("cannot lock a file of the store", errno)),
            }
        }
    }

    /// Locks the file at `path`, made if absent, or returns `None` if another holds it.
    pub(crate) fn attempt(path: &Path, mode: LockMode) -> Result<Option<Self>> {
        loop {
            let lock = Self::open(path)?;
            match lock.try_flock(mode)? {
                true if lock.is_at_path()? => return Ok(Some(lock)),
                true => {}
                false => return Ok(None),
            }
        }
    }

    /// As [`FileLock::attempt`], but a missing file is not made: the lock of nobody.
    pub(crate) fn attempt_existing(path: &Path, mode: LockMode) -> Result<Existing> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Existing::Missing),
            Err(errno) => return Err(Error::io("cannot open a lock file of the store", errno)),
        };
        let lock = Self {
            file,
            path: path.to_owned(),
        };
        match lock.try_flock(mode)? {
            true if lock.is_at_path()? => Ok(Existing::Locked(lock)),
            true => Ok(Existing::Missing),
            false => Ok(Existing::Held),
        }
    }

    /// Tries until the lock is had or `canceled` returns true; `waiting` is called once if the
    /// first attempt fails.
    pub(crate) fn poll(
        path: &Path,
        canceled: &dyn Fn() -> bool,
        waiting: &dyn Fn(),
    ) -> Result<Self> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::attempt(path, LockMode::Exclusive)? {
                return Ok(lock);
            }
            wait_a_moment(canceled, waiting, &mut told)?;
        }
    }

    /// Returns the locked file.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Removes the file, then unlocks. Whoever waits for it notices, and makes it anew.
    pub(crate) fn remove(self) -> Result<()> {
        match rustix::fs::unlink(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("cannot remove a lock file of the store", errno)),
        }
    }

    fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| Error::io("cannot open a lock file of the store", errno))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    fn try_flock(&self, mode: LockMode) -> Result<bool> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(&self.file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
            Err(errno) => Err(Error::io("cannot lock a file of the store", errno)),
        }
    }

    /// Returns whether the locked file is still the one at the path: its last holder may have
    /// removed it between our opening and our locking, and a lock on it would exclude nobody.
    fn is_at_path(&self) -> Result<bool> {
        let failed = |errno| Error::io("cannot inspect a lock file of the store", errno);
        let held = rustix::fs::fstat(&self.file).map_err(failed)?;
        match rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// The outcome of [`FileLock::attempt_existing`].
pub(crate) enum Existing {
    /// There is no such file.
    Missing,
    /// Another holds it.
    Held,
    /// Now ours.
    Locked(FileLock),
}

/// Sleeps before the next attempt; `waiting` is called once, when `told` is false.
///
/// # Errors
/// `Canceled` if `canceled` returns true.
pub(crate) fn wait_a_moment(
    canceled: &dyn Fn() -> bool,
    waiting: &dyn Fn(),
    told: &mut bool,
) -> Result<()> {
    if canceled() {
        return Err(Error::new(
            ErrorKind::Canceled,
            "canceled while waiting for a lock",
        ));
    }
    if !std::mem::replace(told, true) {
        waiting();
    }
    std::thread::sleep(POLL);
    Ok(())
}

/// The right to compute what one key names, held against all processes that share the store.
///
/// Ends with this value. Take it before the last look-up of the key, so that the loser of a race
/// finds the winner's result.
#[derive(Debug)]
pub struct KeyLock(Option<Held>);

/// What stands at a key's path: a file that its holder has locked.
#[derive(Debug)]
enum Held {
    /// One of its own.
    File(FileLock),
    /// Another name of a lease's file, which is locked as long as the lease lives.
    Link { path: PathBuf, _lease: Lease },
}

impl Store {
    /// Locks `key`, or returns `None` if another thread or process holds it.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>> {
        let lock = FileLock::attempt(&self.key_lock_path(key), LockMode::Exclusive)?;
        Ok(lock.map(|lock| KeyLock(Some(Held::File(lock)))))
    }

    /// Locks `key`, waiting until it is free. `waiting` is called once if it isn't at first.
    ///
    /// # Errors
    /// `Canceled` as soon as `canceled` returns true.
    pub fn lock_key(
        &self,
        key: &Digest,
        canceled: &dyn Fn() -> bool,
        waiting: &dyn Fn(),
    ) -> Result<KeyLock> {
        let lock = FileLock::poll(&self.key_lock_path(key), canceled, waiting)?;
        Ok(KeyLock(Some(Held::File(lock))))
    }

    fn key_lock_path(&self, key: &Digest) -> PathBuf {
        self.layout().lock(&format!("key-{}", key.hex()))
    }
}

impl Lease {
    /// As [`Store::try_lock_key`], with no file of its own: to make and remove one costs as much as a small
    /// step does.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>> {
        let path = self.store().key_lock_path(key);
        loop {
            match rustix::fs::linkat(CWD, self.path(), CWD, &path, AtFlags::empty()) {
                Ok(()) => {
                    let held = Held::Link {
                        path,
                        _lease: self.clone(),
                    };
                    return Ok(Some(KeyLock(Some(held))));
                }
                Err(Errno::EXIST) => {}
                // The file system has no links, or no more of them.
                Err(_) => return self.store().try_lock_key(key),
            }
            match FileLock::attempt_existing(&path, LockMode::Exclusive)? {
                Existing::Held => return Ok(None),
                Existing::Missing => {}
                // Its holder is dead. Nobody else takes it away as long as it is locked.
                Existing::Locked(dead) => dead.remove()?,
            }
        }
    }

    /// As [`Store::lock_key`], with no file of its own.
    ///
    /// # Errors
    /// `Canceled` as soon as `canceled` returns true.
    pub fn lock_key(&self, key: &Digest, canceled: &dyn Fn() -> bool) -> Result<KeyLock> {
        loop {
            if let Some(lock) = self.try_lock_key(key)? {
                return Ok(lock);
            }
            wait_a_moment(canceled, &|| {}, &mut true)?;
        }
    }
}

impl Held {
    fn end(self) -> Result<()> {
        match self {
            Self::File(lock) => lock.remove(),
            Self::Link { path, .. } => match rustix::fs::unlink(&path) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(Error::io("cannot remove a lock file of the store", errno)),
            },
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Held::end) {
            tracing::warn!(%error, "a key's lock file is left behind");
        }
    }
}
