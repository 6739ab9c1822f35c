//! Shell scripts, as far as it takes to tell which commands they run. Nothing is expanded: words keep
//! their `$`, and what runs inside of `$(…)` is text.

/// A simple command: its words, quotes removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Command {
    /// `NAME=value` in front of it.
    pub(super) assignments: Vec<String>,
    /// Its name and arguments; never empty.
    pub(super) words: Vec<String>,
}

/// Words that stand before a command, or around it, and are none.
const KEYWORDS: [&str; 14] = [
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "!",
    "{",
];
/// Commands that run the command behind them.
const WRAPPERS: [&str; 7] = ["sudo", "env", "exec", "time", "command", "nice", "nohup"];

/// Returns the commands of a script, in order.
pub(super) fn commands(script: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    for token in tokens(script) {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => commands.extend(command(std::mem::take(&mut words))),
        }
    }
    commands.extend(command(words));
    commands
}

/// Returns the command that an exec form runs: that of `sh -c` is a script.
pub(super) fn exec(words: &[String]) -> Vec<Command> {
    match words {
        [shell, flag, script]
            if is_shell(shell) && flag.starts_with('-') && flag.ends_with('c') =>
        {
            commands(script)
        }
        words => command(words.to_vec()).into_iter().collect(),
    }
}

fn is_shell(name: &str) -> bool {
    matches!(base_name(name), "sh" | "bash" | "ash" | "dash")
}

/// Returns a program's name without its directory.
pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Takes off what stands before the command itself.
fn command(words: Vec<String>) -> Option<Command> {
    let mut command = Command::default();
    let mut words = words.into_iter().peekable();
    let mut wrapped = false;
    while let Some(word) = words.peek() {
        let is_skipped = KEYWORDS.contains(&word.as_str()) || wrapped && word.starts_with('-');
        if is_assignment(word) {
            command.assignments.extend(words.next());
        } else if WRAPPERS.contains(&word.as_str()) {
            wrapped = true;
            words.next();
        } else if is_skipped {
            words.next();
        } else {
            break;
        }
    }
    command.words = words.collect();
    (!command.words.is_empty()).then_some(command)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

enum Token {
    Word(String),
    /// The end of a command.
    End,
}

fn tokens(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = script.chars().peekable();
    // `None` between words: an empty word is one, if it is quoted.
    let mut word: Option<String> = None;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            '\'' | '"' | '`' => quoted(&mut chars, c, word.get_or_insert_default()),
            '$' if chars.peek() == Some(&'(') => {
                word.get_or_insert_default().push('$');
                nested(&mut chars, word.get_or_insert_default());
            }
            '#' if word.is_none() => while chars.next_if(|&c| c != '\n').is_some() {},
            ';' | '&' | '|' | '\n' | '(' | ')' => {
                // `>&2` and `&>log` are redirections.
                let redirects = c == '&'
                    && (word.as_ref().is_some_and(|word| word.ends_with('>'))
                        || chars.peek() == Some(&'>'));
                if redirects {
                    word.get_or_insert_default().push(c);
                    continue;
                }
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::End);
            }
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads up to the closing quote.
fn quoted(chars: &mut Chars<'_>, quote: char, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return,
            '\\' if quote != '\'' => word.extend(chars.next().filter(|&c| c != '\n')),
            c => word.push(c),
        }
    }
}

/// Reads `(…)` as text, brackets within it included.
fn nested(chars: &mut Chars<'_>, word: &mut String) {
    let mut depth = 0usize;
    while let Some(c) = chars.next() {
        word.push(c);
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\'' | '"' => {
                quoted(chars, c, word);
                word.push(c);
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, expected: &[&[&str]]) {
        let found = commands(script);
        let found: Vec<Vec<&str>> = found
            .iter()
            .map(|command| command.words.iter().map(String::as_str).collect())
            .collect();
        assert_eq!(found, expected, "{script}");
    }

    #[test]
    fn scripts_are_lists_of_commands() {
        check(
            "apt-get update && apt-get install -y a b; rm -rf /x || true",
            &[
                &["apt-get", "update"],
                &["apt-get", "install", "-y", "a", "b"],
                &["rm", "-rf", "/x"],
                &["true"],
            ],
        );
        check(
            "set -e\nif [ -f a ]; then\n  pip install -r 'a b' # why\nfi\n",
            &[
                &["set", "-e"],
                &["[", "-f", "a", "]"],
                &["pip", "install", "-r", "a b"],
            ],
        );
        check("a | b & (c; d)", &[&["a"], &["b"], &["c"], &["d"]]);
        check("a \"b;c\" d\\ e ''", &[&["a", "b;c", "d e", ""]]);
        check(
            "a >/dev/null 2>&1 && b",
            &[&["a", ">/dev/null", "2>&1"], &["b"]],
        );
        check("", &[]);
        check("# nothing\n", &[]);
    }

    #[test]
    fn what_stands_around_a_command_is_none() {
        check(
            "sudo -E env A=b exec pip install x",
            &[&["pip", "install", "x"]],
        );
        check(
            "echo $(apt-get install x) \"$(a; b)\"",
            &[&["echo", "$(apt-get install x)", "$(a; b)"]],
        );
        check("! false", &[&["false"]]);
        let [command] = &commands("PIP_NO_CACHE_DIR=1 B=c pip install x")[..] else {
            panic!("one command");
        };
        assert_eq!(command.assignments, ["PIP_NO_CACHE_DIR=1", "B=c"]);
    }

    #[test]
    fn unfinished_scripts_end() {
        for script in ["'a", "\"a", "a \\", "$(", "$((a", "`b", "a &&", "&", "\\\n"] {
            let _ = commands(script);
        }
        let words: Vec<String> = ["/bin/sh", "-ec", "a && b"].map(str::to_owned).into();
        assert_eq!(exec(&words).len(), 2);
        assert_eq!(exec(&words[..1])[0].words, ["/bin/sh"]);
    }
}
