use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on: `os/architecture[/variant]`, in Go's names (`linux/amd64`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `linux`, `windows`, …
    pub os: String,
    /// The operating system's version; used by Windows images only.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// The operating system's required features; used by Windows images only.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, …; empty where the architecture has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform (expected `os/architecture[/variant]`, as in `linux/amd64`)")]
pub struct PlatformError(String);

impl Platform {
    /// Returns the platform of the running program.
    pub fn host() -> Self {
        let (architecture, variant) = normalize(std::env::consts::ARCH, "");
        Self::linux(&architecture, &variant)
    }

    /// Returns a Linux platform.
    pub fn linux(architecture: &str, variant: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
            variant: variant.to_owned(),
        }
    }

    /// Returns whether an image for `self` runs where `wanted` is asked for. An `arm64` image
    /// without variant is a `v8` one, an `amd64` one a `v1` one.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let known = |platform: &Self| normalize(&platform.architecture, &platform.variant);
        self.os == wanted.os && known(self) == known(wanted)
    }
}

/// Maps other spellings to Go's, and drops the variants that are an architecture's default.
fn normalize(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("x86" | "i386" | "i686", _) => ("386", ""),
        ("powerpc64le", _) => ("ppc64le", ""),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let lower = text.trim().to_ascii_lowercase();
        let is_word = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(|part| is_word(part)) {
            return Err(PlatformError(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            ["local"] => return Ok(Self::host()),
            ["linux"] => ("linux", Self::host().architecture, String::new()),
            [architecture] => ("linux", architecture.to_owned(), String::new()),
            [os, architecture] => (os, architecture.to_owned(), String::new()),
            [os, architecture, variant] => (os, architecture.to_owned(), variant.to_owned()),
            _ => return Err(PlatformError(text.to_owned())),
        };
        let (architecture, variant) = normalize(&architecture, &variant);
        Ok(Self {
            os: os.to_owned(),
            ..Self::linux(&architecture, &variant)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalizes() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/7", "linux/arm/v7"),
            ("aarch64", "linux/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
