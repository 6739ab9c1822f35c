//! Named volumes: directories of the state directory that outlive containers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use larder_tree::beneath::Root;
use larder_tree::context::Tree;
use larder_tree::copy::{self, CopyOptions};
use rustix::fs::{FlockOperation, Gid, Uid};

use super::{Container, ContainerSource};
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};

/// Held while volumes are made or removed.
const LOCK: &str = ".lock";
/// What the directory of a volume that is not complete begins with; no volume's name does.
const PARTIAL: &str = ".new-";
/// The longest name.
const MAX_NAME_BYTES: usize = 200;

/// The name of a volume: letters, digits, `_`, `.` and `-`, the first of them a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(name: &str) -> Result<Self> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(is_part)
            && name.len() <= MAX_NAME_BYTES;
        if !is_name {
            return Err(BuildError::invalid(format!(
                "`{name}` is no name of a volume: only letters, digits, `_`, `.` and `-` are allowed"
            )));
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn directory(&self, volumes: &Path) -> PathBuf {
        volumes.join(&self.0)
    }
}

impl Engine {
    pub(crate) fn volumes_directory(&self) -> PathBuf {
        self.store.volumes_dir()
    }

    /// Returns whether there is a volume of a name.
    pub fn has_volume(&self, name: &VolumeName) -> bool {
        name.directory(&self.volumes_directory()).is_dir()
    }

    /// Removes a volume with all it holds. Returns whether there was one. Whoever has it mounted
    /// keeps seeing it, without its files.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove_volume(&self, name: &VolumeName) -> Result<bool> {
        let volumes = self.volumes_directory();
        if !volumes.is_dir() {
            return Ok(false);
        }
        let _lock = lock(&volumes)?;
        Ok(Root::open(&volumes)?.remove_all(name.as_str())?)
    }
}

impl Container {
    /// Makes the volumes that are not there yet.
    pub(super) fn fill_volumes(&self) -> Result<()> {
        for mount in &self.request.mounts {
            let ContainerSource::Volume { name, copy } = &mount.source else {
                continue;
            };
            let directory = name.directory(&self.volumes);
            if directory.is_dir() {
                continue;
            }
            fs_err::create_dir_all(&self.volumes).map_err(|error| failed(name, error))?;
            let _lock = lock(&self.volumes)?;
            // What a crash left.
            let partial = format!("{PARTIAL}{}", name.as_str());
            Root::open(&self.volumes)?.remove_all(&partial)?;
            if directory.is_dir() {
                continue;
            }
            let partial = self.volumes.join(partial);
            fs_err::create_dir(&partial).map_err(|error| failed(name, error))?;
            if *copy {
                self.copy_out(&mount.target, &partial).map_err(|error| {
                    error.context(format!("cannot fill volume `{}`", name.as_str()))
                })?;
            }
            fs_err::rename(&partial, &directory).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }

    /// Copies a directory of the image, with its attributes, to an empty directory.
    fn copy_out(&self, target: &str, to: &Path) -> Result<()> {
        let tree = self.tree()?;
        let attributes = match tree.metadata(target) {
            Ok(attributes) if is_directory(attributes.st_mode) => attributes,
            // The image has nothing to begin with.
            _ => return Ok(()),
        };
        let source = Tree::view(tree)?;
        let options = CopyOptions {
            src: target.to_owned(),
            dest: "/".to_owned(),
            follow_symlink: true,
            dir_copy_contents: true,
            ..CopyOptions::default()
        };
        copy::copy(&source, &Root::open(to)?, &options)?;
        let system = |error| {
            BuildError::new(ErrorClass::Internal, "cannot set a volume's attributes")
                .with_source(error)
        };
        let owner = (
            Uid::from_raw(attributes.st_uid),
            Gid::from_raw(attributes.st_gid),
        );
        rustix::fs::chown(to, Some(owner.0), Some(owner.1))
            .map_err(|errno| system(errno.into()))?;
        let mode = Permissions::from_mode(attributes.st_mode & 0o7777);
        fs_err::set_permissions(to, mode).map_err(system)
    }
}

fn is_directory(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory
}

fn lock(volumes: &Path) -> Result<std::fs::File> {
    let error = |error| BuildError::invalid("cannot lock the volumes").with_source(error);
    let file = std::fs::File::create(volumes.join(LOCK)).map_err(error)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
    Ok(file)
}

fn failed(name: &VolumeName, error: std::io::Error) -> BuildError {
    let class = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorClass::Exhausted,
        _ => ErrorClass::Invalid,
    };
    let message = format!("cannot make volume `{}`", name.as_str());
    BuildError::new(class, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["data", "a.b_c-1", "0"] {
            assert_eq!(VolumeName::new(name).unwrap().as_str(), name);
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "..", ".lock", "a/b", "/a", "a b", "é", &long] {
            assert!(VolumeName::new(name).is_err(), "{name}");
        }
    }
}
