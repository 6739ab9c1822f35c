use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use fs_err as fs;

use crate::{Base, Larder, Run, Scratch, write_tree};

/// A build context and a state root of its own with a base image in it.
pub struct Project {
    scratch: Scratch,
    larder: Larder,
}

impl Project {
    /// Makes an empty context, and a state root with `base` for `binary`.
    ///
    /// # Errors
    /// Without root, or if the base image can't be made here: the test is to be skipped.
    pub fn new(binary: impl Into<PathBuf>, base: Base) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "no root");
        let archive = base.archive()?;
        let scratch = Scratch::new();
        let larder = Larder::new(binary, &scratch);
        let project = Self { scratch, larder };
        fs::create_dir(project.context())?;
        let loaded = project
            .larder
            .run([OsStr::new("import"), archive.as_os_str()]);
        let _ = loaded.success();
        Ok(project)
    }

    /// Returns the build context.
    pub fn context(&self) -> PathBuf {
        self.scratch.join("context")
    }

    /// Writes files into the context, see [`write_tree`].
    pub fn write(&self, files: &[(&str, &str)]) {
        write_tree(&self.context(), files);
    }

    /// Returns the command `larder build --progress plain ARGS… CONTEXT`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.larder.command(["build", "--progress", "plain"]);
        command.args(args).arg(self.context());
        command
    }

    /// Builds, to the end.
    pub fn build(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Returns the folder that holds context and state root.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Returns the larder of the state root.
    pub fn larder(&self) -> &Larder {
        &self.larder
    }
}

/// Makes a [`Project`] with a base image for the binary under test, in the tests of the crate that
/// has it; skips the test where it can't be made.
#[macro_export]
macro_rules! project {
    ($base:expr) => {
        match $crate::Project::new(env!("CARGO_BIN_EXE_larder"), $base) {
            Ok(project) => project,
            Err(error) => $crate::skip!("{error:#}"),
        }
    };
}
