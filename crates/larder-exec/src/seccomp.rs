//! The default system call filter, as a BPF program.
//!
//! Compiled by ourselves, into a search tree: general compilers make a chain of comparisons for one
//! architecture. The kernel runs the program for each of some 450 calls whenever it is loaded (to
//! learn which are always allowed), which is at the start of each process; and one program must
//! cover the machine's own and its compatible architectures.

mod bpf;

use std::collections::BTreeMap;

pub(crate) use bpf::Instruction;

use bpf::{Action, Program};

/// The profile, one line for each call.
const PROFILE: &str = include_str!("seccomp/profile.tbl");

/// The marker bit of x32 calls, which share x86_64's architecture word and, but for some that only
/// x32 has, its numbers.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Numbers from here on are arm's private calls, not part of the common sequence.
const ARM_PRIVATE: u32 = 0xf_0000;

/// An architecture whose calls the filter judges.
struct Architecture {
    /// The `AUDIT_ARCH_*` word (`linux/audit.h`).
    word: u32,
    /// The bits of a call's number that count.
    mask: u32,
    /// Its columns in the profile, from the first number on; the first is in the common sequence.
    columns: &'static [usize],
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        word: 0xc000_003e,
        mask: !X32_BIT,
        columns: &[0, 1],
    },
    Architecture {
        word: 0x4000_0003,
        mask: !0,
        columns: &[2],
    },
];

#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        word: 0xc000_00b7,
        mask: !0,
        columns: &[3],
    },
    Architecture {
        word: 0x4000_0028,
        mask: !0,
        columns: &[4],
    },
];

/// Returns the filter of a sandboxed process.
pub(crate) fn default_filter() -> Vec<Instruction> {
    let mut program = Program::new();
    for arch in &ARCHITECTURES {
        program.architecture(arch.word, arch.mask, &ranges(arch));
    }
    program.finish()
}

/// Returns what happens to the calls of `arch`, as `(first number, action)`, ascending; each range
/// ends where the next begins.
fn ranges(arch: &Architecture) -> Vec<(u32, Action)> {
    let calls: BTreeMap<u32, Action> = arch
        .columns
        .iter()
        .flat_map(|column| PROFILE.lines().filter_map(|line| parse_line(line, *column)))
        .collect();
    // Calls newer than the profile fail with ENOSYS, as runc's do: programs then take their older
    // way, where EPERM would make them give up.
    let newest = PROFILE
        .lines()
        .filter_map(|line| parse_line(line, arch.columns[0]))
        .map(|(number, _)| number)
        .filter(|number| *number < ARM_PRIVATE)
        .max()
        .unwrap_or(0);

    let mut ranges = vec![(0, Action::Errno(libc::EPERM))];
    let mut push = |number: u32, action: Action| {
        if ranges.last().is_some_and(|(first, _)| *first == number) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((number, action));
        }
    };
    for (number, action) in calls {
        push(number, action);
        let after = if number >= newest {
            Action::Errno(libc::ENOSYS)
        } else {
            Action::Errno(libc::EPERM)
        };
        push(number + 1, after);
    }
    ranges
}

/// Returns the number and action that a line of the profile gives for the architecture in `column`.
fn parse_line(line: &str, column: usize) -> Option<(u32, Action)> {
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.split(' ').skip(1);
    let action = match words.next()? {
        "allow" => Action::Allow,
        "enosys" => Action::Errno(libc::ENOSYS),
        "clone" => Action::Clone,
        "personality" => Action::Personality,
        "socket" => Action::Socket,
        _ => return None,
    };
    Some((words.nth(column)?.parse().ok()?, action))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn check(filter: &[Instruction], word: u32, cases: &[(u32, u64, u32)]) {
        for (number, argument, expected) in cases {
            let got = bpf::evaluate(filter, word, *number, *argument);
            assert_eq!(
                got, *expected,
                "call {number} of {word:#x} with argument {argument:#x}"
            );
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn filter_follows_the_profile() {
        let filter = default_filter();
        assert!(filter.len() < 4096, "the kernel's limit: {}", filter.len());
        check(
            &filter,
            0xc000_003e,
            &[
                (0, 0, ALLOW),
                (101, 0, ALLOW),             // ptrace
                (161, 0, ALLOW),             // chroot
                (165, 0, EPERM),             // mount
                (250, 0, EPERM),             // keyctl
                (272, 0, EPERM),             // unshare
                (425, 0, EPERM),             // io_uring_setup
                (435, 0, ENOSYS),            // clone3
                (466, 0, ALLOW),             // removexattrat
                (467, 0, ENOSYS),            // newer than the profile
                (56, 0x11, ALLOW),           // clone with SIGCHLD
                (56, 0x1000_0011, EPERM),    // clone into a user namespace
                (56, 0x0002_0011, EPERM),    // clone into a mount namespace
                (135, 0, ALLOW),             // personality: Linux
                (135, 8, ALLOW),             // 32 bits
                (135, 0x2_0008, ALLOW),      // both
                (135, 0xffff_ffff, ALLOW),   // query
                (135, 0x1_ffff_ffff, EPERM), // not the same in 64 bits
                (135, 0x4_0000, EPERM),      // ADDR_NO_RANDOMIZE
                (41, 2, ALLOW),              // AF_INET
                (41, 16, ALLOW),             // AF_NETLINK
                (41, 38, EPERM),             // AF_ALG
                (41, 40, EPERM),             // AF_VSOCK
                (41, 45, ALLOW),
                (41, 46, EPERM),
                (41, 0x1_0000_0002, EPERM),
                (X32_BIT, 0, ALLOW),
                (X32_BIT + 165, 0, EPERM),
                (X32_BIT + 513, 0, ALLOW),  // rt_sigreturn
                (X32_BIT + 512, 0, ALLOW),  // rt_sigaction
                (X32_BIT + 528, 0, ENOSYS), // kexec_load
                (0xffff_ffff, 0, ENOSYS),
            ],
        );
        check(
            &filter,
            0x4000_0003,
            &[
                (3, 0, ALLOW),
                (21, 0, EPERM),            // mount
                (102, 0, ALLOW),           // socketcall
                (120, 0x1000_0000, EPERM), // clone
                (359, 40, EPERM),          // socket
                (403, 0, ALLOW),           // clock_gettime64
                (467, 0, ENOSYS),
            ],
        );
        check(&filter, 0xc000_00b7, &[(0, 0, KILL)]);
    }

    #[test]
    fn every_line_of_the_profile_is_read() {
        let lines = PROFILE.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            assert!(
                (0..5).any(|column| parse_line(line, column).is_some()),
                "`{line}` is not understood"
            );
            assert_eq!(line.split(' ').count(), 7, "`{line}`");
        }
    }
}
