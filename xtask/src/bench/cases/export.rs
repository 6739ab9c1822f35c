//! Cases that write archives.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use larder_testkit::write_tree;

use super::{change_example, copy_example};
use crate::bench::Place;
use crate::bench::measure::{measure, peak_bytes};
use crate::bench::report::Row;
use crate::bench::tool::{Compression, Tool};
use crate::run::workspace;

const LAYER_FILES: usize = 2000;
const LAYER_FILE_BYTES: usize = 1 << 20;
/// What of a real file stays together in a made-up one: a page.
const PART_BYTES: usize = 4096;

/// A layer of 2 GB, as an OCI archive: when it is new, when one of its files changed, and when a
/// file of a later layer did.
pub(super) fn large(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let context = place.contexts.join("export");
    let dockerfile = "FROM busybox\nCOPY data /data\nCOPY app /app\n";
    write_tree(&context, &[("Dockerfile", dockerfile), ("app/main", "0\n")]);
    fs::create_dir(context.join("data"))?;
    let path = |number: usize| context.join(format!("data/{number:04}"));
    let mut maker = Content::new(&place.program)?;
    for number in 0..LAYER_FILES {
        fs::write(path(number), maker.file(number))?;
    }
    let archive = place.contexts.join("export.tar");
    let command = |compression| tool.export(&place.state, &context, &archive, compression);
    let export = |compression| measure(&mut command(compression));
    let build_and_export = || {
        measure(&mut tool.build_layers(&place.state, &context))?;
        export(Compression::Gzip)
    };
    let first = Row::measure("2 GB layer to a gzip OCI tar", 1, |_| build_and_export())?;
    let again = Row::measure("again, unchanged", 1, |_| export(Compression::Gzip))?;
    let zstd = Row::measure("the same to a zstd OCI tar", 1, |_| {
        export(Compression::Zstd)
    })?;
    // At the beginning, in the middle, at the end: each round's elsewhere.
    let number = LAYER_FILES / 6 + LAYER_FILES / 3 * (place.round % 3);
    let in_layer = Row::measure("again with gzip, one file changed", 1, |_| {
        fs::write(path(number), maker.file(number))?;
        build_and_export()
    })?;
    let above = Row::measure("again, one file above changed", 1, |_| {
        fs::write(context.join("app/main"), "1\n")?;
        build_and_export()
    })?;
    for number in 0..LAYER_FILES {
        fs::write(path(number), maker.file(number))?;
    }
    measure(&mut tool.build_layers(&place.state, &context))?;
    let peak = peak_bytes(&command(Compression::Gzip))?;
    Ok(vec![first.with_peak(peak), again, zstd, in_layer, above])
}

/// The example service to an archive: first, and with one file changed.
pub(super) fn smartdiet(tool: &Tool, place: &Place) -> Result<Vec<Row>> {
    let context = place.contexts.join("export-smartdiet");
    copy_example(&context, "requirements.txt")?;
    let archive = place.contexts.join("export-smartdiet.tar");
    let build_and_export = || {
        measure(&mut tool.build_layers(&place.state, &context))?;
        measure(&mut tool.export(&place.state, &context, &archive, Compression::Gzip))
    };
    Ok(vec![
        Row::measure("guide's image to an OCI tar", 1, |_| build_and_export())?,
        Row::measure("again, one file changed", tool.runs(), |run| {
            change_example(&context, run)?;
            build_and_export()
        })?,
    ])
}

/// Makes files that compress as those of real layers do: parts of programs and of texts in an
/// order of their own, and what is compressed already.
pub(super) struct Content {
    programs: Vec<u8>,
    texts: Vec<u8>,
    state: u64,
}

impl Content {
    pub(super) fn new(program: &Path) -> Result<Self> {
        let mut texts = Vec::new();
        let sources = fs::read_dir(workspace().join("crates/larder-dockerfile/src"))?;
        let mut sources = sources
            .map(|source| Ok(source?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        sources.sort();
        for source in sources.iter().filter(|source| source.is_file()) {
            texts.extend(fs::read(source)?);
        }
        Ok(Self {
            programs: fs::read(program)?,
            texts,
            state: 1,
        })
    }

    /// Returns the next file; its number says of which kind it is.
    pub(super) fn file(&mut self, number: usize) -> Vec<u8> {
        let mut file = Vec::with_capacity(LAYER_FILE_BYTES + PART_BYTES);
        while file.len() < LAYER_FILE_BYTES {
            let random = self.random();
            let from = match number % 20 {
                0..9 => &self.programs,
                9..14 => &self.texts,
                _ => {
                    file.extend(random.to_le_bytes());
                    continue;
                }
            };
            let parts = from.len() / PART_BYTES;
            let start = random as usize % parts * PART_BYTES;
            file.extend_from_slice(&from[start..start + PART_BYTES]);
        }
        file
    }

    /// Returns the next number of a xorshift generator, whose output doesn't compress.
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
