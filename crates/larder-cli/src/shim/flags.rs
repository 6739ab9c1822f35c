//! Docker's flags before the first command.

use std::ffi::OsString;
use std::path::PathBuf;

/// What they say.
#[derive(Debug, Default)]
pub(super) struct Leading {
    pub(super) debug: bool,
    pub(super) version: bool,
    pub(super) config: Option<PathBuf>,
}

const NO_DAEMON: &str = "larder builds in its own process, there is no daemon to connect to";

/// Reads the flags that `words` begin with, and returns the words after them.
pub(super) fn leading(mut words: &[OsString]) -> Result<(Leading, &[OsString]), String> {
    let mut flags = Leading::default();
    while let Some((word, rest)) = words.split_first() {
        let Some(text) = word.to_str().filter(|text| text.starts_with('-')) else {
            break;
        };
        words = rest;
        let (name, joined) = split(text);
        let name = long(name).ok_or_else(|| format!("unknown flag: {text}"))?;
        match name {
            "--debug" => flags.debug = true,
            "--version" => flags.version = true,
            "--tls" | "--tlsverify" | "--tlscacert" | "--tlscert" | "--tlskey" | "--host" => {
                return Err(format!("`{name}`: {NO_DAEMON}"));
            }
            "--help" => {}
            _ => {
                let value = if let Some(value) = joined {
                    OsString::from(value)
                } else {
                    let (value, rest) = words
                        .split_first()
                        .ok_or_else(|| format!("flag needs an argument: {text}"))?;
                    words = rest;
                    value.clone()
                };
                match name {
                    "--config" => flags.config = Some(PathBuf::from(value)),
                    "--context" if value != "default" => {
                        let value = value.to_string_lossy();
                        return Err(format!(
                            "`--context {value}`: larder has no contexts but `default`"
                        ));
                    }
                    // How much a daemon's client tells of itself.
                    _ => {}
                }
            }
        }
    }
    Ok((flags, words))
}

/// Splits `--name=value` and `-nvalue`.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((name, value)) = text.split_once('=') {
        return (name, Some(value));
    }
    match text.get(..2) {
        Some(short) if !text.starts_with("--") && text.len() > 2 => (short, Some(&text[2..])),
        _ => (text, None),
    }
}

fn long(name: &str) -> Option<&'static str> {
    let known = [
        ("-D", "--debug"),
        ("-v", "--version"),
        ("-h", "--help"),
        ("-l", "--log-level"),
        ("-c", "--context"),
        ("-H", "--host"),
        ("", "--config"),
        ("", "--tls"),
        ("", "--tlsverify"),
        ("", "--tlscacert"),
        ("", "--tlscert"),
        ("", "--tlskey"),
    ];
    let found = known
        .into_iter()
        .find(|(short, long)| name == *short || name == *long);
    found.map(|(_, long)| long)
}
