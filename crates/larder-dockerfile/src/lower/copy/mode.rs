//! `--chmod`.

use crate::error::Error;

/// The mode that copied files are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mode {
    /// The permission bits; -1 keeps each file's own.
    pub(super) bits: i32,
    /// A change in symbols, such as `u=rwX,go=rX`; empty if there is none.
    pub(super) symbols: String,
}

const MAX_BITS: u32 = 0o7777;

/// Reads an octal number or a list of symbolic changes; the empty text keeps modes as they are.
pub(super) fn parse(text: &str) -> Result<Mode, Error> {
    if text.is_empty() {
        return Ok(Mode {
            bits: -1,
            symbols: String::new(),
        });
    }
    if text.bytes().all(|c| c.is_ascii_digit()) {
        let bits = u32::from_str_radix(text, 8).ok();
        let Some(bits) = bits.filter(|&bits| bits <= MAX_BITS) else {
            return Err(Error::dockerfile(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            )));
        };
        return Ok(Mode {
            bits: bits as i32,
            symbols: String::new(),
        });
    }
    if !text.split(',').all(is_change) {
        return Err(Error::dockerfile(format!(
            "invalid chmod parameter: '{text}'. it should be an octal number or symbolic changes such as `u=rwX,go=rX`"
        )));
    }
    Ok(Mode {
        bits: 0,
        symbols: text.to_owned(),
    })
}

/// Checks `[ugoa]*([-+=][rwxXstugo]*)+`.
fn is_change(text: &str) -> bool {
    let changes = text.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut operators = changes.split(['+', '-', '=']);
    operators.next() == Some("")
        && !changes.is_empty()
        && operators.all(|permissions| permissions.chars().all(|c| "rwxXstugo".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for (text, bits, symbols) in [
            ("", -1, ""),
            ("0", 0, ""),
            ("0755", 0o755, ""),
            ("7777", 0o7777, ""),
            ("u=rwX,go=rX", 0, "u=rwX,go=rX"),
            ("g+w,o=", 0, "g+w,o="),
            ("+x", 0, "+x"),
            ("a-x+r", 0, "a-x+r"),
        ] {
            let mode = parse(text).unwrap();
            assert_eq!(
                (mode.bits, mode.symbols.as_str()),
                (bits, symbols),
                "{text}"
            );
        }
        for bad in [
            "888",
            "10000",
            "u",
            "u=z",
            "rwx",
            "u=r,,g=w",
            "é",
            "u+x,",
            "99999999999",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
