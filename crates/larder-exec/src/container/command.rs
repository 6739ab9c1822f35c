//! Finding and executing the command, with runc's (that is, Go's) words for what goes wrong.

use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::spawner::failure::{Failure, Stage};

/// Executes the command; returns why that failed.
pub(super) fn execute(args: &[String], env: &[String]) -> Failure {
    let name = args.first().map_or("", String::as_str);
    let path = match find(name, env) {
        Ok(path) => path,
        Err(why) => return Failure::command(format!("exec: {name:?}: {why}")),
    };
    let terminated = |strings: &[String]| -> Result<Vec<CString>, _> {
        strings
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect()
    };
    let prepared = (
        CString::new(path.as_str()),
        terminated(args),
        terminated(env),
    );
    let (Ok(program), Ok(args), Ok(env)) = prepared else {
        return Failure::new(Stage::Command, name, Errno::INVAL);
    };
    let error = crate::sys::exec(&program, &args, &env);
    let why = go_text(error.raw_os_error().unwrap_or(0));
    Failure::command(format!("exec {path}: {why}"))
}

/// Returns the path of a command: itself if it has a slash, else as found in `PATH`.
fn find(name: &str, env: &[String]) -> Result<String, String> {
    if name.contains('/') {
        return match examine(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Unfit::Status(errno)) => {
                Err(format!("stat {name}: {}", go_text(errno.raw_os_error())))
            }
            Err(Unfit::Directory) => Err("is a directory".to_owned()),
            Err(Unfit::NotExecutable) => Err("permission denied".to_owned()),
        };
    }
    let path = env.iter().rev().find_map(|line| line.strip_prefix("PATH="));
    for directory in path.unwrap_or_default().split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        if !name.is_empty() && examine(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err("executable file not found in $PATH".to_owned())
}

/// Why a file can't be executed.
enum Unfit {
    Status(Errno),
    Directory,
    NotExecutable,
}

fn examine(path: &str) -> Result<(), Unfit> {
    let status = rustix::fs::stat(path).map_err(Unfit::Status)?;
    if FileType::from_raw_mode(status.st_mode).is_dir() {
        return Err(Unfit::Directory);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|_| Unfit::NotExecutable)
}

/// Returns Go's text for an error number, which is strerror's in lower case.
fn go_text(errno: i32) -> String {
    match errno {
        libc::ENOENT => "no such file or directory".to_owned(),
        libc::EACCES => "permission denied".to_owned(),
        libc::ENOEXEC => "exec format error".to_owned(),
        libc::ENOTDIR => "not a directory".to_owned(),
        libc::EISDIR => "is a directory".to_owned(),
        libc::ELOOP => "too many levels of symbolic links".to_owned(),
        libc::ENAMETOOLONG => "file name too long".to_owned(),
        libc::E2BIG => "argument list too long".to_owned(),
        libc::ENOMEM => "cannot allocate memory".to_owned(),
        libc::ETXTBSY => "text file busy".to_owned(),
        other => format!("errno {other}"),
    }
}
