//! Following services in the foreground, until they have ended or shall end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::Up;
use crate::args::UpArgs;
use crate::commands::compose::logs::Follower;
use crate::commands::compose::services::{Starter, TICK};
use crate::commands::compose::state::{ServiceState, Status};
use crate::exit::{self, Code};
use crate::output;

/// What a service whose command can't be run exits with, as shells have it.
const NOT_RUN: i32 = 127;

/// Whose end is the end of all.
pub(super) enum Abort {
    Nobody,
    Anybody,
    One(String),
}

impl Abort {
    pub(super) fn new(args: &UpArgs) -> Self {
        match &args.exit_code_from {
            Some(service) => Self::One(service.clone()),
            None if args.abort_on_container_exit => Self::Anybody,
            None => Self::Nobody,
        }
    }

    fn is_by(&self, service: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Anybody => true,
            Self::One(name) => name == service,
        }
    }
}

/// Services that are followed.
pub(super) struct Attached<'a> {
    up: &'a Up<'a>,
    names: &'a [String],
    followers: Vec<Follower>,
    ended: BTreeSet<&'a str>,
    abort: Abort,
}

impl<'a> Attached<'a> {
    pub(super) fn new(
        up: &'a Up<'a>,
        names: &'a [String],
        followers: Vec<Follower>,
        abort: Abort,
    ) -> Self {
        Self {
            up,
            names,
            followers,
            ended: BTreeSet::new(),
            abort,
        }
    }

    /// Shows what services write until all have ended, or one whose end ends all has, or the user
    /// wants an end. Returns the exit code.
    pub(super) fn run(mut self, starter: &mut Starter<'_>) -> anyhow::Result<Code> {
        let shown = self.followers.iter();
        let shown: Vec<String> = shown.map(|one| format!("{}-1", one.service())).collect();
        output::tell(&format!("Attaching to {}", shown.join(", ")));
        loop {
            let is_new = self.show_new()?;
            starter.reap();
            let aborted = self.tell_ended()?;
            if self.up.ends.stop.load(Ordering::SeqCst) {
                output::tell("Gracefully Stopping... press Ctrl+C again to force");
                self.stop()?;
                return Ok(exit::CANCELED);
            }
            if let Some(code) = aborted {
                output::tell("Aborting on container exit...");
                self.stop()?;
                return Ok(Code::try_from(code).unwrap_or(exit::FAILURE));
            }
            if self.ended.len() == self.names.len() {
                return Ok(exit::SUCCESS);
            }
            if !is_new {
                std::thread::sleep(TICK);
            }
        }
    }

    /// Shows what was written; returns whether there was anything.
    fn show_new(&mut self) -> std::io::Result<bool> {
        let mut is_new = false;
        for follower in &mut self.followers {
            is_new |= follower.show_new()?;
        }
        Ok(is_new)
    }

    /// Tells of services that have ended since. Returns the exit code of one whose end ends all.
    fn tell_ended(&mut self) -> std::io::Result<Option<i32>> {
        let mut aborted = None;
        for name in self.names {
            if self.ended.contains(name.as_str()) {
                continue;
            }
            let Some(code) = exit_code(&self.up.state.service(name)) else {
                continue;
            };
            for follower in self
                .followers
                .iter_mut()
                .filter(|one| one.service() == name)
            {
                follower.show_new()?;
                follower.finish()?;
            }
            output::print(&format!("{name}-1 exited with code {code}\n"))?;
            self.ended.insert(name);
            if self.abort.is_by(name) {
                aborted = aborted.or(Some(code));
            }
        }
        Ok(aborted)
    }

    /// Ends all services, and shows what they write until then.
    fn stop(mut self) -> std::io::Result<()> {
        let (up, names) = (self.up, self.names);
        let mut shown = Ok(true);
        up.stop_all(names, &mut || {
            if shown.is_ok() {
                shown = self.show_new();
            }
        });
        shown?;
        self.tell_ended()?;
        Ok(())
    }
}

/// Returns the exit code of a service that has ended for good.
fn exit_code(state: &ServiceState) -> Option<i32> {
    match state.record()?.status {
        Status::Exited(code) if !state.is_live() => Some(code),
        Status::Failed(_) => Some(NOT_RUN),
        _ => None,
    }
}
