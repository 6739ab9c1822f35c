//! Which devices a run may open. Everybody may *make* nodes (packages and `debootstrap` do), but
//! what they lead to is the machine's own: without a filter, a step could read its disks.

use std::os::fd::{AsFd as _, OwnedFd};

use crate::sys::{self, BpfInstruction};

/// What a run may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    All,
    /// What every process may.
    Default,
    /// That and more.
    Further(Vec<Rule>),
}

/// Devices that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    /// `None` for all.
    pub(crate) minor: Option<u32>,
    /// Bits of [`READ`], [`WRITE`] and [`MAKE`].
    pub(crate) access: u32,
}

/// `BPF_DEVCG_ACC_*` (`linux/bpf.h`).
pub(crate) const MAKE: u32 = 1;
pub(crate) const READ: u32 = 2;
pub(crate) const WRITE: u32 = 4;

/// `BPF_DEVCG_DEV_*` (`linux/bpf.h`).
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Devices that everybody may use, as with runc: `null`, `zero`, `full`, `random`, `urandom`,
/// `tty`, `ptmx` and terminals.
const EVERYBODYS: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

fn all_rules(further: &[Rule]) -> impl Iterator<Item = Rule> {
    let everybodys = EVERYBODYS.into_iter().map(|(major, minor)| Rule {
        is_block: false,
        major,
        minor,
        access: MAKE | READ | WRITE,
    });
    everybodys.chain(further.iter().copied())
}

/// Loads the program that lets everybody's devices and `further` ones through, for cgroups of
/// version 2.
pub(super) fn program(further: &[Rule]) -> std::io::Result<OwnedFd> {
    sys::load_device_program(&instructions(further))
}

/// Has a program judge what the processes of a cgroup open.
pub(super) fn attach(cgroup: &OwnedFd, program: &OwnedFd) -> std::io::Result<()> {
    sys::attach_device_program(cgroup.as_fd(), program.as_fd())
}

