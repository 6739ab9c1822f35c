//! One line for one file: the language in which cases tell what a context or an archive holds, and
//! what an image must hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};

/// The most of a file's content that is shown; of longer files the size is.
const MAX_CONTENT_BYTES: usize = 300;

/// A file of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Without a `/` at its end.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds since 1970; `None` if it does not matter.
    pub(crate) mtime: Option<i64>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    /// A file of so many bytes; which ones does not matter. Written as a hole.
    Size(u64),
    Directory,
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    HardLink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// It is not there.
    Gone,
}

impl Entry {
    pub(crate) fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            mode: default_mode(&kind),
            kind,
            owner: (0, 0),
            mtime: None,
            xattrs: BTreeMap::new(),
        }
    }

    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let mut tokens = tokens(line)?.into_iter();
        let path = tokens.next().context("no path")?;
        let mut path = path.bytes;
        if path.starts_with(b"!") {
            ensure!(tokens.next().is_none(), "nothing may follow `!PATH`");
            return Ok(Self::new(&path[1..], Kind::Gone));
        }
        let mut kind = Kind::File(Vec::new());
        if path.ends_with(b"/") && path.len() > 1 {
            path.pop();
            kind = Kind::Directory;
        }
        let mut entry = Self::new(path, kind);
        let mut mode = None;
        while let Some(token) = tokens.next() {
            let text = String::from_utf8_lossy(&token.bytes).into_owned();
            match text.split_once('=') {
                _ if token.starts_quoted => entry.kind = Kind::File(token.bytes),
                _ if text == "->" || text == "=>" => {
                    let target = tokens.next().context("no target")?.bytes;
                    entry.kind = match text.as_str() {
                        "->" => Kind::Symlink(target),
                        _ => Kind::HardLink(target),
                    };
                }
                None if text == "fifo" => entry.kind = Kind::Fifo,
                None if text.contains(':') => entry.owner = pair(&text)?,
                None => mode = Some(octal(&text)?),
                Some(("char", id)) => {
                    let (major, minor) = pair(id)?;
                    entry.kind = Kind::Char(major, minor);
                }
                Some(("block", id)) => {
                    let (major, minor) = pair(id)?;
                    entry.kind = Kind::Block(major, minor);
                }
                Some(("size", size)) => entry.kind = Kind::Size(size.parse()?),
                Some(("mtime", time)) => entry.mtime = Some(time.parse()?),
                Some((name, _)) if name.contains('.') => {
                    let value = token.bytes[name.len() + 1..].to_vec();
                    entry.xattrs.insert(name.to_owned(), value);
                }
                Some(_) => bail!("`{text}` means nothing"),
            }
        }
        entry.mode = mode.unwrap_or_else(|| default_mode(&entry.kind));
        Ok(entry)
    }

    /// Makes what `expected`, the same path in a case, does not tell no part of the comparison.
    pub(crate) fn seen_by(&mut self, expected: Option<&Self>) {
        if expected.is_none_or(|expected| expected.mtime.is_none()) {
            self.mtime = None;
        }
        let wants_size = matches!(
            expected,
            Some(Self {
                kind: Kind::Size(_),
                ..
            })
        );
        let wants_content =
            matches!(expected, Some(Self { kind: Kind::File(content), .. }) if !content.is_empty());
        if let Kind::File(content) = &self.kind
            && (wants_size || (content.len() > MAX_CONTENT_BYTES && !wants_content))
        {
            self.kind = Kind::Size(content.len() as u64);
        }
    }

    /// Returns its line.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        let mut path = self.path.clone();
        match self.kind {
            Kind::Gone => path.insert(0, b'!'),
            Kind::Directory if path != b"/" => path.push(b'/'),
            _ => {}
        }
        quote_if_needed(&mut line, &path);
        if matches!(self.kind, Kind::Gone) {
            return line;
        }
        if let Kind::HardLink(target) = &self.kind {
            line.push_str(" => ");
            quote_if_needed(&mut line, target);
            return line;
        }
        if self.mode != default_mode(&self.kind) {
            push(&mut line, format_args!("{:04o}", self.mode));
        }
        if self.owner != (0, 0) {
            push(&mut line, format_args!("{}:{}", self.owner.0, self.owner.1));
        }
        match self.kind {
            Kind::Char(major, minor) => push(&mut line, format_args!("char={major}:{minor}")),
            Kind::Block(major, minor) => push(&mut line, format_args!("block={major}:{minor}")),
            Kind::Fifo => push(&mut line, format_args!("fifo")),
            Kind::Size(size) => push(&mut line, format_args!("size={size}")),
            _ => {}
        }
        if let Some(mtime) = self.mtime {
            push(&mut line, format_args!("mtime={mtime}"));
        }
        for (name, value) in &self.xattrs {
            push(&mut line, format_args!("{name}="));
            quote(&mut line, value);
        }
        match &self.kind {
            Kind::Symlink(target) => {
                line.push_str(" -> ");
                quote_if_needed(&mut line, target);
            }
            Kind::File(content) if !content.is_empty() => {
                line.push(' ');
                quote(&mut line, content);
            }
            _ => {}
        }
        line
    }
}

