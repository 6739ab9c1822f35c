//! Where results go: files that appear when they are complete, or streams.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use larder_tree::bulk::BulkFile;

use crate::error::{BuildError, ErrorClass, Result};
use crate::request::Destination;

/// How much is written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a result with `work`. A file is written under a temporary name beside it; if the work
/// fails, what was there before stays.
pub(crate) fn write(
    destination: Destination,
    work: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    match destination {
        Destination::Stream(stream) => {
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, stream);
            work(&mut out)?;
            out.flush().map_err(failed)
        }
        Destination::File(path) => write_file(&path, work),
    }
}

fn write_file(path: &Path, work: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let at = |source: io::Error| cannot_write(&format!("`{}`", path.display()), source);
    // A device or a pipe is written as it is.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at)?;
        return write(Destination::Stream(Box::new(file)), work);
    }
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let file = std::fs::File::create(&temporary).map_err(at)?;
    let mut out = BulkFile::new(file, 0);
    let done = work(&mut out)
        .and_then(|()| out.flush().map_err(at))
        .and_then(|()| std::fs::rename(&temporary, path).map_err(at));
    if done.is_err() {
        // The first error tells more than a left-over would.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

/// Returns the error of an output that can't be written.
pub(crate) fn failed(source: io::Error) -> BuildError {
    cannot_write("the output", source)
}

fn cannot_write(what: &str, source: io::Error) -> BuildError {
    let class = match source.kind() {
        io::ErrorKind::StorageFull => ErrorClass::Exhausted,
        _ => ErrorClass::Invalid,
    };
    BuildError::new(class, format!("cannot write {what}")).with_source(source)
}
