use std::io::Read;

use super::block::{BLOCK_SIZE, Block, parse_number};
use super::pax::malformed;
use crate::{Error, ErrorKind, Result};

/// How many runs of data a sparse file may have.
const MAX_SEGMENTS: usize = 1 << 20;

/// How large a sparse file may say it is; its holes cost the archive nothing.
const MAX_SPARSE_BYTES: u64 = 1 << 40;

/// Bytes of one line of a sparse map: the digits of the largest number, and a newline.
const MAX_MAP_LINE: usize = 21;

const GNU_SPARSE_MAP: std::ops::Range<usize> = 386..482;
const GNU_IS_EXTENDED: usize = 482;
const GNU_REAL_SIZE: std::ops::Range<usize> = 483..495;
const EXTENSION_MAP: std::ops::Range<usize> = 0..504;
const EXTENSION_IS_EXTENDED: usize = 504;

/// A run of data of a file, in bytes; what lies between the runs is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// The sparse file that PAX records describe.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    /// 1 if the map stands before the data; else it is in the records.
    pub(super) major: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Option<Vec<Segment>>,
    pending_offset: Option<u64>,
}

/// A file's runs of data and its size with holes.
pub(super) struct SparseMap {
    pub(super) segments: Vec<Segment>,
    pub(super) real_size: u64,
}

impl PaxSparse {
    pub(super) fn add_offset(&mut self, offset: u64) -> Result<()> {
        match self.pending_offset.replace(offset) {
            None => Ok(()),
            Some(_) => Err(malformed("a sparse map")),
        }
    }

    pub(super) fn add_length(&mut self, length: u64) -> Result<()> {
        let offset = self.pending_offset.take();
        let offset = offset.ok_or_else(|| malformed("a sparse map"))?;
        let map = self.map.get_or_insert_default();
        map.push(Segment { offset, length });
        Ok(())
    }
}

impl SparseMap {
    /// Returns the map of an entry with PAX records, `None` if it isn't sparse. Of the `stored`
    /// bytes of contents, those of a map before the data are consumed.
    pub(super) fn from_pax(
        sparse: PaxSparse,
        data: &mut impl Read,
        stored: &mut u64,
    ) -> Result<Option<Self>> {
        let segments = match (sparse.map, sparse.major) {
            (Some(map), _) => map,
            (None, Some(1)) => read_leading_map(data, stored)?,
            (None, _) => return Ok(None),
        };
        let real_size = sparse.real_size;
        let real_size = real_size.ok_or_else(|| malformed("a sparse file without size"))?;
        Self::check(segments, real_size, *stored).map(Some)
    }

    /// Returns the map of an entry of GNU's old sparse type; further map blocks are read from
    /// `data`.
    pub(super) fn from_gnu(block: &Block, data: &mut impl Read, stored: u64) -> Result<Self> {
        let mut segments = Vec::new();
        add_fields(&mut segments, &block.0[GNU_SPARSE_MAP])?;
        let mut is_extended = block.0[GNU_IS_EXTENDED] != 0;
        while is_extended {
            let mut extension = Block::ZERO;
            data.read_exact(&mut extension.0)
                .map_err(|error| Error::io("cannot read a sparse map", error))?;
            add_fields(&mut segments, &extension.0[EXTENSION_MAP])?;
            is_extended = extension.0[EXTENSION_IS_EXTENDED] != 0;
        }
        let real_size = u64::try_from(block.number(GNU_REAL_SIZE)?)
            .map_err(|_| malformed("a sparse file of negative size"))?;
        Self::check(segments, real_size, stored)
    }

    fn check(mut segments: Vec<Segment>, real_size: u64, stored: u64) -> Result<Self> {
        if real_size > MAX_SPARSE_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a sparse file has more than {MAX_SPARSE_BYTES} bytes"),
            ));
        }
        segments.retain(|segment| segment.length > 0);
        let mut end = 0_u64;
        let mut total = 0_u64;
        for segment in &segments {
            if segment.offset < end {
                return Err(malformed("overlapping sparse segments"));
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .filter(|end| *end <= real_size)
                .ok_or_else(|| malformed("a sparse segment beyond the end of its file"))?;
            total += segment.length;
        }
        if total > stored {
            return Err(malformed("a sparse map that is longer than the data"));
        }
        Ok(Self {
            segments,
            real_size,
        })
    }
}

fn add_fields(segments: &mut Vec<Segment>, fields: &[u8]) -> Result<()> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let number = |field: &[u8]| {
            u64::try_from(parse_number(field)?).map_err(|_| malformed("a sparse map"))
        };
        push(segments, number(&pair[..12])?, number(&pair[12..])?)?;
    }
    Ok(())
}

fn push(segments: &mut Vec<Segment>, offset: u64, length: u64) -> Result<()> {
    if segments.len() == MAX_SEGMENTS {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("a sparse file has more than {MAX_SEGMENTS} segments"),
        ));
    }
    segments.push(Segment { offset, length });
    Ok(())
}

/// Reads the map of sparse format 1.0: decimal lines, padded to whole blocks, before the data.
fn read_leading_map(data: &mut impl Read, stored: &mut u64) -> Result<Vec<Segment>> {
    let mut lines = MapLines {
        data,
        stored,
        block: [0; BLOCK_SIZE],
        at: BLOCK_SIZE,
    };
    let count = lines.next_number()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        push(&mut segments, lines.next_number()?, lines.next_number()?)?;
    }
    Ok(segments)
}

struct MapLines<'a, R> {
    data: &'a mut R,
    stored: &'a mut u64,
    block: [u8; BLOCK_SIZE],
    at: usize,
}

impl<R: Read> MapLines<'_, R> {
    fn next_number(&mut self) -> Result<u64> {
        let mut line = String::new();
        while line.len() < MAX_MAP_LINE {
            match self.next_byte()? {
                b'\n' => return line.parse().map_err(|_| malformed("a sparse map")),
                byte => line.push(char::from(byte)),
            }
        }
        Err(malformed("a sparse map"))
    }

    fn next_byte(&mut self) -> Result<u8> {
        if self.at == BLOCK_SIZE {
            *self.stored = self
                .stored
                .checked_sub(BLOCK_SIZE as u64)
                .ok_or_else(|| malformed("a sparse map that is longer than the data"))?;
            self.data
                .read_exact(&mut self.block)
                .map_err(|error| Error::io("cannot read a sparse map", error))?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}
