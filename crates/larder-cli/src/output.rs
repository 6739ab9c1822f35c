//! The one place that writes to the standard streams.
//!
//! Data goes to standard output, all else to standard error.

use std::io::{self, IsTerminal, Write};

use rustix::termios;

use crate::progress::Size;

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes `bytes` to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes a line for the user to standard error.
pub(crate) fn tell(line: &str) {
    // There is nobody left to tell that nobody can be told.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a question for the user to standard error; the answer comes on the same line.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{question}");
}

/// Returns standard error.
pub(crate) fn stderr() -> io::StderrLock<'static> {
    io::stderr().lock()
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Returns the size of the terminal at standard error, if it is one that knows its size.
pub(crate) fn stderr_size() -> Option<Size> {
    let size = termios::tcgetwinsize(io::stderr()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| Size {
        width: usize::from(size.ws_col),
        height: usize::from(size.ws_row),
    })
}
