//! Secrets that flags name.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use larder_engine::request::{SecretBytes, SecretProvider};

use crate::args::{SecretArg, SecretSource};
use crate::environment::Environment;

/// Larger secrets are refused, as BuildKit does (500 KiB).
const MAX_SECRET_BYTES: u64 = 500 * 1024;

/// The secrets of a command line, read when a step asks for them.
pub(crate) struct FlagSecrets(BTreeMap<String, Origin>);

enum Origin {
    File(PathBuf),
    Value(SecretBytes),
    /// A variable that is not set.
    Missing,
}

impl FlagSecrets {
    /// Finds the secrets, so that a wrong name is told before the build begins.
    pub(crate) fn new(secrets: Vec<SecretArg>, env: &Environment) -> anyhow::Result<Self> {
        let mut origins = BTreeMap::new();
        for SecretArg { id, source } in secrets {
            let origin = match source {
                SecretSource::File(path) => file(&id, path)?,
                SecretSource::Env(name) => variable(env, &name).unwrap_or(Origin::Missing),
                SecretSource::ById => match variable(env, &id) {
                    Some(value) => value,
                    None => file(&id, PathBuf::from(&id))?,
                },
            };
            origins.insert(id, origin);
        }
        Ok(Self(origins))
    }
}

fn variable(env: &Environment, name: &str) -> Option<Origin> {
    let value = env.get(name)?;
    Some(Origin::Value(SecretBytes::new(value.as_bytes().to_vec())))
}

fn file(id: &str, path: PathBuf) -> anyhow::Result<Origin> {
    let metadata = std::fs::metadata(&path).with_context(|| {
        format!(
            "`--secret`: secret `{id}`: cannot read `{}`",
            path.display()
        )
    })?;
    ensure!(
        metadata.len() <= MAX_SECRET_BYTES,
        "`--secret`: secret `{id}`: `{}` is larger than {MAX_SECRET_BYTES} bytes",
        path.display()
    );
    Ok(Origin::File(path))
}

impl SecretProvider for FlagSecrets {
    fn secret(&self, id: &str) -> io::Result<Option<SecretBytes>> {
        match self.0.get(id) {
            None | Some(Origin::Missing) => Ok(None),
            Some(Origin::Value(value)) => Ok(Some(value.clone())),
            Some(Origin::File(path)) => fs_err::read(path).map(SecretBytes::new).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(
        env: &[(&str, &str)],
        id: &str,
        source: SecretSource,
    ) -> anyhow::Result<FlagSecrets> {
        let arg = SecretArg {
            id: id.to_owned(),
            source,
        };
        FlagSecrets::new(vec![arg], &Environment::of(env))
    }

    fn value(secrets: &FlagSecrets, id: &str) -> Option<Vec<u8>> {
        secrets
            .secret(id)
            .unwrap()
            .map(|value| value.expose().to_vec())
    }

    #[test]
    fn a_secret_without_source_is_a_variable_or_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs_err::write(&path, "from file").unwrap();
        let id = path.to_str().unwrap();
        let from_file = secrets(&[], id, SecretSource::ById).unwrap();
        assert_eq!(value(&from_file, id).unwrap(), b"from file");
        let from_env = secrets(&[(id, "from env")], id, SecretSource::ById).unwrap();
        assert_eq!(value(&from_env, id).unwrap(), b"from env");
        assert_eq!(value(&from_env, "other"), None);
    }

    #[test]
    fn a_missing_file_is_told_at_once_and_a_missing_variable_when_it_is_needed() {
        let missing = SecretSource::File(PathBuf::from("/does/not/exist"));
        let error = format!("{:#}", secrets(&[], "tok", missing).err().unwrap());
        assert!(
            error.contains("secret `tok`") && error.contains("/does/not/exist"),
            "{error}"
        );
        let unset = secrets(&[], "tok", SecretSource::Env("UNSET".to_owned())).unwrap();
        assert_eq!(value(&unset, "tok"), None);
    }

    #[test]
    fn a_large_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        fs_err::write(&path, vec![0; MAX_SECRET_BYTES as usize + 1]).unwrap();
        let error = secrets(&[], "tok", SecretSource::File(path)).err().unwrap();
        assert!(error.to_string().contains("larger than"), "{error}");
    }
}
