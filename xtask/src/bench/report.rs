//! The table: what each work took each tool.

use std::time::Duration;

use anyhow::Result;

use super::measure::{Sample, settle};
use super::tool::Tool;

/// What one work took one tool.
pub(super) struct Row {
    label: String,
    /// Each run; empty if the tool can't do the work.
    samples: Vec<Sample>,
    /// The most memory that one of its processes had, where it was measured.
    peak_bytes: Option<u64>,
    note: String,
}

impl Row {
    /// Runs a work so many times, which `run` does by its number from 0 on.
    pub(super) fn measure(
        label: impl Into<String>,
        runs_count: usize,
        run: impl FnMut(usize) -> Result<Sample>,
    ) -> Result<Self> {
        settle()?;
        Ok(Self {
            label: label.into(),
            samples: (0..runs_count).map(run).collect::<Result<_>>()?,
            peak_bytes: None,
            note: String::new(),
        })
    }

    /// Returns the row of a tool that can't do the work.
    pub(super) fn without(label: impl Into<String>, reason: &str) -> Self {
        Self {
            label: label.into(),
            samples: Vec::new(),
            peak_bytes: None,
            note: reason.to_owned(),
        }
    }

    pub(super) fn with_peak(self, bytes: u64) -> Self {
        Self {
            peak_bytes: Some(bytes),
            ..self
        }
    }

    pub(super) fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }

    /// Adds what the next round took.
    fn merge(&mut self, next: Self) {
        self.samples.extend(next.samples);
        self.peak_bytes = self.peak_bytes.max(next.peak_bytes);
        self.note = next.note;
    }

    /// Returns all runs' times, the shortest first.
    fn sorted(&self, time: impl Fn(&Sample) -> Duration) -> Vec<Duration> {
        let mut times: Vec<_> = self.samples.iter().map(time).collect();
        times.sort();
        times
    }

    /// Returns the median times on the clock and of the processors; `None` without a run.
    fn medians(&self) -> Option<Sample> {
        let median = |times: Vec<Duration>| times.get(times.len() / 2).copied();
        Some(Sample {
            wall: median(self.sorted(|sample| sample.wall))?,
            cpu: median(self.sorted(|sample| sample.cpu))?,
        })
    }

    /// Returns the row as a line; `beside` are the medians that it is compared with.
    fn line(&self, tool: &str, beside: Option<Sample>) -> String {
        let Some(medians) = self.medians() else {
            return format!("{:38} {tool:8} {}", self.label, self.note);
        };
        let peak = match self.peak_bytes {
            Some(bytes) => format!("{:.1}", bytes as f64 / 1e6),
            None => "-".to_owned(),
        };
        let [min, wall, cpu] = [
            self.sorted(|sample| sample.wall)[0],
            medians.wall,
            medians.cpu,
        ]
        .map(milliseconds);
        let times = |own: Duration, other: Duration| own.as_secs_f64() / other.as_secs_f64();
        let ratio = match beside {
            Some(other) => format!(
                "{:.1}x clock, {:.1}x CPU ",
                times(medians.wall, other.wall),
                times(medians.cpu, other.cpu)
            ),
            None => String::new(),
        };
        let line = format!(
            "{:38} {tool:8} {:>4} {min:>9} {wall:>9} {cpu:>9} {peak:>8}  {ratio}{}",
            self.label,
            self.samples.len(),
            self.note
        );
        line.trim_end().to_owned()
    }
}

/// Writes what is short so that a twentieth of it can be seen.
fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let digits = if ms < 100.0 { 2 } else { 0 };
    format!("{ms:.digits$}")
}

/// What a case took, of all rounds so far.
#[derive(Default)]
pub(super) struct Report {
    /// In the order in which they came; the first tool's first.
    rows: Vec<(String, Row)>,
    failures: Vec<(String, String)>,
}

impl Report {
    pub(super) fn add(&mut self, tool: &Tool, rows: Vec<Row>) {
        for row in rows {
            let known = self.rows.iter_mut();
            let mut known =
                known.filter(|(name, known)| *name == tool.name() && known.label == row.label);
            match known.next() {
                Some((_, known)) => known.merge(row),
                None => self.rows.push((tool.name().to_owned(), row)),
            }
        }
    }

    pub(super) fn fail(&mut self, tool: &Tool, error: &anyhow::Error) {
        let name = tool.name().to_owned();
        self.failures.push((name, format!("{error:#}")));
    }

    pub(super) fn has_failed(&self, tool: &Tool) -> bool {
        self.failures.iter().any(|(name, _)| *name == tool.name())
    }

    pub(super) fn failures_count(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn print_header() {
        println!(
            "\n{:38} {:8} {:>4} {:>9} {:>9} {:>9} {:>8}",
            "work", "tool", "runs", "min ms", "median ms", "CPU ms", "peak MB"
        );
    }

    /// Prints the case: each work by all tools, and what the others took beside the first one.
    pub(super) fn print(&self, case: &str) {
        println!("-- {case}");
        self.lines().iter().for_each(|line| println!("{line}"));
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut labels: Vec<&str> = Vec::new();
        for (_, row) in &self.rows {
            if !labels.contains(&row.label.as_str()) {
                labels.push(&row.label);
            }
        }
        for label in labels {
            let mut first = None;
            for (tool, row) in self.rows.iter().filter(|(_, row)| row.label == label) {
                lines.push(row.line(tool, first));
                first = first.or(row.medians());
            }
        }
        let failures = self.failures.iter();
        lines.extend(failures.map(|(tool, error)| format!("{tool} failed: {error}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, milliseconds: &[u64]) -> Row {
        let sample = |ms: &u64| Sample {
            wall: Duration::from_millis(*ms),
            cpu: Duration::from_millis(*ms * 2),
        };
        Row {
            samples: milliseconds.iter().map(sample).collect(),
            ..Row::without(label, "")
        }
    }

    #[test]
    fn rounds_are_merged_and_peers_stand_below_with_their_ratio() {
        let larder = Tool::found(&["larder".into()]).remove(0);
        let mut report = Report::default();
        for (ours, theirs) in [(4, 40), (9, 90), (5, 51)] {
            report.add(
                &larder,
                vec![
                    row("build", &[ours]).with_peak(1_000_000 * ours),
                    row("du", &[7]),
                ],
            );
            report.add(
                &Tool::Buildah,
                vec![row("build", &[theirs]), Row::without("du", "lacks it")],
            );
        }
        report.fail(&Tool::Buildah, &anyhow::anyhow!("no space"));
        assert!(report.has_failed(&Tool::Buildah) && !report.has_failed(&larder));
        let lines: Vec<String> = report
            .lines()
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "build larder 3 4.00 5.00 10.00 9.0",
                "build buildah 3 40.00 51.00 102 - 10.2x clock, 10.2x CPU",
                "du larder 3 7.00 7.00 14.00 -",
                "du buildah lacks it",
                "buildah failed: no space",
            ]
        );
    }
}
