//! Files as bytes, and places in them.

use std::io::{self, Read};
use std::path::Path;

use crate::error::Error;

/// Files that are read when none is named, each if it is there; later ones override earlier ones.
pub const DEFAULT_FILES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Larger files are refused: nobody writes them, and parsing takes memory many times their size.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A bake or compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As given; `-` for standard input.
    pub name: String,
    /// The content.
    pub text: String,
}

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The file's index.
    pub(crate) file: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Hcl,
    Json,
    Compose,
}

impl File {
    /// Reads the files `names`, relative to `directory`; those of [`DEFAULT_FILES`] that are there
    /// if `names` is empty. `-` is `stdin`; `cwd://` before a name means nothing.
    ///
    /// # Errors
    /// If a file is missing, too large or no UTF-8, or if there is none at all.
    pub fn read_all(
        names: &[String],
        directory: &Path,
        stdin: &mut dyn Read,
    ) -> Result<Vec<Self>, Error> {
        let mut files = Vec::new();
        for name in names {
            let name = name.strip_prefix("cwd://").unwrap_or(name);
            let bytes = match name {
                "-" => read_limited(stdin),
                _ => fs_err::File::open(directory.join(name))
                    .and_then(|mut file| read_limited(&mut file)),
            };
            files.push(Self::new(
                name,
                bytes.map_err(|error| unreadable(name, error))?,
            )?);
        }
        if names.is_empty() {
            files = Self::read_defaults(directory)?;
        }
        if files.is_empty() {
            return Err(Error::request("couldn't find a bake definition"));
        }
        Ok(files)
    }

    fn read_defaults(directory: &Path) -> Result<Vec<Self>, Error> {
        let mut files = Vec::new();
        for name in DEFAULT_FILES {
            match fs_err::File::open(directory.join(name))
                .and_then(|mut file| read_limited(&mut file))
            {
                Ok(bytes) => files.push(Self::new(name, bytes)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(name, error)),
            }
        }
        Ok(files)
    }

    fn new(name: &str, bytes: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::definition(format!("`{name}` is not UTF-8")))?;
        Ok(Self {
            name: name.to_owned(),
            text: text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned(),
        })
    }

    /// Returns the line and the column, both from 1, of an offset in bytes.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let before = self
            .text
            .as_bytes()
            .get(..offset)
            .unwrap_or(self.text.as_bytes());
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let line = before.split(|byte| *byte == b'\n').count();
        let column = String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count()
            + 1;
        (line as u32, column as u32)
    }

    /// Tells the format from the name, else from the content.
    pub(crate) fn format(&self) -> Format {
        let extension = Path::new(&self.name)
            .extension()
            .and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("hcl") => Format::Hcl,
            Some("json") => Format::Json,
            Some("yml" | "yaml") => Format::Compose,
            _ if self.has_services() => Format::Compose,
            _ if self.text.trim_start().starts_with('{') => Format::Json,
            _ => Format::Hcl,
        }
    }

    /// Whether a line begins with what a compose file must have, and neither HCL nor JSON can.
    fn has_services(&self) -> bool {
        self.text.lines().any(|line| {
            let after = line.strip_prefix("services").map(str::trim_start);
            after.is_some_and(|after| after.starts_with(':'))
        })
    }
}

fn read_limited(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 16 MiB",
        ));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: io::Error) -> Error {
    let shown = if name == "-" { "standard input" } else { name };
    Error::io(format!("cannot read the bake file `{shown}`"), error)
}
