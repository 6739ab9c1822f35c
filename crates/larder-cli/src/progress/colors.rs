//! Colours of the live view, as `BUILDKIT_COLORS` and `NO_COLOR` set them.

use std::fmt::Write;

/// The colours of the live view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Colors {
    run: Color,
    cancel: Color,
    warning: Color,
    error: Color,
}

/// A colour, as the parameters of its escape sequence: `34`, `38;2;1;2;3`.
type Color = String;

/// Applies colours, or leaves all text as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paint(Option<Colors>);

impl Default for Colors {
    fn default() -> Self {
        Self {
            run: "34".to_owned(),
            cancel: "33".to_owned(),
            warning: "33".to_owned(),
            error: "31".to_owned(),
        }
    }
}

impl Colors {
    /// Parses `run=blue:error=255,0,0`. Parts that make no sense keep the default; what is wrong
    /// with them comes back beside the colours, one text each.
    pub(crate) fn parse(spec: &str) -> (Self, Vec<String>) {
        let mut colors = Self::default();
        let mut problems = Vec::new();
        for part in spec.split(':').filter(|part| !part.is_empty()) {
            if let Err(problem) = colors.set(part) {
                problems.push(format!("BUILDKIT_COLORS: {problem}"));
            }
        }
        (colors, problems)
    }

    fn set(&mut self, part: &str) -> Result<(), String> {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not of the form `run=blue`"))?;
        let slot = match key.to_ascii_lowercase().as_str() {
            "run" => &mut self.run,
            "cancel" => &mut self.cancel,
            "warning" => &mut self.warning,
            "error" => &mut self.error,
            _ => return Err(format!("`{key}` is none of run, cancel, warning, error")),
        };
        *slot = parse_color(value)
            .ok_or_else(|| format!("`{value}` is neither a colour's name nor `R,G,B`"))?;
        Ok(())
    }
}

fn parse_color(text: &str) -> Option<Color> {
    const NAMES: [&str; 8] = [
        "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    ];
    let lower = text.to_ascii_lowercase();
    let named = |name: &str| NAMES.iter().position(|known| *known == name);
    if lower == "default" {
        return Some("39".to_owned());
    }
    if let Some(position) = named(&lower) {
        return Some((30 + position).to_string());
    }
    if let Some(position) = lower.strip_prefix("light-").and_then(named) {
        return Some((90 + position).to_string());
    }
    let parts: Vec<u8> = text
        .split(',')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let mut color = "38;2".to_owned();
    for part in &parts {
        write!(color, ";{part}").expect("a String takes all");
    }
    (parts.len() == 3).then_some(color)
}

impl Paint {
    /// Returns one that applies `colors`; `None` means no colour at all.
    pub(super) fn new(colors: Option<Colors>) -> Self {
        Self(colors)
    }

    pub(super) fn run(&self, text: &str) -> String {
        self.apply(text, |colors| &colors.run)
    }

    pub(super) fn cancel(&self, text: &str) -> String {
        self.apply(text, |colors| &colors.cancel)
    }

    pub(super) fn warning(&self, text: &str) -> String {
        self.apply(text, |colors| &colors.warning)
    }

    pub(super) fn error(&self, text: &str) -> String {
        self.apply(text, |colors| &colors.error)
    }

    /// Returns `text` in a weaker shade of its colour.
    pub(super) fn faint(&self, text: &str) -> String {
        match self.0 {
            Some(_) => format!("\x1b[2m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    fn apply(&self, text: &str, pick: impl Fn(&Colors) -> &Color) -> String {
        match &self.0 {
            Some(colors) => format!("\x1b[{}m{text}\x1b[0m", pick(colors)),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_and_numbers() {
        let (colors, problems) = Colors::parse("run=light-green:ERROR=1,2,3:cancel=Default");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(colors.run, "92");
        assert_eq!(colors.error, "38;2;1;2;3");
        assert_eq!(colors.cancel, "39");
        assert_eq!(colors.warning, Colors::default().warning);
    }

    #[test]
    fn names_what_it_does_not_understand() {
        for (spec, expected) in [
            ("run", "`run` is not of the form"),
            ("walk=red", "`walk` is none of"),
            ("run=mauve", "`mauve` is neither"),
            ("run=1,2", "`1,2` is neither"),
            ("run=1,2,256", "`1,2,256` is neither"),
        ] {
            let (colors, problems) = Colors::parse(spec);
            assert_eq!(colors, Colors::default(), "{spec}");
            assert!(problems[0].contains(expected), "{problems:?}");
        }
    }
}
