//! Consent: a bake file that reads or writes beyond the working directory, or lets steps do more
//! than usual, must be allowed to.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use larder_bake::{Plan, Target};

use crate::environment::Environment;
use crate::output;

/// Whether access to files needs consent; it does unless this says otherwise.
const CHECK_FILES: &str = "BUILDX_BAKE_ENTITLEMENTS_FS";
/// Entitlements of steps, with what they mean.
const OF_STEPS: [(&str, &str); 3] = [
    (
        DEVICE,
        "Running build containers that can access devices of the machine",
    ),
    (
        "network.host",
        "Running build containers that can access host network",
    ),
    (
        "security.insecure",
        "Running privileged containers that can make system changes",
    ),
];
/// Entitlements that buildx knows and that allow what larder does not ask consent for.
const FURTHER: [&str; 4] = ["ssh", "image", "image.push", "image.load"];
/// The entitlement to devices: all, or by name behind a `=`.
const DEVICE: &str = "device";

/// What is allowed, or what is missing.
#[derive(Debug, Default)]
struct Access {
    of_steps: BTreeSet<String>,
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

/// Fails unless all that the plan needs is allowed, or the user says so when asked.
///
/// # Errors
/// After the flags that would allow it have been told.
pub(super) fn check(plan: &Plan, allowed: &[String], env: &Environment) -> anyhow::Result<()> {
    let directory = std::env::current_dir().context("there is no working directory")?;
    let mut access = Access::parse(allowed)?;
    access.read.insert(resolve(&directory)?);
    access.write.insert(resolve(&directory)?);
    access
        .of_steps
        .extend(plan.granted.entitlements.iter().cloned());
    for path in &plan.granted.read {
        access.read.insert(resolve(Path::new(path))?);
    }
    for path in &plan.granted.write {
        access.write.insert(resolve(Path::new(path))?);
    }
    let mut missing = access.missing(needed(plan)?);
    if !super::switch(env, CHECK_FILES, true)? {
        missing.read.clear();
        missing.write.clear();
    }
    if missing.is_empty() {
        Ok(())
    } else {
        missing.ask()
    }
}

/// Returns what the targets of a plan need.
fn needed(plan: &Plan) -> anyhow::Result<Access> {
    let mut access = Access::default();
    for target in plan.targets.values() {
        access
            .of_steps
            .extend(target.entitlements.iter().flatten().cloned());
        for path in reads(target) {
            access.read.insert(resolve(Path::new(&path))?);
        }
        for path in writes(target) {
            access.write.insert(resolve(Path::new(&path))?);
        }
    }
    Ok(access)
}

fn reads(target: &Target) -> Vec<String> {
    let context = target.context.as_deref().unwrap_or(".");
    let mut paths: Vec<String> = local(context).into_iter().collect();
    if let Some(dockerfile) = target.dockerfile.as_deref().and_then(local)
        && target.dockerfile_inline.is_none()
        && local(context).is_some()
    {
        let is_local = target
            .dockerfile
            .as_deref()
            .is_some_and(|path| path.starts_with("cwd://"));
        let base = if is_local {
            Path::new("")
        } else {
            Path::new(context)
        };
        paths.push(base.join(dockerfile).to_string_lossy().into_owned());
    }
    paths.extend(
        target
            .contexts
            .values()
            .filter_map(|context| local(context)),
    );
    for entry in target
        .cache_from
        .iter()
        .flatten()
        .filter(|entry| entry.kind == "local")
    {
        paths.extend(entry.attributes.get("src").cloned());
    }
    paths.extend(
        target
            .secrets
            .iter()
            .flatten()
            .map(|secret| secret.file.clone()),
    );
    paths.extend(
        target
            .ssh
            .iter()
            .flatten()
            .flat_map(|ssh| ssh.paths.clone()),
    );
    paths.retain(|path| !path.is_empty());
    paths
}

fn writes(target: &Target) -> Vec<String> {
    let outputs = target
        .outputs
        .iter()
        .flatten()
        .map(|output| output.destination.clone());
    let mut paths: Vec<String> = outputs.collect();
    for entry in target
        .cache_to
        .iter()
        .flatten()
        .filter(|entry| entry.kind == "local")
    {
        paths.extend(entry.attributes.get("dest").cloned());
    }
    paths.retain(|path| !path.is_empty() && path != "-");
    paths
}

/// Returns the path of a context; `None` if it is none.
fn local(context: &str) -> Option<String> {
    let local = context.strip_prefix("cwd://").unwrap_or(context);
    let is_path = !larder_bake::is_remote(local)
        && !local.contains("://")
        && !["target:", "docker-image:", "oci-layout:"]
            .iter()
            .any(|scheme| local.starts_with(scheme));
    is_path.then(|| local.to_owned())
}

/// Returns a path without symbolic links; of what does not exist, the nearest that does.
fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("`{}`", path.display()))?;
    let mut nearest = absolute.as_path();
    loop {
        match fs_err::canonicalize(nearest) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        nearest = nearest
            .parent()
            .with_context(|| format!("`{}` is nowhere", path.display()))?;
    }
}