/// Returns lines for `devices.allow` of version 1.
pub(super) fn lines(further: &[Rule]) -> impl Iterator<Item = String> {
    let made = ["c *:* m", "b *:* m"].map(str::to_owned);
    let rules = all_rules(further).map(|rule| {
        let kind = if rule.is_block { 'b' } else { 'c' };
        let minor = rule.minor.map_or("*".to_owned(), |minor| minor.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
        let access: String = letters
            .iter()
            .filter(|(bit, _)| rule.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect();
        format!("{kind} {}:{minor} {access}", rule.major)
    });
    made.into_iter().chain(rules)
}

/// Opcodes of eBPF that are needed here (`linux/bpf_common.h`, `linux/bpf.h`).
mod code {
    /// `dst = *(u32 *)(src + offset)`
    pub(super) const LOAD_WORD: u8 = 0x61;
    /// `dst = src`
    pub(super) const MOVE: u8 = 0xbf;
    /// `dst = immediate`
    pub(super) const SET: u8 = 0xb7;
    /// `dst &= immediate`
    pub(super) const AND: u8 = 0x57;
    /// `dst >>= immediate`
    pub(super) const SHIFT_RIGHT: u8 = 0x77;
    /// `if dst != immediate skip offset`
    pub(super) const UNLESS: u8 = 0x55;
    pub(super) const EXIT: u8 = 0x95;
}

/// What the program keeps in which register.
mod register {
    pub(super) const RESULT: u8 = 0;
    pub(super) const CONTEXT: u8 = 1;
    pub(super) const KIND: u8 = 2;
    pub(super) const ACCESS: u8 = 3;
    pub(super) const MAJOR: u8 = 4;
    pub(super) const MINOR: u8 = 5;
    pub(super) const REST: u8 = 6;
}

/// Returns the program: with `struct bpf_cgroup_dev_ctx` in register 1, it returns 1 to allow.
fn instructions(further: &[Rule]) -> Vec<BpfInstruction> {
    use register::{ACCESS, CONTEXT, KIND, MAJOR, MINOR, REST, RESULT};

    let one = |code, dst: u8, src: u8, offset: i16, immediate: u32| BpfInstruction {
        code,
        registers: src << 4 | dst,
        offset,
        immediate: immediate.cast_signed(),
    };
    let verdict = |verdict| {
        [
            one(code::SET, RESULT, 0, 0, verdict),
            one(code::EXIT, 0, 0, 0, 0),
        ]
    };
    let mut program = vec![
        // The access is in the upper half of the first word, the kind in the lower.
        one(code::LOAD_WORD, KIND, CONTEXT, 0, 0),
        one(code::MOVE, ACCESS, KIND, 0, 0),
        one(code::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        one(code::AND, KIND, 0, 0, 0xffff),
        one(code::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        one(code::LOAD_WORD, MINOR, CONTEXT, 8, 0),
        // To make a node is no access to what it leads to.
        one(code::UNLESS, ACCESS, 0, 2, MAKE),
    ];
    program.extend(verdict(1));
    for rule in all_rules(further) {
        let kind = if rule.is_block { BLOCK } else { CHARACTER };
        let mut tests = vec![(KIND, kind.cast_unsigned()), (MAJOR, rule.major)];
        tests.extend(rule.minor.map(|minor| (MINOR, minor)));
        // Behind the tests: three instructions on the access, two of the verdict.
        let count = tests.len() as i16;
        for (position, (register, value)) in (0..).zip(tests) {
            let skipped = count - position - 1 + 5;
            program.push(one(code::UNLESS, register, 0, skipped, value));
        }
        program.push(one(code::MOVE, REST, ACCESS, 0, 0));
        program.push(one(code::AND, REST, 0, 0, !rule.access));
        program.push(one(code::UNLESS, REST, 0, 2, 0));
        program.extend(verdict(1));
    }
    program.extend(verdict(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(rules: &[Rule], is_block: bool, major: u32, minor: u32, access: u32) -> bool {
        let program = instructions(rules);
        let kind = if is_block { BLOCK } else { CHARACTER };
        let context = [access << 16 | kind.cast_unsigned(), major, minor];
        let mut registers = [0_u64; 7];
        let mut at = 0;
        loop {
            let instruction = &program[at];
            let (dst, src) = (
                usize::from(instruction.registers & 15),
                usize::from(instruction.registers >> 4),
            );
            // The kernel extends the sign.
            let immediate = i64::from(instruction.immediate).cast_unsigned();
            at += 1;
            match instruction.code {
                code::LOAD_WORD => {
                    registers[dst] = context[instruction.offset as usize / 4].into();
                }
                code::MOVE => registers[dst] = registers[src],
                code::SET => registers[dst] = immediate,
                code::AND => registers[dst] &= immediate,
                code::SHIFT_RIGHT => registers[dst] >>= immediate,
                code::UNLESS if registers[dst] != immediate => at += instruction.offset as usize,
                code::UNLESS => {}
                code::EXIT => return registers[0] == 1,
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_lets_through_what_the_rules_say() {
        let disk = Rule {
            is_block: true,
            major: 8,
            minor: Some(1),
            access: READ,
        };
        for (rules, is_block, major, minor, access, expected) in [
            (&[][..], false, 1, 3, READ | WRITE, true),
            (&[], false, 136, 77, READ | WRITE, true),
            (&[], false, 1, 11, READ, false),
            (&[], true, 1, 3, READ, false),
            (&[], true, 8, 1, READ, false),
            (&[], true, 8, 1, MAKE, true),
            (&[], true, 8, 1, MAKE | READ, false),
            (&[disk], true, 8, 1, READ, true),
            (&[disk], true, 8, 1, READ | WRITE, false),
            (&[disk], true, 8, 2, READ, false),
            (&[disk], false, 8, 1, READ, false),
            (&[disk], false, 1, 5, READ, true),
        ] {
            assert_eq!(
                allows(rules, is_block, major, minor, access),
                expected,
                "{is_block} {major}:{minor} {access} {rules:?}"
            );
        }
        let lines: Vec<String> = lines(&[disk]).collect();
        assert_eq!(lines.last().unwrap(), "b 8:1 r");
        assert!(lines.contains(&"c 136:* rwm".to_owned()));
    }
}
