//! Text.

use unicode_segmentation::UnicodeSegmentation as _;

use super::{Done, exactly};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::value::Value;

fn map(args: &[Value], change: impl FnOnce(&str) -> String) -> Done {
    let [text] = exactly(args)?;
    Ok(Value::String(change(&text.to_text()?)))
}

fn map_with(args: &[Value], change: impl FnOnce(&str, &str) -> String) -> Done {
    let [text, other] = exactly(args)?;
    Ok(Value::String(change(&text.to_text()?, &other.to_text()?)))
}

pub(super) fn upper(args: &[Value]) -> Done {
    map(args, str::to_uppercase)
}

pub(super) fn lower(args: &[Value]) -> Done {
    map(args, str::to_lowercase)
}

/// Makes the first letter of each word a capital.
pub(super) fn title(args: &[Value]) -> Done {
    map(args, |text| {
        let mut titled = String::with_capacity(text.len());
        let mut begins_word = true;
        for letter in text.chars() {
            if begins_word {
                titled.extend(letter.to_uppercase());
            } else {
                titled.push(letter);
            }
            begins_word = !(letter.is_alphanumeric() || letter == '_');
        }
        titled
    })
}

pub(super) fn trim(args: &[Value]) -> Done {
    map_with(args, |text, cut| {
        text.trim_matches(|letter| cut.contains(letter)).to_owned()
    })
}

pub(super) fn trim_prefix(args: &[Value]) -> Done {
    map_with(args, |text, prefix| {
        text.strip_prefix(prefix).unwrap_or(text).to_owned()
    })
}

pub(super) fn trim_suffix(args: &[Value]) -> Done {
    map_with(args, |text, suffix| {
        text.strip_suffix(suffix).unwrap_or(text).to_owned()
    })
}

pub(super) fn trim_space(args: &[Value]) -> Done {
    map(args, |text| text.trim().to_owned())
}

/// Removes line breaks at the end.
pub(super) fn chomp(args: &[Value]) -> Done {
    map(args, |text| text.trim_end_matches(['\r', '\n']).to_owned())
}

/// `indent(spaces, text)`: all lines but the first.
pub(super) fn indent(args: &[Value]) -> Done {
    /// Deeper is a mistake.
    const MAX_SPACES: usize = 1024;
    let [spaces, text] = exactly(args)?;
    let spaces = spaces.to_index()?;
    if spaces > MAX_SPACES {
        return Err(Error::definition("at most 1024 spaces are allowed"));
    }
    let pad = format!("\n{}", " ".repeat(spaces));
    Ok(Value::String(text.to_text()?.replace('\n', &pad)))
}

pub(super) fn replace(args: &[Value]) -> Done {
    /// An empty pattern stands between all letters: bounded as results of other functions are.
    const MAX_BYTES: usize = 64 << 20;
    let [text, from, to] = exactly(args)?;
    let (text, from, to) = (text.to_text()?, from.to_text()?, to.to_text()?);
    let growth = text.matches(from.as_str()).count().saturating_mul(to.len());
    if growth > MAX_BYTES {
        return Err(Error::definition("the result is too long"));
    }
    Ok(Value::String(text.replace(&from, &to)))
}

/// Reverses the characters as people see them.
pub(super) fn reverse(args: &[Value]) -> Done {
    map(args, |text| text.graphemes(true).rev().collect())
}

pub(super) fn strlen(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    Ok(Value::integer(
        text.to_text()?.graphemes(true).count() as u64
    ))
}

/// `substr(text, offset, length)` in characters as people see them. An offset below zero counts
/// from the end; length -1 takes the rest.
pub(super) fn substr(args: &[Value]) -> Done {
    let [text, offset, length] = exactly(args)?;
    let (text, offset, length) = (text.to_text()?, offset.to_whole()?, length.to_whole()?);
    let characters: Vec<&str> = text.graphemes(true).collect();
    let count = characters.len() as i64;
    let start = if offset < 0 {
        (count + offset.max(-count)).max(0)
    } else {
        offset.min(count)
    };
    let end = if length < 0 {
        count
    } else {
        start.saturating_add(length).min(count)
    };
    Ok(Value::String(
        characters[start as usize..end as usize].concat(),
    ))
}

/// `split(separator, text)`
pub(super) fn split(args: &[Value]) -> Done {
    let [separator, text] = exactly(args)?;
    let (separator, text) = (separator.to_text()?, text.to_text()?);
    Ok(if separator.is_empty() {
        Value::texts(text.chars())
    } else {
        Value::texts(text.split(&separator))
    })
}

/// `join(separator, list…)`
pub(super) fn join(args: &[Value]) -> Done {
    let Some((separator, lists)) = args.split_first().filter(|(_, lists)| !lists.is_empty()) else {
        return Err(Error::definition("a separator and a list are required"));
    };
    let mut texts = Vec::new();
    for list in lists {
        for element in list.elements()? {
            texts.push(element.to_text()?);
        }
    }
    Ok(Value::String(texts.join(&separator.to_text()?)))
}

/// Replaces what the names of targets can't hold.
pub(super) fn sanitize(args: &[Value]) -> Done {
    map(args, |text| {
        let is_allowed =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
        text.chars()
            .map(|letter| if is_allowed(letter) { letter } else { '_' })
            .collect()
    })
}

/// The last component of a path, as Go's `path.Base`.
pub(super) fn basename(args: &[Value]) -> Done {
    map(args, |path| match path.trim_end_matches('/') {
        "" if path.is_empty() => ".".to_owned(),
        "" => "/".to_owned(),
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed).to_owned(),
    })
}

/// All but the last component of a path, cleaned, as Go's `path.Dir`.
pub(super) fn dirname(args: &[Value]) -> Done {
    map(args, |path| {
        let directory = path.rfind('/').map_or("", |slash| &path[..=slash]);
        crate::path::clean(directory)
    })
}

/// The user's home directory.
pub(super) fn homedir(args: &[Value], definitions: &Definitions) -> Done {
    let [] = exactly(args)?;
    definitions
        .environment("HOME")
        .map(Value::text)
        .ok_or_else(|| Error::request("there is no home directory: `HOME` is not set"))
}
