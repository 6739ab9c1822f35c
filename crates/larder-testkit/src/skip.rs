use std::io::Write as _;

/// The environment variable that names the file to which skipped tests add their lines; what
/// passing tests print, cargo does not show.
pub const SKIPS_FILE: &str = "LARDER_TEST_SKIPS";

/// Ends the test as skipped: prints `skipped: <reason>` and returns.
///
/// Takes what `format!` takes.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::report_skip(&format!($($reason)*));
        return;
    }};
}

/// Prints `skipped: <reason>` and adds it, with the test's name, to the file that [`SKIPS_FILE`]
/// names. Called by [`skip!`](crate::skip).
#[expect(clippy::print_stderr, reason = "the line is for who runs the test")]
pub fn report_skip(reason: &str) {
    eprintln!("skipped: {reason}");
    let Some(file) = std::env::var_os(SKIPS_FILE) else {
        return;
    };
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("?"));
    fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the file of skipped tests can be written");
}
