//! What services write, line by line, each with the service's name before it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Context;
use super::services::TICK;
use super::state::{ProjectState, Status};
use crate::args::{LogsArgs, ProjectArgs};
use crate::output;
use crate::signals::{self, Stop};

/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A longer line is shown in pieces.
const MAX_LINE_BYTES: usize = 1 << 20;
/// The colours of names on a terminal, one after the other.
const COLORS: [&str; 5] = ["36", "33", "32", "35", "34"];

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) has_prefix: bool,
    pub(super) has_colors: bool,
    /// Columns of the longest name.
    pub(super) width: usize,
}

impl Style {
    /// Returns the style for some services.
    pub(super) fn new(
        services: &[String],
        no_prefix: bool,
        no_color: bool,
        context: &Context<'_>,
    ) -> Self {
        let widths = services.iter().map(|name| name.len() + "-1".len());
        Self {
            has_prefix: !no_prefix,
            has_colors: !no_color && !context.env.no_color() && output::stdout_is_terminal(),
            width: widths.max().unwrap_or_default(),
        }
    }
}

/// Follows the log of one service.
pub(super) struct Follower {
    service: String,
    path: PathBuf,
    prefix: String,
    offset: u64,
    /// A line whose end has not been written yet.
    partial: Vec<u8>,
}

impl Follower {
    /// Follows from the beginning of the log.
    pub(super) fn new(service: &str, path: &Path, index: usize, style: Style) -> Self {
        let name = format!("{service}-1");
        let padded = format!("{name:<width$}", width = style.width + 1);
        let prefix = match (style.has_prefix, style.has_colors) {
            (false, _) => String::new(),
            (true, false) => format!("{padded} | "),
            (true, true) => {
                let color = COLORS[index % COLORS.len()];
                format!("\x1b[{color}m{padded} |\x1b[0m ")
            }
        };
        Self {
            service: service.to_owned(),
            path: path.to_owned(),
            prefix,
            offset: 0,
            partial: Vec::new(),
        }
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Passes over what is there already.
    pub(super) fn skip_old(&mut self) {
        self.offset = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
    }

    /// Follows a new log from its beginning.
    pub(super) fn start_over(&mut self) {
        self.offset = 0;
    }

    /// Passes over all but the last `count` lines.
    fn skip_to_tail(&mut self, count: usize) -> io::Result<()> {
        let Ok(mut file) = File::open(&self.path) else {
            return Ok(());
        };
        let mut ends = std::collections::VecDeque::from([0]);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut position = 0;
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            for (index, _) in chunk[..read]
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
            {
                ends.push_back(position + index as u64 + 1);
                if ends.len() > count + 1 {
                    ends.pop_front();
                }
            }
            position += read as u64;
        }
        // The last line may have no end yet.
        if ends.back() != Some(&position) && ends.len() > count {
            ends.pop_front();
        }
        self.offset = ends.front().copied().unwrap_or_default();
        Ok(())
    }

    /// Shows what has been written since; returns whether there was anything.
    pub(super) fn show_new(&mut self) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.offset {
            // The service was made anew, and its log with it.
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut out = Vec::new();
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            self.offset += read as u64;
            self.take(&chunk[..read], &mut out);
            if out.len() >= CHUNK_BYTES {
                output::print_bytes(&out)?;
                out.clear();
            }
        }
        output::print_bytes(&out)?;
        Ok(!out.is_empty())
    }

    /// Shows a last line that has no end.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.partial.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        self.take(b"\n", &mut out);
        output::print_bytes(&out)
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE_BYTES {
                out.extend_from_slice(self.prefix.as_bytes());
                out.append(&mut self.partial);
                if !out.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
        }
    }
}

/// Shows the logs of services.
pub(super) fn run(
    args: &LogsArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let name = super::project_name(project_args, context)?;
    let project = ProjectState::new(&context.state_root()?, &name);
    let services = super::chosen(&project, &args.services)?;
    let names: Vec<String> = services.iter().map(|(name, _)| name.clone()).collect();
    let style = Style::new(&names, args.no_log_prefix, args.no_color, context);
    let mut followers: Vec<Follower> = services
        .iter()
        .enumerate()
        .map(|(index, (name, state))| Follower::new(name, &state.log(), index, style))
        .collect();
    if let Some(count) = args.tail {
        for follower in &mut followers {
            follower.skip_to_tail(count)?;
        }
    }
    let stopped = std::sync::Arc::new(AtomicBool::new(false));
    let on_signal = std::sync::Arc::clone(&stopped);
    let _listener = signals::listen(move |_: Stop| on_signal.store(true, Ordering::SeqCst))?;
    loop {
        // Looked at first: what was written before the end is shown.
        let is_over = !args.follow || stopped.load(Ordering::SeqCst) || !any_runs(&project, &names);
        let mut is_new = false;
        for follower in &mut followers {
            is_new |= follower.show_new()?;
        }
        if is_over {
            break;
        }
        if !is_new {
            std::thread::sleep(TICK);
        }
    }
    for follower in &mut followers {
        follower.finish()?;
    }
    Ok(())
}

fn any_runs(project: &ProjectState, names: &[String]) -> bool {
    names.iter().any(|name| {
        let record = project.service(name).record();
        record.is_some_and(|record| matches!(record.status, Status::Starting | Status::Running))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(has_prefix: bool) -> Follower {
        let style = Style {
            has_prefix,
            has_colors: false,
            width: "worker-1".len(),
        };
        Follower::new("api", Path::new("/nowhere"), 0, style)
    }

    #[test]
    fn each_line_gets_the_name() {
        let mut follower = follower(true);
        let mut out = Vec::new();
        follower.take(b"one\ntw", &mut out);
        follower.take(b"o\n\nrest", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "api-1     | one\napi-1     | two\napi-1     | \n");
        assert_eq!(follower.partial, b"rest");
    }

    #[test]
    fn endless_lines_are_shown_in_pieces() {
        let mut follower = follower(false);
        let mut out = Vec::new();
        follower.take(&vec![b'x'; MAX_LINE_BYTES], &mut out);
        assert_eq!(out.len(), MAX_LINE_BYTES + 1);
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for (text, count, expect) in [
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc", 2, 2),
            ("a\nb\n", 5, 0),
            ("a\nb\n", 0, 4),
            ("", 3, 0),
        ] {
            fs_err::write(&path, text).unwrap();
            let mut follower = Follower {
                path: path.clone(),
                ..follower(false)
            };
            follower.skip_to_tail(count).unwrap();
            assert_eq!(follower.offset, expect, "{text:?} {count}");
        }
    }
}
