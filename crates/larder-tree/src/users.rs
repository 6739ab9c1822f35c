//! Users and groups of a root file system, as its `/etc/passwd` and `/etc/group` name them.
//!
//! [`resolve_user`] is for USER and RUN, [`resolve_owner`] for `--chown`: Docker has different
//! rules for the two.
//!
//! | text | USER, RUN | `--chown` |
//! | --- | --- | --- |
//! | `name` | user's own group, and those that list the user | user's own group |
//! | `10` | the same if there is a user 10, else group 0 | group 10 |
//! | `name:group`, `10:20` | that group only | that group |
//! | `:20` | user 0, that group only | user 0, that group |
//! | a name that doesn't exist | error | user or group 0, told in [`Owner::missing`] |

use std::io::Read as _;

use rustix::fs::{FileType, Mode, OFlags};

use crate::beneath::Root;
use crate::{Error, ErrorKind, Result};

/// The largest `/etc/passwd` or `/etc/group` that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups, in the order of the file.
    pub groups: Vec<u32>,
    /// The home directory; `/` if none is known.
    pub home: String,
}

/// A user or group by name or by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id<'a> {
    /// A name, to be found in this tree.
    Name(&'a str),
    /// A number.
    Number(u32),
}

/// Whom a file belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Names that were not found, for a warning; root stands for them.
    pub missing: Vec<String>,
}

struct PasswdLine {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct GroupLine {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Returns whom `spec` means in the tree: `user[:group]`, by name or number; empty for root.
///
/// # Errors
/// `NotFound` for a name that doesn't exist; `InvalidInput` for a number that is none;
/// `LimitExceeded` for a file of 16 MiB or more.
pub fn resolve_user(root: &Root, spec: &str) -> Result<ResolvedUser> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let user = match user {
        "" => Id::Number(0),
        text => parse_id(text)?,
    };
    let entry = find_user(root, user)?;
    let uid = match (user, &entry) {
        (Id::Number(uid), _) => uid,
        (Id::Name(_), Some(entry)) => entry.uid,
        (Id::Name(name), None) => return Err(missing("user", name, "passwd")),
    };
    let (gid, groups) = if group.is_empty() {
        let groups = match &entry {
            Some(entry) => groups_of(root, &entry.name)?,
            None => Vec::new(),
        };
        (entry.as_ref().map_or(0, |entry| entry.gid), groups)
    } else {
        let gid = match parse_id(group)? {
            Id::Number(gid) => gid,
            Id::Name(name) => {
                find_group(root, name)?.ok_or_else(|| missing("group", name, "group"))?
            }
        };
        (gid, Vec::new())
    };
    let home = entry.map(|entry| entry.home).unwrap_or_default();
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home: if home.is_empty() {
            "/".to_owned()
        } else {
            home
        },
    })
}

/// Returns whom `--chown` means; each name is looked up in the tree beside it. Without a tree, no name is known.
pub fn resolve_owner(
    user: Option<(Id<'_>, Option<&Root>)>,
    group: Option<(Id<'_>, Option<&Root>)>,
) -> Result<Owner> {
    let mut owner = Owner::default();
    match user {
        None => {}
        Some((Id::Number(uid), _)) => (owner.uid, owner.gid) = (uid, uid),
        Some((Id::Name(name), root)) => {
            match root.map_or(Ok(None), |root| find_user(root, Id::Name(name)))? {
                Some(entry) => (owner.uid, owner.gid) = (entry.uid, entry.gid),
                None => owner.missing.push(name.to_owned()),
            }
        }
    }
    match group {
        None => {}
        Some((Id::Number(gid), _)) => owner.gid = gid,
        Some((Id::Name(name), root)) => {
            match root.map_or(Ok(None), |root| find_group(root, name))? {
                Some(gid) => owner.gid = gid,
                None => {
                    // As BuildKit has it, the user's own group stays.
                    owner.missing.push(name.to_owned());
                }
            }
        }
    }
    Ok(owner)
}

/// Returns a number as one, anything else as a name.
fn parse_id(text: &str) -> Result<Id<'_>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Id::Name(text));
    }
    text.parse().map(Id::Number).map_err(|_| {
        let message = format!("uids and gids must be in range 0-{}: `{text}`", u32::MAX);
        Error::new(ErrorKind::InvalidInput, message)
    })
}

fn find_user(root: &Root, id: Id<'_>) -> Result<Option<PasswdLine>> {
    let text = read(root, "/etc/passwd")?;
    let mut users = text.lines().filter_map(parse_passwd_line);
    Ok(users.find(|user| match id {
        Id::Name(name) => user.name == name,
        Id::Number(uid) => user.uid == uid,
    }))
}

fn find_group(root: &Root, name: &str) -> Result<Option<u32>> {
    let text = read(root, "/etc/group")?;
    let mut groups = text.lines().filter_map(parse_group_line);
    Ok(groups
        .find(|group| group.name == name)
        .map(|group| group.gid))
}

