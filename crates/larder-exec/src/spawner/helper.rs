//! Programs of the machine that run beside the containers, and end with larder as these do.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::failure::{Failure, Stage};
use super::protocol::{self, HelperRequest, Report};
use crate::sys;

/// Becomes the program that `request` names, with `descriptors` as its first open files. Returns
/// only if that fails, which it has told on `socket`.
pub(super) fn become_program(socket: &OwnedFd, request: &OwnedFd, descriptors: &[OwnedFd]) {
    let failure = match protocol::read_request(request) {
        Ok((request, _)) => execute(&request, descriptors),
        Err(error) => Failure::new(Stage::Request, "", error),
    };
    protocol::send_report(socket.as_fd(), &Report::Failed(failure));
}

fn execute(request: &HelperRequest, descriptors: &[OwnedFd]) -> Failure {
    let program = request.program.as_os_str();
    let failed = |error| {
        let Failure { errno, .. } = Failure::new(Stage::Command, "", error);
        let why = std::io::Error::from_raw_os_error(errno);
        Failure::command(format!("exec {}: {why}", program.display()))
    };
    let files: Vec<_> = descriptors.iter().map(|file| file.as_fd()).collect();
    if let Err(error) = sys::set_first_files(&files) {
        return failed(error);
    }
    let path = CString::new(program.as_bytes());
    let args = request.args.iter().map(|arg| CString::new(arg.as_str()));
    let (Ok(path), Ok(args)) = (path, args.collect::<Result<Vec<_>, _>>()) else {
        return failed(std::io::ErrorKind::InvalidInput.into());
    };
    failed(sys::exec(&path, &args, &super::environment()))
}
