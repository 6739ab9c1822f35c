//! `larder login` and `logout`

use std::io::{self, BufRead, Read};

use anyhow::{Context as _, bail, ensure};
use larder_engine::{Login, LoginPlace, Logins};
use rustix::termios::{self, LocalModes, OptionalActions};

use super::Context;
use crate::args::{LoginArgs, LogoutArgs};
use crate::exit;
use crate::output;
use crate::signals;

/// Longer passwords are none; tokens of cloud registries have a few thousand characters.
const MAX_PASSWORD_BYTES: u64 = 1 << 20;

/// Logs in at a registry, and keeps the login where Docker's tools keep theirs.
pub(crate) fn log_in(args: LoginArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let config = context.config()?;
    if args.password.is_some() {
        output::tell(
            "WARNING: others on this machine can see `--password`; use `--password-stdin`",
        );
    }
    let (username, password) = credentials(args.username, args.password, args.password_stdin)?;
    let directory = context.env.docker_config();
    let directory = directory.context("there is no home directory to keep the login in")?;
    let place = Logins::new(&config, directory).log_in(Login {
        server: args.server,
        username,
        password,
        insecure: args.insecure,
    })?;
    if let LoginPlace::File(path) = place {
        output::tell(&format!(
            "WARNING: the login is kept unencrypted in `{}`; a credential helper would keep it safer",
            path.display()
        ));
    }
    Ok(output::print("Login Succeeded\n")?)
}

/// Forgets the login at a registry.
pub(crate) fn log_out(args: &LogoutArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let directory = context.env.docker_config();
    let directory = directory.context("there is no home directory with logins")?;
    let config = context.config()?;
    let registry = Logins::new(&config, directory).log_out(&args.server)?;
    Ok(output::print(&format!(
        "Removing login credentials for {registry}\n"
    ))?)
}

/// Returns name and password as the flags give them, else as the user types them.
fn credentials(
    username: Option<String>,
    password: Option<String>,
    password_stdin: bool,
) -> anyhow::Result<(String, String)> {
    if password_stdin {
        let mut text = String::new();
        let mut input = io::stdin().lock().take(MAX_PASSWORD_BYTES);
        input
            .read_to_string(&mut text)
            .context("cannot read the password")?;
        let password = text.trim_end_matches(['\n', '\r']).to_owned();
        ensure!(!password.is_empty(), "the password is empty");
        return Ok((username.unwrap_or_default(), password));
    }
    let is_complete = username.is_some() && password.is_some();
    if !is_complete && !output::stdin_is_terminal() {
        bail!("cannot ask for the login: standard input is no terminal; use `--password-stdin`");
    }
    let username = match username {
        Some(username) => username,
        None => ask("Username: ")?,
    };
    ensure!(!username.is_empty(), "a login needs a user's name");
    let password = match password {
        Some(password) => password,
        None => ask_hidden("Password: ")?,
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok((username, password))
}

fn ask(question: &str) -> anyhow::Result<String> {
    output::ask(question);
    let mut line = String::new();
    let mut input = io::stdin().lock().take(MAX_PASSWORD_BYTES);
    input
        .read_line(&mut line)
        .context("cannot read the answer")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks for what the terminal must not show.
fn ask_hidden(question: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let before = termios::tcgetattr(&stdin).context("cannot hide the password")?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // Who thinks better of it wants to see again what is typed.
    let on_signal = before.clone();
    let _listener = signals::listen(move |_| {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &on_signal);
        std::process::exit(i32::from(exit::CANCELED));
    })
    .context("cannot listen for signals")?;
    termios::tcsetattr(&stdin, OptionalActions::Flush, &hidden)
        .context("cannot hide the password")?;
    let answer = ask(question);
    output::tell("");
    termios::tcsetattr(&stdin, OptionalActions::Flush, &before)
        .context("cannot show again what is typed")?;
    answer
}