/// Returns the groups that list the user.
fn groups_of(root: &Root, user: &str) -> Result<Vec<u32>> {
    let text = read(root, "/etc/group")?;
    let groups = text.lines().filter_map(parse_group_line);
    let listed = groups.filter(|group| group.members.iter().any(|member| member == user));
    Ok(listed.map(|group| group.gid).collect())
}

fn parse_passwd_line(line: &str) -> Option<PasswdLine> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _comment = fields.next();
    Some(PasswdLine {
        name: name.to_owned(),
        uid,
        gid,
        home: fields.next().unwrap_or_default().to_owned(),
    })
}

fn parse_group_line(line: &str) -> Option<GroupLine> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',');
    Some(GroupLine {
        name: name.to_owned(),
        gid,
        members: members.map(str::to_owned).collect(),
    })
}

/// Returns the text of a file of the tree; none if it doesn't exist.
fn read(root: &Root, path: &str) -> Result<String> {
    // What stands there may be a pipe, on which opening would wait.
    let fd = match root.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) => {
            let kind = error.io_source().map(std::io::Error::kind);
            let is_missing = error.kind() == ErrorKind::NotFound
                || kind == Some(std::io::ErrorKind::NotADirectory);
            return if is_missing {
                Ok(String::new())
            } else {
                Err(error)
            };
        }
    };
    let failed = |error: std::io::Error| Error::io(format!("cannot read `{path}`"), error);
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let message = format!("`{path}` is not a regular file");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(fd).take(MAX_FILE_BYTES);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 == MAX_FILE_BYTES {
        let message = format!("`{path}` has {MAX_FILE_BYTES} bytes or more");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn missing(what: &str, name: &str, file: &str) -> Error {
    let message = format!("unable to find {what} {name}: no matching entries in {file} file");
    Error::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x:zero:0::/:\n\
        www:x:33:34:www:/var/www:/bin/false\nnohome:x:50:51::\n12:x:99:98::/twelve:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:70:www,other\naudio:x:71:other,www\n";

    fn rootfs(passwd: Option<&str>, group: Option<&str>) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for (name, text) in [("passwd", passwd), ("group", group)] {
            if let Some(text) = text {
                fs::write(dir.path().join("etc").join(name), text).unwrap();
            }
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn processes_get_groups_and_home() {
        let (_dir, root) = rootfs(Some(PASSWD), Some(GROUP));
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, &[][..], "/root"),
            ("root", 0, 0, &[], "/root"),
            ("www", 33, 34, &[70, 71], "/var/www"),
            ("33", 33, 34, &[70, 71], "/var/www"),
            ("www:logs", 33, 70, &[], "/var/www"),
            ("33:34", 33, 34, &[], "/var/www"),
            ("7", 7, 0, &[], "/"),
            ("7:logs", 7, 70, &[], "/"),
            ("12", 12, 0, &[], "/"),
            ("nohome", 50, 51, &[], "/"),
            (":20", 0, 20, &[], "/root"),
        ] {
            let expected = ResolvedUser {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(resolve_user(&root, spec).unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn unknown_names_are_errors_for_processes() {
        let (_dir, root) = rootfs(Some(PASSWD), None);
        for (spec, kind) in [
            ("nobody", ErrorKind::NotFound),
            ("broken", ErrorKind::NotFound),
            ("www:logs", ErrorKind::NotFound),
            ("4294967296", ErrorKind::InvalidInput),
        ] {
            assert_eq!(
                resolve_user(&root, spec).unwrap_err().kind(),
                kind,
                "{spec}"
            );
        }
        let error = resolve_user(&root, "nobody").unwrap_err();
        let text = "unable to find user nobody: no matching entries in passwd file";
        assert_eq!(error.to_string(), text);
        let (_empty, scratch) = rootfs(None, None);
        assert_eq!(resolve_user(&scratch, "").unwrap().uid, 0);
    }

    #[test]
    fn files_get_owners_as_chown_has_it() {
        let (_dir, root) = rootfs(Some(PASSWD), Some(GROUP));
        let name = |name| Some((Id::Name(name), Some(&root)));
        let number = |number| Some((Id::Number(number), None));
        for (user, group, uid, gid, missing) in [
            (None, None, 0, 0, &[][..]),
            (number(10), None, 10, 10, &[]),
            (name("www"), None, 33, 34, &[]),
            (name("www"), name("logs"), 33, 70, &[]),
            (None, number(99), 0, 99, &[]),
            (number(10), number(20), 10, 20, &[]),
            (name("nobody"), None, 0, 0, &["nobody"]),
            (name("www"), name("none"), 33, 34, &["none"]),
        ] {
            let owner = resolve_owner(user, group).unwrap();
            let missing: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(owner, Owner { uid, gid, missing }, "{user:?} {group:?}");
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let (dir, root) = rootfs(None, None);
        let path = dir.path().join("etc/passwd");
        fs::write(&path, vec![b'\n'; MAX_FILE_BYTES as usize]).unwrap();
        let error = resolve_user(&root, "www").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        fs::remove_file(&path).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let error = resolve_user(&root, "www").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", &path).unwrap();
        assert!(resolve_user(&root, "www").is_err());
    }
}
