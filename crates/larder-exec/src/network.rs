//! Networks of their own, with outgoing access through a helper program of the machine.
//!
//! A helper sits between a network namespace, where it plays an interface, and ordinary sockets of
//! the host. It needs no rights over the host's network, so it serves root and ordinary users alike.
//! It is run by the spawner, and ends with larder.
//!
//! To start one takes several times as long as a run, so [`Networks`] keeps those that are idle: runs one
//! after the other share one, and runs at once each have their own, with a loopback of its own.

mod helper;
mod namespace;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, ErrorKind, Result};

use namespace::Namespace;

/// A program that passes on what a network of its own sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `pasta`, of passt.
    Pasta,
    /// `slirp4netns`.
    Slirp4netns,
}

impl Helper {
    /// All, the best first.
    pub const ALL: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    /// Returns the name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Returns where the program is, if it is installed.
    pub fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(self.name()))
            .find(|program| program.is_file())
    }
}

/// Networks that one helper serves.
#[derive(Debug)]
pub struct Networks {
    helper: Helper,
    program: PathBuf,
    idle: Arc<Mutex<Vec<Namespace>>>,
}

impl Networks {
    /// Returns networks of `helper`, if its program is there. Nothing is started yet.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the program is not installed.
    pub fn new(helper: Helper) -> Result<Self> {
        let program = helper.find().ok_or_else(|| {
            let message = format!("`{}` is not installed", helper.name());
            Error::new(ErrorKind::Unsupported, message)
        })?;
        Ok(Self {
            helper,
            program,
            idle: Arc::default(),
        })
    }

    /// Returns the helper.
    pub fn helper(&self) -> Helper {
        self.helper
    }

    /// Returns a network that nobody else has now. If it is to reach the host, its gateway is the
    /// host's loopback.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the helper can't serve here, with what it said.
    pub fn acquire(&self, reaches_host: bool) -> Result<OwnNetwork> {
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // Those whose helper has died are of no use.
            idle.retain(Namespace::is_served);
            let fits = |namespace: &Namespace| namespace.reaches_host() == reaches_host;
            let position = idle.iter().position(fits);
            position.map(|position| idle.swap_remove(position))
        };
        let namespace = match kept {
            Some(namespace) => namespace,
            None => Namespace::create(self.helper, &self.program, reaches_host)?,
        };
        Ok(OwnNetwork {
            namespace: Some(namespace),
            idle: Arc::clone(&self.idle),
            is_spoiled: false,
        })
    }
}

/// A network of one's own, which goes back to where it came from when it is dropped.
#[derive(Debug)]
pub struct OwnNetwork {
    /// `None` only while it is dropped.
    namespace: Option<Namespace>,
    idle: Arc<Mutex<Vec<Namespace>>>,
    is_spoiled: bool,
}

impl OwnNetwork {
    /// Returns the address by which the host is reached, if it was asked for and there is one.
    pub fn host_gateway(&self) -> Option<&str> {
        self.namespace.as_ref()?.host_gateway()
    }

    /// Returns the address at which the helper answers for the host's name servers, where these
    /// can't be asked.
    pub(crate) fn resolvers(&self) -> Option<&'static [&'static str]> {
        let namespace = self.namespace.as_ref();
        let forwarding = namespace.filter(|namespace| namespace.forwards_names());
        forwarding.map(|namespace| namespace.helper().resolvers())
    }

    /// Returns the namespace.
    pub(crate) fn namespace(&self) -> Result<OwnedFd> {
        let lost = || Error::new(ErrorKind::System, "a network is lost");
        self.namespace.as_ref().ok_or_else(lost)?.descriptor()
    }

    /// Keeps others from getting it: it may have been tampered with.
    pub(crate) fn spoil(&mut self) {
        self.is_spoiled = true;
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take()
            && !self.is_spoiled
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(namespace);
        }
    }
}