fn pair(text: &str) -> Result<(u32, u32)> {
    let pair = text.split_once(':');
    let (a, b) = pair.with_context(|| format!("`{text}` is no pair"))?;
    Ok((a.parse()?, b.parse()?))
}

fn octal(text: &str) -> Result<u32> {
    u32::from_str_radix(text, 8).with_context(|| format!("`{text}` means nothing"))
}

fn default_mode(kind: &Kind) -> u32 {
    match kind {
        Kind::Directory => 0o755,
        Kind::Symlink(_) => 0o777,
        _ => 0o644,
    }
}

/// Splits a line at the spaces that stand in no quotes.
pub(crate) fn words(line: &str) -> Result<Vec<String>> {
    let words = tokens(line)?.into_iter();
    words
        .map(|token| Ok(String::from_utf8(token.bytes)?))
        .collect()
}

struct Token {
    bytes: Vec<u8>,
    starts_quoted: bool,
}

/// Splits a line at spaces. What is between double quotes may hold spaces, and `\n`, `\t`, `\r`,
/// `\"`, `\\` and `\xHH`.
fn tokens(line: &str) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = line.trim_start().bytes().peekable();
    while let Some(&first) = rest.peek() {
        let mut token = Token {
            bytes: Vec::new(),
            starts_quoted: first == b'"',
        };
        let mut quoted = false;
        while let Some(byte) = rest.next_if(|byte| quoted || *byte != b' ') {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => token.bytes.push(escaped(&mut rest)?),
                _ => token.bytes.push(byte),
            }
        }
        ensure!(!quoted, "a quote is open");
        found.push(token);
        while rest.next_if_eq(&b' ').is_some() {}
    }
    Ok(found)
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> Result<u8> {
    Ok(match rest.next() {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(byte @ (b'"' | b'\\')) => byte,
        Some(b'x') => {
            let digits: Vec<u8> = rest.take(2).collect();
            u8::from_str_radix(std::str::from_utf8(&digits)?, 16)
                .context("`\\x` needs two digits")?
        }
        _ => bail!("an escape that means nothing"),
    })
}

fn quote_if_needed(line: &mut String, bytes: &[u8]) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'"';
    if !bytes.is_empty() && bytes.iter().all(plain) {
        line.extend(bytes.iter().copied().map(char::from));
    } else {
        quote(line, bytes);
    }
}

fn quote(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => line.push_str("\\n"),
                '\t' => line.push_str("\\t"),
                '\r' => line.push_str("\\r"),
                '"' => line.push_str("\\\""),
                '\\' => line.push_str("\\\\"),
                c if c.is_control() => push_hex(line, c.to_string().as_bytes()),
                c => line.push(c),
            }
        }
        push_hex(line, chunk.invalid());
    }
    line.push('"');
}

fn push(line: &mut String, word: std::fmt::Arguments<'_>) {
    write!(line, " {word}").expect("text can be written to");
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(line, "\\x{byte:02x}").expect("text can be written to");
    }
}
