//! What is registered with the kernel for programs that it can't run itself.

use std::path::{Path, PathBuf};

/// Bytes of a program that the kernel looks at.
const HEADER_BYTES: usize = 64;

/// An interpreter of programs with certain first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handler {
    pub(super) interpreter: PathBuf,
    /// Whether the kernel has it open already: it need not be found in a container (flag `F`).
    pub(super) is_fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    /// Which bits count; all if it is empty.
    mask: Vec<u8>,
}

impl Handler {
    /// Returns those that are enabled, by what the kernel says of them in `directory`.
    pub(super) fn registered(directory: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return Vec::new();
        };
        let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        texts.filter_map(|text| Self::parse(&text)).collect()
    }

    /// Parses what the kernel says of one; `None` if it is disabled, or goes by the file's name.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some("enabled") {
            return None;
        }
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(' ')).collect();
        let field = |name: &str| {
            let mut found = fields.iter().filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| value.trim())
        };
        let mask = field("mask").map_or(Some(Vec::new()), hex)?;
        Some(Self {
            interpreter: PathBuf::from(field("interpreter")?),
            is_fixed: field("flags:").is_some_and(|flags| flags.contains('F')),
            offset: field("offset")?.parse().ok()?,
            magic: hex(field("magic")?)?,
            mask,
        })
    }

    /// Returns whether it takes programs that begin so.
    pub(super) fn takes(&self, header: &[u8; HEADER_BYTES]) -> bool {
        let Some(bytes) = header.get(self.offset..self.offset + self.magic.len()) else {
            return false;
        };
        let masks = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        bytes
            .iter()
            .zip(&self.magic)
            .zip(masks)
            .all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }
}

/// Returns how programs for an architecture begin: an ELF header, as far as it tells the machine.
pub(super) fn header(architecture: &str) -> Option<[u8; HEADER_BYTES]> {
    const EXECUTABLE: u16 = 2;
    let (bits, is_big_endian, machine): (u8, bool, u16) = match architecture {
        "386" => (32, false, 3),
        "mips64" => (64, true, 8),
        "mips64le" => (64, false, 8),
        "ppc64" => (64, true, 21),
        "ppc64le" => (64, false, 21),
        "s390x" => (64, true, 22),
        "arm" => (32, false, 40),
        "amd64" => (64, false, 62),
        "arm64" => (64, false, 183),
        "riscv64" => (64, false, 243),
        "loong64" => (64, false, 258),
        _ => return None,
    };
    let number = |value: u16| {
        if is_big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4] = if bits == 32 { 1 } else { 2 };
    header[5] = if is_big_endian { 2 } else { 1 };
    header[6] = 1;
    header[16..18].copy_from_slice(&number(EXECUTABLE));
    header[18..20].copy_from_slice(&number(machine));
    Some(header)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    bytes
        .map(|pair| byte(pair).filter(|_| pair.len() == 2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux shows what Debian's `qemu-user-static` registers.
    const AARCH64: &str = "enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
";
    const S390X: &str = "enabled
interpreter /usr/bin/qemu-s390x-static
flags: 
offset 0
magic 7f454c4602020100000000000000000000020016
mask ffffffffffffff00fffffffffffffffffffeffff
";

    #[test]
    fn each_takes_the_programs_of_its_architecture() {
        let takes = |text: &str| -> Vec<&str> {
            let handler = Handler::parse(text).unwrap();
            let known = [
                "amd64", "arm64", "arm", "386", "s390x", "riscv64", "ppc64le",
            ];
            let takes = |name: &&str| handler.takes(&header(name).unwrap());
            known.into_iter().filter(takes).collect()
        };
        assert_eq!(takes(AARCH64), ["arm64"]);
        assert_eq!(takes(S390X), ["s390x"]);
        let aarch64 = Handler::parse(AARCH64).unwrap();
        assert!(aarch64.is_fixed);
        let s390x = Handler::parse(S390X).unwrap();
        assert!(!s390x.is_fixed);
        assert_eq!(s390x.interpreter, Path::new("/usr/bin/qemu-s390x-static"));
    }

    #[test]
    fn what_is_no_handler_of_programs_is_passed_over() {
        for text in [
            "",
            "enabled\n",
            &AARCH64.replace("enabled", "disabled"),
            &AARCH64.replace("magic 7f", "magic 7"),
            &AARCH64.replace("offset 0", "offset x"),
            "enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n",
        ] {
            assert_eq!(Handler::parse(text), None, "{text}");
        }
        let far = AARCH64.replace("offset 0", "offset 60");
        assert!(
            !Handler::parse(&far)
                .unwrap()
                .takes(&header("arm64").unwrap())
        );
        assert_eq!(header("pdp11"), None);
    }
}
