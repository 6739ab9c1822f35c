use std::str::FromStr;

use crate::{Error, ErrorKind};

/// Set-id and permission bits, which `=` replaces if it names nobody.
const STANDARD_BITS: u32 = 0o6777;

/// What a change that names nobody leaves alone, as in BuildKit.
const UMASK: u32 = 0o022;

const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

/// A change of permission bits: octal (`755`) or as of `chmod` (`u=rwX,go=rX`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange(Repr);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Repr {
    Octal(u32),
    Symbolic(Vec<Action>),
}

/// One operator with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Action {
    /// Bits of those who are named; `None` for nobody.
    who: Option<u32>,
    operator: Operator,
    /// `r`, `w`, `x`, `s` and `t`.
    bits: u32,
    /// `X`.
    execute_if_any: bool,
    /// `u`, `g` or `o`: how far its bits lie from the lowest.
    copied: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl ModeChange {
    /// Returns the change to exactly `mode`, of which only the lowest twelve bits count.
    pub fn octal(mode: u32) -> Self {
        Self(Repr::Octal(mode & 0o7777))
    }

    /// Returns the bits that a file of mode `mode` gets.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.0 {
            Repr::Octal(mode) => *mode,
            Repr::Symbolic(actions) => {
                let runs = is_dir || mode & EXECUTE != 0;
                actions
                    .iter()
                    .fold(mode, |mode, action| action.apply(mode, runs))
            }
        }
    }
}

impl FromStr for ModeChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = || Error::new(ErrorKind::InvalidInput, format!("invalid mode `{text}`"));
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| fail())?;
            return match mode {
                0..=0o7777 => Ok(Self::octal(mode)),
                _ => Err(fail()),
            };
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut actions).ok_or_else(fail)?;
        }
        Ok(Self(Repr::Symbolic(actions)))
    }
}

fn parse_clause(clause: &str, actions: &mut Vec<Action>) -> Option<()> {
    let start = clause.find(['+', '-', '='])?;
    let (names, mut rest) = clause.split_at(start);
    let mut who = 0;
    for name in names.chars() {
        who |= match name {
            'a' => STANDARD_BITS,
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => return None,
        };
    }
    let who = (!names.is_empty()).then_some(who);
    while let Some(operator) = rest.chars().next() {
        let operator = match operator {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            '=' => Operator::Set,
            _ => return None,
        };
        let end = rest[1..]
            .find(['+', '-', '='])
            .map_or(rest.len(), |end| end + 1);
        actions.push(Action::parse(who, operator, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(())
}

impl Action {
    fn parse(who: Option<u32>, operator: Operator, permissions: &str) -> Option<Self> {
        let mut action = Self {
            who,
            operator,
            bits: 0,
            execute_if_any: false,
            copied: Vec::new(),
        };
        // Set-id and sticky bits mean nothing for others.
        let only_others = who == Some(0o0007);
        for permission in permissions.chars() {
            match permission {
                'r' => action.bits |= 0o444,
                'w' => action.bits |= 0o222,
                'x' => action.bits |= EXECUTE,
                'X' => action.execute_if_any = true,
                's' | 't' if only_others => {}
                's' => action.bits |= 0o6000,
                't' => {
                    action.bits |= STICKY;
                    action.who = who.map(|who| who | STICKY);
                }
                'u' => action.copied.push(6),
                'g' => action.copied.push(3),
                'o' => action.copied.push(0),
                _ => return None,
            }
        }
        Some(action)
    }

    /// `runs` tells whether the file is a directory or could be executed before any change.
    fn apply(&self, mode: u32, runs: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute_if_any && runs {
            bits |= EXECUTE;
        }
        for shift in &self.copied {
            bits |= (mode >> shift & 0o7) * EXECUTE;
        }
        bits &= self.who.unwrap_or(!UMASK);
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.who.unwrap_or(STANDARD_BITS) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_modes_as_chmod_does() {
        for (change, mode, is_dir, expected) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("0", 0o777, true, 0),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o100, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("g+w,o=", 0o644, false, 0o660),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o644),
            ("-w", 0o666, false, 0o466),
            ("go-rwx", 0o777, true, 0o700),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("o+s,o+t", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("u=rw", 0o4755, false, 0o655),
            ("g=u", 0o640, false, 0o660),
            ("u+x-w", 0o600, false, 0o500),
            ("a=rX", 0o711, false, 0o555),
        ] {
            let parsed: ModeChange = change.parse().unwrap();
            let applied = parsed.apply(mode, is_dir);
            assert_eq!(applied, expected, "{change} on {mode:o}: {applied:o}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_mode() {
        for bad in [
            "",
            "8",
            "10000",
            "755x",
            "u",
            "u=q",
            "z+x",
            ",",
            "u=r,",
            "77777777777777",
        ] {
            assert!(bad.parse::<ModeChange>().is_err(), "{bad}");
        }
    }
}
