//! The system calls that no safe wrapper exists for. The only `unsafe` code of larder.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use crate::seccomp::Instruction;

/// Turns the result of a libc call into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `struct mount_attr` (`linux/mount.h`).
#[repr(C)]
struct MountAttributes {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Makes a mount read-only; with `recursive`, those beneath it too.
pub(crate) fn set_readonly(mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    set_attributes(mount, libc::MOUNT_ATTR_RDONLY, recursive)
}

/// Keeps device nodes of a mount and of those beneath it from being used.
pub(crate) fn set_nodev(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, libc::MOUNT_ATTR_NODEV, true)
}

fn set_attributes(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal, the attributes outlive the call and their size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}

/// Leaves the namespaces given by `CLONE_NEW*` flags for new ones.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes no pointers; the flags given here never unshare the table of descriptors.
    check(unsafe { libc::unshare(flags) }.into())?;
    Ok(())
}

/// `CLONE_INTO_CGROUP` (`linux/sched.h`), which does not fit libc's type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where a [`fork`] returned.
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// The new process.
        pid: libc::pid_t,
        /// A descriptor of it.
        pidfd: OwnedFd,
    },
}

/// Copies this process into new namespaces (`CLONE_NEW*` flags) and, if given, a cgroup.
///
/// The caller must be single-threaded: the copy goes on in ordinary code, which may wait for locks
/// that another thread held.
pub(crate) fn fork(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: c_int = -1;
    // SAFETY: all-zero is a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of the memory, stack included, and the
    // kernel writes `pidfd` before this returns in the parent.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    Ok(Forked::Parent {
        pid: pid as libc::pid_t,
        // SAFETY: the kernel made this descriptor for us.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    })
}

/// Returns pointers to strings, and a null pointer behind them, as `execve` takes them.
fn terminated(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([ptr::null()]).collect()
}

/// What [`spawn_in_pid_namespace`]'s child reads from its parent's memory.
struct Exec {
    executable: RawFd,
    socket: RawFd,
    null: RawFd,
    argv: *const *const c_char,
    envp: *const *const c_char,
}

/// The number under which a spawned process finds its socket.
pub(crate) const SOCKET_FD: RawFd = 3;

/// Starts `executable` as the first process of a new PID namespace, with `socket` as
/// [`SOCKET_FD`], `null` as its standard streams, and nothing else open.
///
/// The child borrows this process's memory until it executes, so the cost does not grow with it.
pub(crate) fn spawn_in_pid_namespace(
    executable: &OwnedFd,
    socket: &OwnedFd,
    null: &OwnedFd,
    args: &[CString],
    env: &[CString],
) -> io::Result<libc::pid_t> {
    const STACK_BYTES: usize = 64 << 10;
    let (arg_pointers, env_pointers) = (terminated(args), terminated(env));
    let exec = Exec {
        executable: executable.as_raw_fd(),
        socket: socket.as_raw_fd(),
        null: null.as_raw_fd(),
        argv: arg_pointers.as_ptr(),
        envp: env_pointers.as_ptr(),
    };
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    // SAFETY: one past the end of the allocation, as stacks grow downwards; aligned to 16 bytes.
    let top = unsafe { stack.as_mut_ptr().add(stack.len()) };
    // SAFETY: CLONE_VFORK stops this thread until the child executes or exits, so that all it
    // reads outlives it. With all signals blocked no handler of ours runs in the child.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::clone(
            exec_child,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWPID | libc::SIGCHLD,
            ptr::from_ref(&exec).cast_mut().cast::<c_void>(),
        );
        let result = check(pid.into());
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        result?;
        Ok(pid)
    }
}

/// Executes what the [`Exec`] behind `arg` describes. Makes system calls only: it runs in another
/// process's memory.
extern "C" fn exec_child(arg: *mut c_void) -> c_int {
    // SAFETY: `arg` is the `Exec` of the parent, which waits.
    unsafe {
        let exec = &*arg.cast::<Exec>();
        // Duplicated out of the way first: it may itself be one of the numbers 0 to 3.
        let socket = libc::fcntl(exec.socket, libc::F_DUPFD_CLOEXEC, 10);
        let null = libc::fcntl(exec.null, libc::F_DUPFD_CLOEXEC, 10);
        let executable = libc::fcntl(exec.executable, libc::F_DUPFD_CLOEXEC, 10);
        let ready = socket >= 0
            && executable >= 0
            && libc::dup2(null, 0) >= 0
            && libc::dup2(null, 1) >= 0
            && libc::dup2(null, 2) >= 0
            && libc::dup2(socket, SOCKET_FD) >= 0;
        if ready {
            libc::syscall(
                libc::SYS_execveat,
                executable,
                c"".as_ptr(),
                exec.argv,
                exec.envp,
                libc::AT_EMPTY_PATH,
            );
        }
        libc::_exit(127);
    }
}

