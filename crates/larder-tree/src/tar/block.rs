use std::ops::Range;

use crate::{Error, ErrorKind, Result};

/// Size of a header and of the unit that contents are padded to.
pub(super) const BLOCK_SIZE: usize = 512;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE_FLAG: usize = 156;
pub(super) const LINK_NAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
pub(super) const DEV_MAJOR: Range<usize> = 329..337;
pub(super) const DEV_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// star keeps times in the end of the prefix, and marks that with a trailer.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;

const USTAR_MAGIC: &[u8; 6] = b"ustar\0";

/// One block of an archive, seen as a header.
#[derive(Clone)]
pub(super) struct Block(pub(super) [u8; BLOCK_SIZE]);

impl Block {
    pub(super) const ZERO: Self = Self([0; BLOCK_SIZE]);

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[TYPE_FLAG]
    }

    /// Returns whether the checksum is right. Some old tools sum signed bytes.
    pub(super) fn has_valid_checksum(&self) -> bool {
        let Ok(stored) = self.number(CHECKSUM) else {
            return false;
        };
        let signed = || -> i64 {
            let bytes = self.summed();
            bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum()
        };
        stored == i64::from(self.checksum()) || stored == signed()
    }

    /// Returns the name, with the prefix where the format has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        if self.0[MAGIC][..6] != *USTAR_MAGIC {
            return name.to_vec();
        }
        let prefix = if self.0[STAR_TRAILER] == *b"tar\0" {
            self.text(STAR_PREFIX)
        } else {
            self.text(PREFIX)
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    /// Returns a field up to its first NUL.
    pub(super) fn text(&self, field: Range<usize>) -> &[u8] {
        let field = &self.0[field];
        let end = field.iter().position(|byte| *byte == 0);
        &field[..end.unwrap_or(field.len())]
    }

    /// Returns a field's number: octal digits, or base 256 where the first bit is set.
    pub(super) fn number(&self, field: Range<usize>) -> Result<i64> {
        parse_number(&self.0[field])
    }

    pub(super) fn set_type_flag(&mut self, flag: u8) {
        self.0[TYPE_FLAG] = flag;
    }

    /// Writes `text`, cut to the field.
    ///
    /// A cut must not leave a slash at the end: readers would take a file for a directory.
    pub(super) fn set_text(&mut self, field: Range<usize>, text: &[u8]) {
        let field = &mut self.0[field];
        let kept = text.len().min(field.len());
        field[..kept].copy_from_slice(&text[..kept]);
        if text.len() > field.len() {
            for byte in field.iter_mut().rev().take_while(|byte| **byte == b'/') {
                *byte = 0;
            }
        }
    }

    /// Writes `number` in octal with leading zeros and a NUL; 0 if it doesn't fit.
    pub(super) fn set_number(&mut self, field: Range<usize>, number: i64) {
        let number = if fits_octal(&field, number) {
            number.cast_unsigned()
        } else {
            0
        };
        if let Some((_, digits)) = self.0[field].split_last_mut() {
            write_octal(digits, number);
        }
    }

    /// Marks the block as ustar and writes the checksum, which ends in NUL and space.
    pub(super) fn seal(&mut self) {
        self.0[MAGIC].copy_from_slice(b"ustar\x0000");
        let sum = self.checksum();
        let field = &mut self.0[CHECKSUM];
        field.copy_from_slice(b"000000\0 ");
        write_octal(&mut field[..6], sum.into());
    }

    fn checksum(&self) -> u32 {
        self.summed().iter().map(|byte| u32::from(*byte)).sum()
    }

    /// Returns what the checksum is the sum of: itself counts as spaces.
    fn summed(&self) -> [u8; BLOCK_SIZE] {
        let mut bytes = self.0;
        bytes[CHECKSUM].fill(b' ');
        bytes
    }
}

/// Fills `digits` with a number in octal, which has no more of them.
fn write_octal(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

/// Returns whether `number` can be written into `field` in octal, with its NUL.
pub(super) fn fits_octal(field: &Range<usize>, number: i64) -> bool {
    number >= 0 && number < 1 << (3 * (field.len() - 1))
}

/// Returns how many bytes pad `size` to whole blocks.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_SIZE as u64
}

pub(super) fn parse_number(field: &[u8]) -> Result<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => parse_base256(*first, rest),
        _ => parse_octal(field),
    }
    .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "malformed number in a tar header"))
}

/// The bits after the first are a big-endian number in two's complement.
fn parse_base256(first: u8, rest: &[u8]) -> Option<i64> {
    let negative = first & 0x40 != 0;
    let start = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    rest.iter().try_fold(start, |number, byte| {
        number.checked_mul(256)?.checked_add(i64::from(*byte))
    })
}

fn parse_octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_blank(byte));
    let Some(start) = start else { return Some(0) };
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |number, digit| {
        let digit = char::from(*digit).to_digit(8)?;
        number.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_tools_write_them() {
        let check = |field: &[u8], expect: Option<i64>| {
            assert_eq!(parse_number(field).ok(), expect, "{field:?}");
        };
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"644\0junk", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"77777777", Some(0o77_777_777));
        check(b"00009\0", None);
        check(b"\x80\0\0\0\0\0\x01\0", Some(256));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1));
        check(
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some(i64::MAX),
        );
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None);
        check(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN));
    }

    #[test]
    fn numbers_that_do_not_fit_are_written_as_zero() {
        let mut block = Block::ZERO;
        block.set_number(UID, 0o7_777_777);
        assert_eq!(&block.0[UID], b"7777777\0");
        block.set_number(UID, 0o10_000_000);
        assert_eq!(&block.0[UID], b"0000000\0");
    }
}
