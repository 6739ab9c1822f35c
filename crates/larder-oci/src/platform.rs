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

    /// Returns whether `self` is what `wanted` says. An `arm64` platform without variant is a `v8`
    /// one, an `amd64` one a `v1` one.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let known = |platform: &Self| normalize(&platform.architecture, &platform.variant);
        self.os == wanted.os && known(self) == known(wanted)
    }

    /// Returns how well an image for `self` does where `wanted` is asked for: 0 for just that, more
    /// for older variants and the architecture's 32-bit forms, in containerd's order; `None` if it
    /// does not run there.
    pub fn rank_for(&self, wanted: &Self) -> Option<usize> {
        if self.os != wanted.os {
            return None;
        }
        let own = normalize(&self.architecture, &self.variant);
        substitutes(&wanted.architecture, &wanted.variant)
            .iter()
            .position(|substitute| *substitute == own)
    }
}

/// Returns the architectures and variants whose programs run where one is asked for, the best
/// first.
fn substitutes(architecture: &str, variant: &str) -> Vec<(String, String)> {
    let wanted = normalize(architecture, variant);
    let version: u32 = match (wanted.0.as_str(), wanted.1.strip_prefix('v')) {
        ("amd64", None) => 1,
        ("arm64", None) => 8,
        (_, Some(digits)) => digits.parse().unwrap_or(0),
        (_, None) => 0,
    };
    let mut known = vec![wanted];
    let mut add = |architecture: &str, versions: &mut dyn Iterator<Item = u32>| {
        let variants = versions.map(|version| normalize(architecture, &format!("v{version}")));
        known.extend(variants);
    };
    match known_name(architecture) {
        "amd64" => {
            add("amd64", &mut (1..version).rev());
            known.push(("386".to_owned(), String::new()));
        }
        "arm64" => {
            add("arm64", &mut (8..version).rev());
            add("arm", &mut (5..=8).rev());
        }
        "arm" => add("arm", &mut (5..version).rev()),
        _ => {}
    }
    known
}

/// Returns Go's name of an architecture.
fn known_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        other => other,
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
    fn older_variants_do_where_newer_ones_are_asked_for() {
        for (own, wanted, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v3", Some(2)),
            ("linux/amd64/v2", "linux/amd64/v3", Some(1)),
            ("linux/amd64/v3", "linux/amd64", None),
            ("linux/386", "linux/amd64", Some(1)),
            ("linux/amd64", "linux/386", None),
            ("linux/arm64", "linux/arm64", Some(0)),
            ("linux/arm/v7", "linux/arm64", Some(2)),
            ("linux/arm/v6", "linux/arm/v7", Some(1)),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/arm64", "linux/amd64", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("windows/amd64", "linux/amd64", None),
        ] {
            let platform = |text: &str| text.parse::<Platform>().unwrap();
            let rank = platform(own).rank_for(&platform(wanted));
            assert_eq!(rank, expected, "{own} for {wanted}");
        }
    }

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