impl Access {
    /// Reads `--allow`.
    fn parse(allowed: &[String]) -> anyhow::Result<Self> {
        let mut access = Self::default();
        for text in allowed {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match key {
                "fs.read" => access.add(value, true, false)?,
                "fs.write" => access.add(value, false, true)?,
                "fs" => access.add(value, true, true)?,
                _ if OF_STEPS.iter().any(|(name, _)| *name == key) => {
                    access.of_steps.insert(text.clone());
                }
                _ if FURTHER.contains(&key) => {}
                _ => bail!("`--allow`: unknown entitlement key `{key}`"),
            }
        }
        Ok(access)
    }

    fn add(&mut self, path: &str, reads: bool, writes: bool) -> anyhow::Result<()> {
        // `*` stands for everything.
        let path = match path {
            "*" => PathBuf::from("/"),
            path => resolve(Path::new(path))?,
        };
        if reads {
            self.read.insert(path.clone());
        }
        if writes {
            self.write.insert(path);
        }
        Ok(())
    }

    /// Returns what of `needed` is not allowed.
    fn missing(&self, needed: Self) -> Self {
        let outside = |paths: BTreeSet<PathBuf>, allowed: &BTreeSet<PathBuf>| {
            let is_allowed = |path: &PathBuf| allowed.iter().any(|parent| path.starts_with(parent));
            let outside: BTreeSet<PathBuf> =
                paths.into_iter().filter(|path| !is_allowed(path)).collect();
            // What is within another missing directory goes with that.
            let is_within = |path: &PathBuf| {
                path.ancestors()
                    .skip(1)
                    .any(|parent| outside.contains(parent))
            };
            outside
                .iter()
                .filter(|path| !is_within(path))
                .cloned()
                .collect()
        };
        Self {
            of_steps: needed
                .of_steps
                .into_iter()
                .filter(|name| !self.allows(name))
                .collect(),
            read: outside(needed.read, &self.read),
            write: outside(needed.write, &self.write),
        }
    }

    /// Returns whether an entitlement of steps is given; to all devices includes each.
    fn allows(&self, name: &str) -> bool {
        let is_device = name.split('=').next() == Some(DEVICE);
        self.of_steps.contains(name) || is_device && self.of_steps.contains(DEVICE)
    }

    fn is_empty(&self) -> bool {
        self.of_steps.is_empty() && self.read.is_empty() && self.write.is_empty()
    }

    /// Tells what is missing, and asks for it if there is somebody to ask.
    fn ask(&self) -> anyhow::Result<()> {
        let (mut lines, mut flags) = (Vec::new(), Vec::new());
        for (name, meaning) in OF_STEPS {
            let is_meant = |wanted: &&String| wanted.split('=').next() == Some(name);
            for wanted in self.of_steps.iter().filter(is_meant) {
                lines.push(format!(" - {meaning}"));
                flags.push(format!("--allow={wanted}"));
            }
        }
        let kinds = [
            ("Read and write", "fs", true, true),
            ("Read", "fs.read", true, false),
            ("Write", "fs.write", false, true),
        ];
        for (meaning, key, reads, writes) in kinds {
            for path in self.read.union(&self.write) {
                if self.read.contains(path) == reads && self.write.contains(path) == writes {
                    lines.push(format!(" - {meaning} access to path {}", path.display()));
                    flags.push(format!("--allow={key}={}", path.display()));
                }
            }
        }
        output::tell(
            "Your build is requesting privileges for following possibly insecure capabilities:\n",
        );
        output::tell(&lines.join("\n"));
        output::tell(&format!(
            "\nPass {:?} to grant requested privileges.\n",
            flags.join(" ")
        ));
        if output::stdin_is_terminal() && output::stderr_is_terminal() {
            output::ask("Do you want to grant requested privileges and continue? [y/N] ");
            let mut answer = String::new();
            io::stdin()
                .read_line(&mut answer)
                .context("cannot read the answer")?;
            if answer.trim().eq_ignore_ascii_case("y") {
                return Ok(());
            }
        }
        bail!("additional privileges requested");
    }
}
