//! Cgroups: one directory for each run, beneath one for each larder process.
//!
//! ```text
//! <hierarchy>/larder/<pid>.<n>/<run>
//! ```
//!
//! A run has one in the hierarchy of version 2, if there is one, and further ones in hierarchies of
//! version 1 where controllers that it needs are there (*hybrid* machines).
//!
//! The directory of a process is locked (`flock`) while it lives, so that [`sweep`] can tell what
//! the dead left. Where cgroups can't be made, runs do without: a container is also held
//! together by its PID namespace.

mod devices;
mod group;
mod hierarchy;
mod limits;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::{Error, ErrorKind, ResourceLimits, Result};

pub(crate) use devices::{Access, MAKE, READ, Rule, WRITE};
pub use group::sweep;
pub(crate) use group::{close, reclaim};

use group::{Group, SessionKey};
use hierarchy::Hierarchy;
use limits::Setting;

/// Controllers whose hierarchies of version 1 a run joins beneath a parent that was asked for.
const OF_PARENTS: [&str; 4] = ["memory", "cpu", "cpuset", "pids"];

/// What a run's cgroups are to do.
pub(crate) struct Demand<'a> {
    /// The cgroup to be below of; `None` for larder's own.
    pub(crate) parent: Option<&'a str>,
    pub(crate) limits: &'a ResourceLimits,
    pub(crate) devices: Access,
}

/// The cgroups of a run. Removed on drop.
pub(crate) struct Cgroups {
    unified: Option<Group>,
    /// By their controllers.
    legacy: Vec<(&'static str, Group)>,
    /// Whether devices that the run must not open are kept from it.
    confines_devices: bool,
    /// What could not be had, and why.
    unmet: Vec<String>,
}

/// What the processes of a cgroup used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) user_micros: u64,
    pub(crate) system_micros: u64,
}

impl Cgroups {
    /// Makes the cgroups of a run, as far as this process can.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a parent that is no path beneath the root, and for limits that the
    /// kernel does not understand.
    pub(crate) fn create(demand: &Demand<'_>) -> Result<Self> {
        if let Some(parent) = demand.parent
            && parent.split('/').any(|name| name == "..")
        {
            let message = format!("cgroup parent `{parent}` leaves the hierarchy");
            return Err(Error::new(ErrorKind::Input, message));
        }
        let key = SessionKey {
            hierarchy: Hierarchy::Unified,
            parent: demand.parent.map(str::to_owned),
            filters_devices: demand.devices == Access::Default,
        };
        let mut cgroups = Self {
            unified: None,
            legacy: Vec::new(),
            confines_devices: demand.devices == Access::All,
            unmet: Vec::new(),
        };
        match Group::create(&key) {
            Ok(group) => cgroups.unified = Some(group),
            Err(errno) => tracing::debug!(%errno, "running without a cgroup of version 2"),
        }
        cgroups.confine_devices(&demand.devices);
        cgroups.join_parent(demand.parent);
        cgroups.limit(demand)?;
        Ok(cgroups)
    }

    /// Keeps devices away: by a program in the hierarchy of version 2, else by that of version 1.
    fn confine_devices(&mut self, access: &Access) {
        let filtered = match (&self.unified, access) {
            (_, Access::All) => return,
            (Some(group), Access::Default) => group.filters_devices(),
            (Some(group), Access::Further(rules)) => {
                let confined = devices::program(rules)
                    .and_then(|program| devices::attach(group.directory(), &program));
                tracing::debug!(?confined, "devices");
                confined.is_ok()
            }
            (None, _) => false,
        };
        self.confines_devices = filtered || self.confine_by_legacy(access).is_ok();
    }

    fn confine_by_legacy(&mut self, access: &Access) -> rustix::io::Result<()> {
        let rules = match access {
            Access::Further(rules) => rules.as_slice(),
            _ => &[],
        };
        let group = self.legacy_group("devices", None)?;
        group.write("devices.deny", "a")?;
        devices::lines(rules).try_for_each(|line| group.write("devices.allow", &line))
    }

