use crate::args;
use crate::flags::FlagKind::{Bool, List, Text};
use crate::flags::{FlagKind, Flags};
use crate::heredoc::Heredoc;
use crate::instruction::{Copy, Document};
use crate::statement::Statement;

const COPY_FLAGS: [(&str, FlagKind); 6] = [
    ("chown", Text),
    ("from", Text),
    ("chmod", Text),
    ("link", Bool),
    ("parents", Bool),
    ("exclude", List),
];
const ADD_FLAGS: [(&str, FlagKind); 7] = [
    ("chown", Text),
    ("chmod", Text),
    ("link", Bool),
    ("keep-git-dir", Bool),
    ("checksum", Text),
    ("unpack", Bool),
    ("exclude", List),
];

/// Parses COPY or ADD.
pub(super) fn parse(statement: &Statement) -> Result<Copy, String> {
    let is_add = statement.is("ADD");
    let keyword = if is_add { "ADD" } else { "COPY" };
    let json = args::json_strings(&statement.rest)?;
    let is_json = json.is_some();
    let mut words = json.unwrap_or_else(|| args::split_blank(&statement.rest));
    let destination = match words.pop() {
        Some(last) if !words.is_empty() => last,
        _ => {
            return Err(format!(
                "{keyword} requires at least two arguments, but only one was provided. \
                 Destination could not be determined"
            ));
        }
    };
    let known: &[_] = if is_add { &ADD_FLAGS } else { &COPY_FLAGS };
    let flags = Flags::parse(&statement.flags, known)?;
    let text = |name| flags.text(name).unwrap_or_default().to_owned();
    let mut copy = Copy {
        is_add,
        from: flags
            .text("from")
            .filter(|t| !t.is_empty())
            .map(str::to_owned),
        destination,
        chown: text("chown"),
        chmod: text("chmod"),
        checksum: text("checksum"),
        link: flags.bool("link").unwrap_or_default(),
        parents: flags.bool("parents").unwrap_or_default(),
        unpack: flags.bool("unpack"),
        keep_git_dir: flags.bool("keep-git-dir"),
        exclude: flags.list("exclude").map(str::to_owned).collect(),
        ..Copy::default()
    };
    if is_json {
        copy.sources = words;
        return Ok(copy);
    }
    if matches!(Heredoc::parse(&copy.destination), Ok(Some(_))) {
        return Err(format!(
            "{keyword} cannot accept a heredoc as a destination"
        ));
    }
    for word in words {
        let named = Heredoc::parse(&word).ok().flatten();
        let found = named.and_then(|named| {
            let mut documents = statement.heredocs.iter();
            documents.rfind(|heredoc| heredoc.name == named.name)
        });
        match found {
            Some(heredoc) => copy.documents.push(Document {
                name: heredoc.name.clone(),
                content: heredoc.body(),
                expand: heredoc.expand,
            }),
            None => copy.sources.push(word),
        }
    }
    Ok(copy)
}