/// Takes ownership of [`SOCKET_FD`], if it is an open socket, and closes all later descriptors.
pub(crate) fn take_socket() -> Option<OwnedFd> {
    // SAFETY: called once, first thing in a process started by `spawn_in_pid_namespace`, before
    // anything else owns a descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET_FD) };
    if rustix::net::sockopt::socket_type(&socket).is_err() {
        std::mem::forget(socket);
        return None;
    }
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: nothing in this process owns a descriptor above the socket.
    unsafe { libc::syscall(libc::SYS_close_range, SOCKET_FD + 1, c_int::MAX, 0) };
    Some(socket)
}

/// Makes these the first open files: standard input, output, error, and what may follow. They stay
/// open when a program is executed. None of them may have one of these numbers, and what has is
/// closed.
pub(crate) fn set_first_files(files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for (number, file) in (0..).zip(files) {
        // SAFETY: nothing owns the standard streams' numbers; a fourth one is [`SOCKET_FD`], of
        // which the copy of a process that executes a program makes no use.
        check(unsafe { libc::dup2(file.as_raw_fd(), number) }.into())?;
    }
    Ok(())
}

/// Gives every signal its default action and blocks none.
pub(crate) fn reset_signals() {
    // All-zero is the default action in the kernel's `struct sigaction`, however long.
    let default = [0_u64; 8];
    // The kernel's signals, not libc's: that hides two, which may be ignored all the same.
    for signal in 1..=64 {
        // SAFETY: the kernel reads less than `default`; numbers that can't be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: plain calls on local values.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Ends this process without running destructors or handlers of exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(code) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// The status as `wait` gives it.
    pub(crate) status: c_int,
    /// What it and the children it waited for used.
    pub(crate) usage: libc::rusage,
}

/// Reaps a child that has ended, or waits for it to.
pub(crate) fn wait(pid: libc::pid_t) -> io::Result<Waited> {
    loop {
        // SAFETY: all-zero is a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let mut status = 0;
        // SAFETY: both pointers are to locals.
        match check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }.into()) {
            Ok(_) => return Ok(Waited { status, usage }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Loads a system call filter for this thread. Needs no "no new privileges" with `CAP_SYS_ADMIN`.
pub(crate) fn load_filter(filter: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads; `Instruction` has the layout of `sock_filter`.
        filter: filter.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    // SAFETY: the program outlives the call, and its length is that of the slice.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // The filter is no boundary against speculation; runc allows it, too.
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            ptr::from_ref(&program),
        )
    })?;
    Ok(())
}

/// An instruction of eBPF: `struct bpf_insn` (`linux/bpf.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct BpfInstruction {
    pub(crate) code: u8,
    /// The destination in the lower half, the source in the upper.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// What `BPF_PROG_LOAD` reads of `union bpf_attr` (`linux/bpf.h`).
#[repr(C)]
struct BpfLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// What `BPF_PROG_ATTACH` reads of it.
#[repr(C)]
struct BpfAttach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program that judges what processes of a cgroup do with devices
/// (`BPF_PROG_TYPE_CGROUP_DEVICE`).
pub(crate) fn load_device_program(instructions: &[BpfInstruction]) -> io::Result<OwnedFd> {
    const LOAD: c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let attributes = BpfLoad {
        kind: CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes, of the size given, and what they point to, which all
    // outlives the call.
    let program = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOAD,
            ptr::from_ref(&attributes),
            size_of::<BpfLoad>(),
        )
    })?;
    // SAFETY: the kernel made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(program as RawFd) })
}

/// Has a program of [`load_device_program`] judge a cgroup, beside those that judge it already.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    const ATTACH: c_int = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attributes = BpfAttach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the attributes, of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            ATTACH,
            ptr::from_ref(&attributes),
            size_of::<BpfAttach>(),
        )
    })?;
    Ok(())
}

/// Brings up the loopback interface of this network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`.
    check(
        unsafe {
            libc::ioctl(
                socket.as_fd().as_raw_fd(),
                libc::SIOCSIFFLAGS,
                ptr::from_ref(&request),
            )
        }
        .into(),
    )?;
    Ok(())
}

/// Executes a program in place of this process; returns only on failure.
pub(crate) fn exec(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let (arg_pointers, env_pointers) = (terminated(args), terminated(env));
    // SAFETY: all pointers are to terminated strings and arrays that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arg_pointers.as_ptr(), env_pointers.as_ptr()) };
    io::Error::last_os_error()
}
