use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;

use crate::User;

/// A temporary folder for one test: a state root, a home and whatever the test puts there. Removed
/// when dropped.
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// Creates the folder.
    #[expect(
        clippy::new_without_default,
        reason = "creating a folder is no default"
    )]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("larder-test-").tempdir();
        let scratch = Self {
            dir: dir.expect("a temporary folder can be made"),
        };
        fs::create_dir(scratch.home()).expect("a folder can be made");
        scratch
    }

    /// Creates the folder and gives it to `user`.
    pub fn owned_by(user: &User) -> Self {
        let scratch = Self::new();
        for path in [scratch.path(), &scratch.home()] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .expect("root can give folders away");
        }
        scratch
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of `name` in the folder, whether or not it exists.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Returns the path of the state root, which larder creates.
    pub fn root(&self) -> PathBuf {
        self.join("root")
    }

    /// Returns the home folder of what runs here.
    pub fn home(&self) -> PathBuf {
        self.join("home")
    }

    /// Makes a build context named `name` with `files`, see [`write_tree`]; returns its path.
    pub fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let path = self.join(name);
        write_tree(&path, files);
        path
    }
}

/// Writes `files` (path, content) below `dir`, which is made too. A path that ends in `/` is a
/// directory, one that ends in `@` a symbolic link to its content, one that ends in `*` an
/// executable file. What is there is overwritten.
pub fn write_tree(dir: &Path, files: &[(&str, &str)]) {
    try_write_tree(dir, files).expect("the tree can be written");
}

fn try_write_tree(dir: &Path, files: &[(&str, &str)]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::create_dir_all(dir)?;
    for (path, content) in files {
        let target = dir.join(path.trim_end_matches(['/', '@', '*']));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if path.ends_with('/') {
            fs::create_dir_all(&target)?;
        } else if path.ends_with('@') {
            if target.is_symlink() {
                fs::remove_file(&target)?;
            }
            fs::os::unix::fs::symlink(content, &target)?;
        } else {
            fs::write(&target, content)?;
        }
        if path.ends_with('*') {
            fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_files_links_and_directories() {
        let scratch = Scratch::new();
        let files = [
            ("a/b.txt", "hi"),
            ("empty/", ""),
            ("link@", "a/b.txt"),
            ("run.sh*", "x"),
        ];
        let context = scratch.context("context", &files);
        write_tree(&context, &files);
        assert_eq!(fs::read_to_string(context.join("link")).unwrap(), "hi");
        assert!(context.join("empty").is_dir());
        let mode =
            std::os::unix::fs::MetadataExt::mode(&fs::metadata(context.join("run.sh")).unwrap());
        assert_eq!(mode & 0o777, 0o755);
    }
}
