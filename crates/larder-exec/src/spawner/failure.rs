//! Why a process could not be started, as told across processes.

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// What failed, on the way to a running process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The step.
    pub(crate) stage: Stage,
    /// What it was done to: a path inside, a name, or a whole message for [`Stage::Command`].
    pub(crate) subject: String,
    /// What the kernel said; 0 for nothing.
    pub(crate) errno: i32,
}

/// A step on the way to a running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Reading the request.
    Request,
    /// New namespaces and the cgroup.
    Namespaces,
    /// The network, the loopback interface and host name.
    Host,
    /// Making a device node.
    Device,
    /// Making a mount of the system's own.
    SystemMount,
    /// Making a mount that the caller asked for.
    UserMount,
    /// Making the working directory.
    WorkingDirectory,
    /// Changing the root.
    Root,
    /// Changing the root, where larder itself runs in a chroot.
    Chroot,
    /// Setting a resource limit.
    Limit,
    /// Becoming the user.
    Identity,
    /// Loading the system call filter.
    Filter,
    /// Executing the command.
    Command,
}

impl Failure {
    pub(crate) fn new(
        stage: Stage,
        subject: impl Into<String>,
        error: impl Into<std::io::Error>,
    ) -> Self {
        Self {
            stage,
            subject: subject.into(),
            errno: error.into().raw_os_error().unwrap_or(0),
        }
    }

    /// Returns the failure to execute a command, in runc's words.
    pub(crate) fn command(message: impl Into<String>) -> Self {
        Self {
            stage: Stage::Command,
            subject: message.into(),
            errno: 0,
        }
    }

    /// Returns the error that callers see.
    pub(crate) fn into_error(self) -> Error {
        let subject = &self.subject;
        let message = match self.stage {
            Stage::Command => return Error::new(ErrorKind::Command, self.subject),
            Stage::Request => "cannot read the request of a process".to_owned(),
            Stage::Namespaces => "cannot create namespaces".to_owned(),
            Stage::Host => format!("cannot set up {subject}"),
            Stage::SystemMount | Stage::UserMount => format!("cannot mount `{subject}`"),
            Stage::Device => format!("cannot make the device `{subject}`"),
            Stage::WorkingDirectory => format!("cannot enter working directory `{subject}`"),
            Stage::Root => "cannot enter the root filesystem".to_owned(),
            Stage::Chroot => {
                let message = "cannot run processes in a chroot whose root is no mount\n\
                               hint: bind its directory onto itself (`mount --bind`) first";
                return Error::new(ErrorKind::Unsupported, message);
            }
            Stage::Limit => format!("cannot set ulimit `{subject}`"),
            Stage::Identity if self.errno == libc::EINVAL => format!(
                "cannot become user {subject}\n\
                 hint: map more ids to this user in /etc/subuid and /etc/subgid, and install \
                 `newuidmap` and `newgidmap`"
            ),
            Stage::Identity => format!("cannot become user {subject}"),
            Stage::Filter => "cannot load the system call filter".to_owned(),
        };
        if self.errno == 0 {
            return Error::new(ErrorKind::System, message);
        }
        let source = std::io::Error::from_raw_os_error(self.errno);
        match self.stage {
            Stage::UserMount
            | Stage::Device
            | Stage::WorkingDirectory
            | Stage::Limit
            | Stage::Identity => Error::caused(ErrorKind::Input, message, source),
            _ => Error::system(message, source),
        }
    }
}
