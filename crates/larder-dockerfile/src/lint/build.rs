//! Checks that need to know what is built: the values of variables, the base images, the ignore
//! file.

use larder_oci::{ImageConfig, ImageRef, Platform};

use super::{Lint, Rule};
use crate::dockerfile::Dockerfile;
use crate::expand::{Expander, Expansion, Variables};
use crate::golang;
use crate::suggest::closest;

/// A variable with one of these words in its name looks like a secret.
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// With one of these it does not, after all.
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

impl Lint {
    /// Checks the variables that a word of the instruction used. ARGs without a value are declared;
    /// `known` has the names of all variables that are set.
    pub(crate) fn variables(
        &self,
        expansion: &Expansion,
        is_declared: impl Fn(&str) -> bool,
        known: &[&str],
    ) {
        for name in expansion.unmatched.iter().filter(|name| !is_declared(name)) {
            let hint = closest(name, known.iter().copied());
            let hint = hint.map_or_else(String::new, |found| format!(" (did you mean ${found}?)"));
            let message = format!("Usage of undefined variable '${name}'{hint}");
            self.warn(Rule::UndefinedVar, message);
        }
    }

    /// Checks the variables that a word of FROM used, as [`Lint::variables`] does.
    pub(crate) fn base_variables(&self, expansion: &Expansion, known: &[&str]) {
        for name in &expansion.unmatched {
            if known.contains(&name.as_str()) {
                continue;
            }
            let hint = closest(name, known.iter().copied());
            let hint = hint.map_or_else(String::new, |found| format!(" (did you mean {found}?)"));
            let message = format!("FROM argument '{name}' is not declared{hint}");
            self.warn(Rule::UndefinedArgInFrom, message);
        }
    }

    /// Checks `FROM --platform=WORD`, in a stage of this name.
    pub(crate) fn platform(
        &self,
        stage: &str,
        word: &str,
        expansion: &Expansion,
        variables: &impl Variables,
    ) {
        const TARGET: &str = "TARGETPLATFORM";
        let value = &expansion.text;
        if expansion.unmatched.is_empty()
            && expansion.matched.iter().eq([TARGET])
            && variables.get(TARGET) == Some(value)
        {
            let message = format!(
                "Setting platform to predefined {word} in FROM is redundant as this is the default behavior"
            );
            self.warn(Rule::RedundantTargetPlatform, message);
        }
        if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
            return;
        }
        let Ok(platform) = value.parse::<Platform>() else {
            return;
        };
        // A stage that says in its name which platform it is for means it.
        if !stage.contains(&platform.os) && !stage.contains(&platform.architecture) {
            let value = golang::quote(value);
            let message = format!("FROM --platform flag should not use constant value {value}");
            self.warn(Rule::FromPlatformFlagConstDisallowed, message);
        }
    }

    /// Checks that each FROM names an image also if the build is given no arguments. `defaults` are
    /// the global arguments then.
    pub(crate) fn default_bases(&self, dockerfile: &Dockerfile, defaults: &impl Variables) {
        let expander = Expander::new(dockerfile.escape);
        for stage in &dockerfile.stages {
            let from = &stage.from;
            let Ok(expansion) = expander.expand(&from.base, defaults) else {
                return;
            };
            if expansion.text.parse::<ImageRef>().is_err() {
                self.enter(from.lines, &from.lint);
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    from.base
                );
                self.warn(Rule::InvalidDefaultArgInFrom, message);
            }
        }
    }

    /// Checks that an image is for the platform that was asked for.
    pub(crate) fn base_platform(&self, image: &str, expected: &Platform, actual: &ImageConfig) {
        let is_known = !actual.os.is_empty() && !actual.architecture.is_empty();
        let same = expected.os == actual.os && expected.architecture == actual.architecture;
        if is_known && !same {
            let actual = normalized(&actual.os, &actual.architecture, &actual.variant);
            let message = format!(
                "Base image {image} was pulled with platform \"{actual}\", expected \"{expected}\" for current build"
            );
            self.warn(Rule::InvalidBaseImagePlatform, message);
        }
    }

    /// Checks the name of a variable that ARG or ENV sets.
    pub(crate) fn secret(&self, keyword: &str, name: &str) {
        let has = |words: &[&str]| {
            name.split('_')
                .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
        };
        if has(&SECRET_WORDS) && !has(&HARMLESS_WORDS) {
            let name = golang::quote(name);
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name})");
            self.warn(Rule::SecretsUsedInArgOrEnv, message);
        }
    }
}

/// Returns a platform as it is written usually.
fn normalized(os: &str, architecture: &str, variant: &str) -> Platform {
    let platform = Platform {
        os: os.to_owned(),
        ..Platform::linux(architecture, variant)
    };
    platform.to_string().parse().unwrap_or(platform)
}
