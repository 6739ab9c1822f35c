//! Classic BPF programs that judge system calls.

/// One instruction; the layout of `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// The operation.
    pub(crate) code: u16,
    /// How many instructions to skip if a comparison holds.
    pub(crate) jt: u8,
    /// How many to skip if it does not.
    pub(crate) jf: u8,
    /// The operand.
    pub(crate) k: u32,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It runs.
    Allow,
    /// It fails.
    Errno(i32),
    /// It runs unless its first argument asks for a new namespace.
    Clone,
    /// It runs if its first argument is one of [`PERSONALITIES`].
    Personality,
    /// It runs if its first argument is not one of [`DENIED_FAMILIES`], nor above [`LAST_FAMILY`].
    Socket,
}

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;

/// `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Rarely used address families with a record of kernel bugs (DECnet, Econet, RDS, IRDA, WANPIPE,
/// IUCV, ISDN, PHONET, ALG, VSOCK), as the profile lists them by omission.
const DENIED_FAMILIES: [u32; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];

/// The highest address family that the profile knows.
const LAST_FAMILY: u32 = 45;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_GREATER_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// Offsets in `struct seccomp_data`; the halves of an argument are in little-endian order.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_LOW: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

const fn plain(code: u16, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// A filter under construction.
pub(super) struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// Begins a filter.
    pub(super) fn new() -> Self {
        Self {
            instructions: vec![plain(LOAD_WORD, ARCHITECTURE)],
        }
    }

    /// Adds the calls of an architecture: `(first number, action)`, ascending, the first at 0, for
    /// numbers of which only the bits of `mask` count.
    pub(super) fn architecture(&mut self, word: u32, mask: u32, ranges: &[(u32, Action)]) {
        let mut body = vec![plain(LOAD_WORD, NUMBER)];
        if mask != !0 {
            body.push(plain(AND, mask));
        }
        body.extend(search(ranges));
        self.instructions.push(jump(JUMP_EQUAL, word, 1, 0));
        self.instructions.push(plain(JUMP, body.len() as u32));
        self.instructions.extend(body);
    }

    /// Ends the filter: calls of other architectures kill the process.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.instructions
            .push(plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
        self.instructions
    }
}

/// Returns code that finds the range of the loaded number, by halving, and does its action.
fn search(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    let Some((first, action)) = ranges.get(ranges.len() / 2) else {
        return Vec::new();
    };
    if ranges.len() == 1 {
        return perform(*action);
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let below = search(below);
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![jump(JUMP_GREATER_EQUAL, *first, skip, 0)],
        Err(_) => vec![
            jump(JUMP_GREATER_EQUAL, *first, 0, 1),
            plain(JUMP, below.len() as u32),
        ],
    };
    code.extend(below);
    code.extend(search(above));
    code
}

/// Returns code that does `action` and returns.
fn perform(action: Action) -> Vec<Instruction> {
    match action {
        Action::Allow => vec![plain(RETURN, ALLOW)],
        Action::Errno(errno) => vec![plain(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)],
        Action::Clone => vec![
            plain(LOAD_WORD, ARGUMENT_LOW),
            jump(JUMP_SET, NAMESPACE_FLAGS, 0, 1),
            plain(RETURN, DENY),
            plain(RETURN, ALLOW),
        ],
        Action::Personality => one_of(&PERSONALITIES, ALLOW, DENY),
        Action::Socket => {
            let mut code = one_of(&DENIED_FAMILIES, DENY, ALLOW);
            // Before the final `RETURN ALLOW`: families above the known ones.
            let end = code.len() - 1;
            code.insert(end, jump(JUMP_GREATER_EQUAL, LAST_FAMILY + 1, 0, 1));
            code.insert(end + 1, plain(RETURN, DENY));
            code
        }
    }
}

/// Returns code that ends with `found` if the first argument is among `values`, with `otherwise` if
/// it is not, and denies arguments that need more than 32 bits.
fn one_of(values: &[u32], found: u32, otherwise: u32) -> Vec<Instruction> {
    let mut code = vec![
        plain(LOAD_WORD, ARGUMENT_HIGH),
        jump(JUMP_EQUAL, 0, 1, 0),
        plain(RETURN, DENY),
        plain(LOAD_WORD, ARGUMENT_LOW),
    ];
    for value in values {
        code.push(jump(JUMP_EQUAL, *value, 0, 1));
        code.push(plain(RETURN, found));
    }
    code.push(plain(RETURN, otherwise));
    code
}

/// Runs a filter on one call, as the kernel would.
#[cfg(test)]
pub(super) fn evaluate(filter: &[Instruction], word: u32, number: u32, argument: u64) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = filter[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LOAD_WORD => {
                accumulator = match k {
                    NUMBER => number,
                    ARCHITECTURE => word,
                    ARGUMENT_LOW => argument as u32,
                    ARGUMENT_HIGH => (argument >> 32) as u32,
                    _ => panic!("load from {k}"),
                }
            }
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER_EQUAL => branch(accumulator >= k),
            JUMP_SET => branch(accumulator & k != 0),
            RETURN => return k,
            _ => panic!("operation {code}"),
        }
    }
}