    /// Joins the parent in the hierarchies of version 1.
    fn join_parent(&mut self, parent: Option<&str>) {
        let Some(parent) = parent else { return };
        let mut refused = None;
        for controller in OF_PARENTS {
            if Hierarchy::of(controller).is_some_and(Hierarchy::is_legacy)
                && let Err(errno) = self.legacy_group(controller, Some(parent))
            {
                refused = Some(errno);
            }
        }
        let refused = refused.or(self.unified.is_none().then_some(Errno::NOENT));
        if let Some(errno) = refused {
            self.unmet
                .push(format!("cgroup parent `{parent}`: {errno}"));
        }
    }

    /// Sets limits.
    fn limit(&mut self, demand: &Demand<'_>) -> Result<()> {
        for setting in limits::settings(demand.limits)? {
            let done = match Hierarchy::of(setting.controller) {
                None => Err(Errno::NOENT),
                Some(Hierarchy::Unified) => self.limit_unified(&setting),
                Some(Hierarchy::Legacy(controller)) => {
                    self.limit_legacy(controller, &setting, demand.parent)
                }
            };
            match done {
                Ok(()) => {}
                Err(errno @ (Errno::INVAL | Errno::RANGE)) => {
                    let message = format!("cannot limit {} to `{}`", setting.what, setting.given);
                    return Err(Error::caused(ErrorKind::Input, message, errno));
                }
                Err(Errno::NOENT) => self.unmet.push(format!(
                    "{}: there is no cgroup controller `{}`",
                    setting.what, setting.controller
                )),
                Err(errno) => self.unmet.push(format!("{}: {errno}", setting.what)),
            }
        }
        Ok(())
    }

    fn limit_unified(&self, setting: &Setting) -> rustix::io::Result<()> {
        let group = self.unified.as_ref().ok_or(Errno::NOENT)?;
        group.hand_down(setting.controller);
        let mut writes = setting.unified.iter();
        writes.try_for_each(|(file, value)| group.write(file, value))
    }

    fn limit_legacy(
        &mut self,
        controller: &'static str,
        setting: &Setting,
        parent: Option<&str>,
    ) -> rustix::io::Result<()> {
        let group = self.legacy_group(controller, parent)?;
        let mut writes = setting.legacy.iter();
        writes.try_for_each(|(file, value)| group.write(file, value))
    }

    /// Returns the run's cgroup of version 1 of a controller, and makes it first if need be.
    fn legacy_group(
        &mut self,
        controller: &'static str,
        parent: Option<&str>,
    ) -> rustix::io::Result<&Group> {
        let known = self.legacy.iter().position(|(name, _)| *name == controller);
        let position = if let Some(position) = known {
            position
        } else {
            let group = Group::create(&SessionKey {
                hierarchy: Hierarchy::Legacy(controller),
                parent: parent.map(str::to_owned),
                filters_devices: false,
            })?;
            self.legacy.push((controller, group));
            self.legacy.len() - 1
        };
        Ok(&self.legacy[position].1)
    }

    /// Returns the directory of version 2, to start a process in.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|group| group.directory().as_fd())
    }

    /// Returns the directories of version 1, which a process joins.
    pub(crate) fn legacy(&self) -> impl Iterator<Item = &OwnedFd> {
        self.legacy.iter().map(|(_, group)| group.directory())
    }

    /// Returns whether what is no business of the run's can't be opened through a device node.
    pub(crate) fn confines_devices(&self) -> bool {
        self.confines_devices
    }

    /// Takes what could not be had: each the limit, and why.
    pub(crate) fn take_unmet(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unmet)
    }

    /// Returns what its processes used, if the kernel tells.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let text = self.unified.as_ref()?.read("cpu.stat")?;
        Some(Usage {
            user_micros: group::field(&text, "user_usec")?,
            system_micros: group::field(&text, "system_usec")?,
        })
    }

    /// Returns whether the kernel killed a process of it for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let unified = self
            .unified
            .as_ref()
            .and_then(|group| group.read("memory.events"));
        let legacy = self.legacy.iter().find(|(name, _)| *name == "memory");
        let legacy = legacy.and_then(|(_, group)| group.read("memory.oom_control"));
        let mut texts = unified.into_iter().chain(legacy);
        texts.any(|text| group::field(&text, "oom_kill").is_some_and(|count| count > 0))
    }
}
