//! Running as an ordinary user: in a user namespace, where this process is root over what the
//! namespace maps.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::{Error, ErrorKind, Result, sys};

/// The first argument by which the program knows that it is to map ids; see [`map_ids`].
pub(crate) const MARKER: &str = "larder-exec-map-ids";

/// The programs that may map the ids that an administrator gave to a user (package `uidmap`).
const MAPPERS: [&str; 2] = ["newuidmap", "newgidmap"];

/// Which ids exist for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMap {
    /// All: it runs outside of user namespaces.
    Full,
    /// Root and some more, in all this many.
    Subordinate(u64),
    /// Root only, which is the user outside: no file can be given to anyone else, and no process
    /// can run as anyone else.
    Single,
}

/// Returns which ids exist for this process.
pub fn id_map() -> IdMap {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let count: u64 = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    match count {
        // The whole range, or no user namespaces at all.
        0 | 4_294_967_295.. => IdMap::Full,
        1 => IdMap::Single,
        count => IdMap::Subordinate(count),
    }
}

/// Returns whether this process lacks the rights to run containers, and so should
/// [enter a user namespace](enter_user_namespace).
pub fn needs_user_namespace() -> bool {
    !rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Moves this process into new user and mount namespaces, in which it is root. Its id, arguments
/// and open files stay, so exit codes and signals need no passing on.
///
/// Ids beyond root are those of `/etc/subuid` and `/etc/subgid`, if `newuidmap` and
/// `newgidmap` are installed; see [`id_map`] for what came out.
///
/// Must be called in `main` after [`init`](crate::init) and before any thread is started.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if the kernel forbids user namespaces, or threads run already.
pub fn enter_user_namespace() -> Result<()> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let mapper = Mapper::start(uid, gid);
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(refused)?;
    if !mapper.is_some_and(Mapper::map) {
        map_single(uid, gid)
            .map_err(|error| Error::caused(ErrorKind::Unsupported, "cannot map user ids", error))?;
    }
    become_root().map_err(|errno| Error::system("cannot become root of a user namespace", errno))
}

fn refused(error: std::io::Error) -> Error {
    let message = match error.raw_os_error() {
        Some(libc::EINVAL) => "cannot create a user namespace: threads are running already",
        _ => {
            "cannot create a user namespace\n\
             hint: see the settings `kernel.unprivileged_userns_clone`, `user.max_user_namespaces` \
             and `kernel.apparmor_restrict_unprivileged_userns` of sysctl"
        }
    };
    Error::caused(ErrorKind::Unsupported, message, error)
}

/// Returns whether supplementary groups can't be set here.
pub(crate) fn groups_are_fixed() -> bool {
    fs_err::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Maps root to the user, and nothing else.
fn map_single(uid: u32, gid: u32) -> std::io::Result<()> {
    // Who could drop a group could gain what is denied to it.
    fs_err::write("/proc/self/setgroups", "deny")?;
    fs_err::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs_err::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn become_root() -> rustix::io::Result<()> {
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    if groups_are_fixed() {
        return Ok(());
    }
    rustix::thread::set_thread_groups(&[])
}

/// A process that stays outside and maps ids into the namespace: this one can't run programs
/// that are set-uid outside once it is inside.
struct Mapper(Child);

impl Mapper {
    /// Starts one, if the user has subordinate ids and the programs to map them.
    fn start(uid: u32, gid: u32) -> Option<Self> {
        let name = user_name(uid);
        let uids = subordinate_ids("/etc/subuid", uid, name.as_deref());
        let gids = subordinate_ids("/etc/subgid", uid, name.as_deref());
        if uids.is_empty() || gids.is_empty() || !MAPPERS.into_iter().all(is_installed) {
            return None;
        }
        let child = Command::new("/proc/self/exe")
            .arg0(MARKER)
            .arg(std::process::id().to_string())
            .arg(mapping(uid, &uids))
            .arg(mapping(gid, &gids))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        child.map(Self).ok()
    }

    /// Has the ids mapped, now that the namespace exists; returns whether they are.
    fn map(mut self) -> bool {
        let told = match self.0.stdin.take() {
            Some(mut stdin) => stdin.write_all(b"go").is_ok(),
            None => false,
        };
        let ended = self.0.wait();
        tracing::debug!(?ended, "ids mapped");
        told && ended.is_ok_and(|status| status.success())
    }
}

/// Maps ids into the namespaces of another process, which tells on standard input when they are
/// there, and exits. The arguments are that process's id, and the mappings of users and of
/// groups.
pub(crate) fn map_ids(args: impl Iterator<Item = OsString>) -> ! {
    let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
    let [pid, mappings @ ..] = args.as_slice() else {
        std::process::exit(1);
    };
    let mut told = Vec::new();
    // Without the word, the other process has failed.
    if std::io::stdin().read_to_end(&mut told).is_err() || told != b"go" {
        std::process::exit(1);
    }
    let done = MAPPERS.into_iter().zip(mappings).all(|(program, mapping)| {
        let status = Command::new(program)
            .arg(pid)
            .args(mapping.split(' '))
            .status();
        status.is_ok_and(|status| status.success())
    });
    std::process::exit(i32::from(!done))
}

/// Returns the arguments that map root to `own`, and the ids from 1 on to `subordinate` ranges.
fn mapping(own: u32, subordinate: &[(u32, u32)]) -> String {
    let mut words = vec![format!("0 {own} 1")];
    let mut inside = 1_u32;
    for (start, count) in subordinate {
        words.push(format!("{inside} {start} {count}"));
        inside = inside.saturating_add(*count);
    }
    words.join(" ")
}

/// Returns the ranges, as first id and count, that a file gives to a user.
fn subordinate_ids(file: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let text = fs_err::read_to_string(file).unwrap_or_default();
    parse_subordinate_ids(&text, uid, name)
}

fn parse_subordinate_ids(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != uid && Some(owner) != name {
            return None;
        }
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((start, count))
    };
    text.lines().filter_map(range).collect()
}

/// Returns the name of a user.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs_err::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_read_by_name_and_number() {
        let text = "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n\nalice:x:1\nalice:5:0\n";
        let check = |uid, name, expected: &[(u32, u32)]| {
            assert_eq!(parse_subordinate_ids(text, uid, name), expected);
        };
        check(1000, Some("alice"), &[(100_000, 65536), (300_000, 10)]);
        check(1001, Some("bob"), &[(165_536, 65536)]);
        check(1002, None, &[]);
    }

    #[test]
    fn mapping_puts_ranges_behind_one_another() {
        assert_eq!(
            mapping(1000, &[(100_000, 65536), (300_000, 10)]),
            "0 1000 1 1 100000 65536 65537 300000 10"
        );
    }
}
