//! From statements to instructions.

mod copy;
mod healthcheck;
mod run;

use crate::args;
use crate::error::Error;
use crate::flags::{FlagKind, Flags};
use crate::golang;
use crate::instruction::{ArgPair, CommandLine, From, Instruction, InstructionKind};
use crate::lint::LintOptions;
use crate::statement::Statement;
use crate::suggest::with_suggestion;

pub(crate) use run::{Mount, MountType, Sharing, parse_mount};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A parsed statement.
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// Parses one statement. The error carries its lines.
pub(crate) fn parse(statement: &Statement, escape: char) -> Result<Parsed, Error> {
    let parsed = if statement.is("FROM") {
        from(statement).map(Parsed::From)
    } else {
        kind(statement, escape).map(|kind| {
            Parsed::Instruction(Instruction {
                kind,
                keyword: statement.keyword.clone(),
                code: statement.original.trim().to_owned(),
                lines: statement.lines,
                lint: LintOptions::of_comments(&statement.comments),
            })
        })
    };
    parsed.map_err(|message| Error::dockerfile(message).at(statement.lines))
}

fn kind(statement: &Statement, escape: char) -> Result<InstructionKind, String> {
    let upper = statement.keyword.to_ascii_uppercase();
    if !matches!(
        upper.as_str(),
        "ADD" | "COPY" | "RUN" | "HEALTHCHECK" | "ONBUILD"
    ) && KEYWORDS.contains(&upper.as_str())
    {
        Flags::parse(&statement.flags, &[])?;
    }
    let rest = statement.rest.as_str();
    Ok(match upper.as_str() {
        "ADD" | "COPY" => InstructionKind::Copy(copy::parse(statement)?),
        "ARG" => InstructionKind::Arg(arg_pairs(statement, escape)?),
        "CMD" => InstructionKind::Cmd(command_line(rest)?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(command_line(rest)?),
        "ENV" => InstructionKind::Env(args::name_values(rest, "ENV", escape)?),
        "EXPOSE" => InstructionKind::Expose(sorted(non_empty(rest, "EXPOSE")?)),
        "HEALTHCHECK" => InstructionKind::Healthcheck(healthcheck::parse(statement)?),
        "LABEL" => InstructionKind::Label(args::name_values(rest, "LABEL", escape)?),
        "MAINTAINER" => InstructionKind::Maintainer(single(rest, "MAINTAINER")?),
        "ONBUILD" => InstructionKind::Onbuild(onbuild(statement)?),
        "RUN" => InstructionKind::Run(run::parse(statement)?),
        "SHELL" => InstructionKind::Shell(shell(statement)?),
        "STOPSIGNAL" => InstructionKind::StopSignal(single(rest, "STOPSIGNAL")?),
        "USER" => InstructionKind::User(single(rest, "USER")?),
        "VOLUME" => InstructionKind::Volume(volumes(rest)?),
        "WORKDIR" => InstructionKind::Workdir(single(rest, "WORKDIR")?),
        _ => return Err(unknown_instruction(&statement.keyword)),
    })
}

fn unknown_instruction(keyword: &str) -> String {
    let message = format!("unknown instruction: {keyword}");
    let lower = keyword.to_ascii_lowercase();
    if keyword == lower {
        let names: Vec<String> = KEYWORDS.iter().map(|k| k.to_ascii_lowercase()).collect();
        return with_suggestion(message, keyword, names.iter().map(String::as_str));
    }
    with_suggestion(message, &keyword.to_ascii_uppercase(), KEYWORDS)
}

fn at_least_one(keyword: &str) -> String {
    format!("{keyword} requires at least one argument")
}

fn single(rest: &str, keyword: &str) -> Result<String, String> {
    if rest.is_empty() {
        return Err(format!("{keyword} requires exactly one argument"));
    }
    Ok(rest.to_owned())
}

fn non_empty(rest: &str, keyword: &str) -> Result<Vec<String>, String> {
    let words = args::split_blank(rest);
    if words.is_empty() {
        return Err(at_least_one(keyword));
    }
    Ok(words)
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words
}

fn command_line(rest: &str) -> Result<CommandLine, String> {
    Ok(match args::json_strings(rest)? {
        Some(words) => CommandLine::Exec(words),
        None => CommandLine::Shell(rest.to_owned()),
    })
}

fn arg_pairs(statement: &Statement, escape: char) -> Result<Vec<ArgPair>, String> {
    let words = args::split_quoted(&statement.rest, escape);
    if words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    let pair = |word: String| {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => return Err("ARG names can not be blank".to_owned()),
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(ArgPair {
            name: name.to_owned(),
            default,
            description: statement.description(name),
        })
    };
    words.into_iter().map(pair).collect()
}

fn shell(statement: &Statement) -> Result<Vec<String>, String> {
    match args::json_strings(&statement.rest)? {
        Some(words) if words.is_empty() => Err(at_least_one("SHELL")),
        Some(words) => Ok(words),
        None if statement.rest.is_empty() => Err(at_least_one("SHELL")),
        None => Err(format!(
            "SHELL requires the arguments to be in JSON form, but {} is not",
            golang::quote(&statement.rest)
        )),
    }
}

fn volumes(rest: &str) -> Result<Vec<String>, String> {
    let words = match args::json_strings(rest)? {
        Some(words) => words,
        None => args::split_blank(rest),
    };
    if words.is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    words
        .into_iter()
        .map(|word| match word.trim() {
            "" => Err("VOLUME specified can not be an empty string".to_owned()),
            word => Ok(word.to_owned()),
        })
        .collect()
}

fn onbuild(statement: &Statement) -> Result<String, String> {
    let deferred = statement.deferred();
    if statement.rest.is_empty() {
        return Err(at_least_one("ONBUILD"));
    }
    // What stands between ONBUILD and the instruction would be taken for its flags.
    Flags::parse(&statement.flags, &[])?;
    if deferred.is("ONBUILD") {
        return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
    }
    if deferred.is("MAINTAINER") || deferred.is("FROM") {
        let keyword = deferred.keyword.to_ascii_uppercase();
        return Err(format!("{keyword} isn't allowed as an ONBUILD trigger"));
    }
    args::json_strings(&deferred.rest)?;
    let original = statement.original.trim_start();
    let mut expression = original["ONBUILD".len()..].trim_start().to_owned();
    for heredoc in &statement.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(expression)
}

fn from(statement: &Statement) -> Result<From, String> {
    let words = args::split_blank(&statement.rest);
    let (base, name) = match &words[..] {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let flags = Flags::parse(&statement.flags, &[("platform", FlagKind::Text)])?;
    let platform = flags.text("platform").filter(|text| !text.is_empty());
    let description = name.as_deref().map(|name| statement.description(name));
    Ok(From {
        base: base.clone(),
        name,
        description: description.unwrap_or_default(),
        platform: platform.map(str::to_owned),
        keyword: statement.keyword.clone(),
        code: statement.original.trim().to_owned(),
        lines: statement.lines,
        lint: LintOptions::of_comments(&statement.comments),
    })
}

/// Checks `^[a-z][a-z0-9-_.]*$`, in lower case.
fn stage_name(name: &str) -> Result<String, String> {
    let lower = name.to_lowercase();
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    if lower.starts_with(|c: char| c.is_ascii_lowercase()) && lower.bytes().all(fits) {
        return Ok(lower);
    }
    Err(format!(
        "invalid name for build stage: {}, name can't start with a number or contain symbols",
        golang::quote(name)
    ))
}
