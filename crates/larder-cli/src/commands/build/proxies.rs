//! Proxies that `config.json` of Docker's tools hands to builds.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// The settings of all daemons; those of one daemon don't concern larder.
const DEFAULT: &str = "default";

/// What of `config.json` is read here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

impl Proxies {
    fn variables(self) -> [(&'static str, String); 5] {
        [
            ("HTTP_PROXY", self.http_proxy),
            ("HTTPS_PROXY", self.https_proxy),
            ("NO_PROXY", self.no_proxy),
            ("FTP_PROXY", self.ftp_proxy),
            ("ALL_PROXY", self.all_proxy),
        ]
    }
}

/// Returns the build arguments that `config.json` in `directory` asks for, each in capitals and
/// not, as Docker's tools have it; none without such a file.
///
/// # Errors
/// If the file can't be read or is no such configuration.
pub(crate) fn build_args(directory: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let path = directory.join("config.json");
    let text = match fs_err::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut config: DockerConfig = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read proxies from `{}`", path.display()))?;
    let proxies = config.proxies.remove(DEFAULT).unwrap_or_default();
    let given = proxies.variables().into_iter();
    Ok(given
        .filter(|(_, value)| !value.is_empty())
        .flat_map(|(name, value)| {
            [
                (name.to_owned(), value.clone()),
                (name.to_ascii_lowercase(), value),
            ]
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> anyhow::Result<Vec<(String, String)>> {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("config.json"), text).unwrap();
        build_args(directory.path())
    }

    #[test]
    fn the_default_proxies_are_told_in_both_spellings() {
        let config = r#"{
            "auths": {"example.com": {"auth": "c2VjcmV0"}},
            "proxies": {
                "default": {"httpProxy": "http://p:1", "noProxy": "a,b"},
                "tcp://other:2376": {"httpProxy": "http://q:2"}
            }
        }"#;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            args(config).unwrap(),
            [
                pair("HTTP_PROXY", "http://p:1"),
                pair("http_proxy", "http://p:1"),
                pair("NO_PROXY", "a,b"),
                pair("no_proxy", "a,b"),
            ]
        );
    }

    #[test]
    fn no_file_and_no_proxies_are_none() {
        assert_eq!(build_args(Path::new("/does/not/exist")).unwrap(), []);
        assert_eq!(args("{}").unwrap(), []);
        assert!(args("[").is_err());
    }
}
