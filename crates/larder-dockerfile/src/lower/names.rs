//! The names of steps, as the progress shows them.

use larder_oci::Platform;

use super::Lowering;
use super::env::Env;
use crate::expand::{Expander, Variables};

impl Lowering<'_> {
    /// Counts the next step of a stage, and returns its name: `[stage i/n] text`.
    pub(super) fn next_step(&mut self, id: usize, text: &str) -> String {
        self.stages.states[id].step_index += 1;
        self.step_name(id, text)
    }

    /// Returns the name of the step counted last.
    pub(super) fn step_name(&self, id: usize, text: &str) -> String {
        let state = &self.stages.states[id];
        if state.step_count == 0 {
            return text.to_owned();
        }
        let mut prefix = String::new();
        if self.options.multi_platform {
            let default = self.options.target_platform();
            let platform = state.platform.as_ref().unwrap_or(default);
            prefix = format!("{platform}{} ", emulated(platform, &state.env));
        }
        if !state.shown.is_empty() {
            prefix.push_str(&state.shown);
            prefix.push(' ');
        }
        let count = state.step_count.to_string();
        let width = count.len();
        let trigger = if state.in_trigger { "ONBUILD " } else { "" };
        format!(
            "[{prefix}{:>width$}/{count}] {trigger}{text}",
            state.step_index
        )
    }

    /// Returns an instruction's text for a name: variables expanded, its first word in capitals.
    pub(super) fn shown_text(
        &self,
        expander: Expander,
        text: &str,
        variables: &impl Variables,
    ) -> String {
        // A text that is no list of words is shown as it is.
        let result = self.expand_with(expander, text, variables);
        let text = result.unwrap_or_else(|_| text.to_owned());
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }
}

/// Returns `->arm64` where a stage on one platform builds for another, by its variables.
fn emulated(platform: &Platform, env: &Env) -> String {
    let Some(target) = target_platform(platform, env) else {
        return String::new();
    };
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    let full = target.to_string();
    let (_, short) = full.split_once('/').unwrap_or(("", &full));
    format!("->{short}")
}

fn target_platform(platform: &Platform, env: &Env) -> Option<Platform> {
    if let Some(Ok(platform)) = env.get("TARGETPLATFORM").map(str::parse) {
        return Some(platform);
    }
    let (os, architecture) = (env.get("TARGETOS"), env.get("TARGETARCH"));
    let variant = env.get("TARGETVARIANT");
    if os.is_none() && architecture.is_none() && variant.is_none() {
        return None;
    }
    let mut text = format!(
        "{}/{}",
        os.filter(|os| !os.is_empty()).unwrap_or(&platform.os),
        architecture
            .filter(|name| !name.is_empty())
            .unwrap_or(&platform.architecture)
    );
    if let Some(variant) = variant.filter(|variant| !variant.is_empty()) {
        text.push('/');
        text.push_str(variant);
    }
    text.parse().ok()
}

/// Returns the first line of a document, `...` behind it if there are more.
pub(super) fn summarize(document: &str) -> String {
    let document = document.trim();
    match document.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => document.to_owned(),
    }
}
