use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::{apt, target_dir};

/// An ordinary user, for tests of larder without root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The id of the user's group.
    pub gid: u32,
}

impl User {
    /// Returns a user with subordinate ids, and installs `newuidmap`. Made where it is missing,
    /// which needs root.
    pub fn with_subordinate_ids() -> Result<Self> {
        apt::install(&["passwd", "uidmap"])?;
        Self::ensure("larder-test", &[])
    }

    /// Returns a user without subordinate ids. Made where it is missing, which needs root.
    pub fn without_subordinate_ids() -> Result<Self> {
        apt::install(&["passwd"])?;
        Self::ensure(
            "larder-test-plain",
            &["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"],
        )
    }

    fn ensure(name: &str, options: &[&str]) -> Result<Self> {
        fs::create_dir_all(target_dir())?;
        let lock = fs::File::create(target_dir().join("users.lock"))?;
        lock.file()
            .lock()
            .context("cannot lock the making of users")?;
        if let Ok(user) = Self::find(name) {
            return Ok(user);
        }
        let mut command = Command::new("useradd");
        command.args(["--no-create-home", "--home-dir", "/nonexistent"]);
        apt::output(command.args(options).arg(name))
            .with_context(|| format!("cannot make the user {name}"))?;
        Self::find(name)
    }

    fn find(name: &str) -> Result<Self> {
        let id = |option| {
            let text = apt::output(Command::new("id").args([option, name]))?;
            anyhow::Ok(String::from_utf8(text)?.trim().parse()?)
        };
        Ok(Self {
            uid: id("-u")?,
            gid: id("-g")?,
        })
    }

    /// Makes `command` run as this user, in no other group.
    pub fn run(self, command: &mut Command) -> &mut Command {
        command.uid(self.uid).gid(self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_subordinate_ids_they_are_named_for() {
        let users = User::with_subordinate_ids()
            .and_then(|with| Ok((with, User::without_subordinate_ids()?)));
        let (with, without) = match users {
            Ok(users) => users,
            Err(error) => crate::skip!("no users: {error:#}"),
        };
        let subordinate = fs::read_to_string("/etc/subuid").unwrap();
        assert!(subordinate.contains("larder-test:"), "{subordinate}");
        assert!(!subordinate.contains("larder-test-plain:"), "{subordinate}");
        for user in [with, without] {
            let id = apt::output(user.run(Command::new("id").arg("-u"))).unwrap();
            assert_eq!(String::from_utf8(id).unwrap().trim(), user.uid.to_string());
            let groups = apt::output(user.run(Command::new("id").arg("-G"))).unwrap();
            assert_eq!(
                String::from_utf8(groups).unwrap().trim(),
                user.gid.to_string()
            );
        }
    }
}
