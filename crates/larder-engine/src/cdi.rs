//! Devices of the Container Device Interface (CDI): what specifications in directories of the machine
//! say steps may be given, and how.
//!
//! A step names devices by `vendor.com/class=name`, by `vendor.com/class=*` for all of a kind, by
//! `vendor.com/class` for the first of a kind, or by a class of their annotations.

mod edits;
mod spec;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_llb::pb;

use crate::error::{BuildError, ErrorClass, Result};

pub(crate) use edits::DeviceEdits;
use spec::{Device, Spec};

/// Annotations of BuildKit's: the class of a device, and whether it may be used without asking.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// The devices of a machine.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    specs: Vec<Spec>,
    /// By their full names; where in `specs` each is.
    devices: BTreeMap<String, (usize, usize)>,
    /// Files that could not be read as specifications.
    unusable: Vec<PathBuf>,
}

impl Devices {
    /// Reads all specifications of `directories`; those of later ones win.
    pub(crate) fn load(directories: &[PathBuf]) -> Self {
        let mut devices = Self::default();
        for directory in directories {
            devices.load_directory(directory);
        }
        devices
    }

    fn load_directory(&mut self, directory: &Path) {
        let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        // By name; twice in one directory is once too often, as CDI says.
        let mut own: BTreeMap<String, Option<(usize, usize)>> = BTreeMap::new();
        for file in files.into_iter().filter(|file| spec::is_spec(file)) {
            let spec = match Spec::read(&file) {
                Ok(spec) => spec,
                Err(problem) => {
                    tracing::warn!(file = %file.display(), problem, "unusable CDI specification");
                    self.unusable.push(file);
                    continue;
                }
            };
            let position = self.specs.len();
            for (index, device) in spec.devices.iter().enumerate() {
                let name = format!("{}={}", spec.kind, device.name);
                let place = (!own.contains_key(&name)).then_some((position, index));
                own.insert(name, place);
            }
            self.specs.push(spec);
        }
        for (name, place) in own {
            match place {
                Some(place) => drop(self.devices.insert(name, place)),
                None => drop(self.devices.remove(&name)),
            }
        }
    }

    fn get(&self, name: &str) -> Option<(&Spec, &Device)> {
        let (spec, device) = self.devices.get(name)?;
        let spec = &self.specs[*spec];
        Some((spec, &spec.devices[*device]))
    }

    fn annotation(&self, name: &str, key: &str) -> Option<&str> {
        let (spec, device) = self.get(name)?;
        let of_device = device.annotations.get(key);
        of_device
            .or_else(|| spec.annotations.get(key))
            .map(String::as_str)
    }

    /// Returns whether a device, by its full name, may be used by whoever wants to.
    pub(crate) fn is_auto_allowed(&self, name: &str) -> bool {
        matches!(
            self.annotation(name, AUTO_ALLOW),
            Some("true" | "True" | "TRUE" | "t" | "T" | "1")
        )
    }

    /// Returns the full names of what `wanted` stands for; none if it is optional and not there.
    ///
    /// # Errors
    /// When it is required and not there.
    pub(crate) fn find(&self, wanted: &pb::CdiDevice) -> Result<Vec<String>> {
        let name = wanted.name.as_str();
        let (kind, member) = name.split_once('=').unwrap_or((name, ""));
        let of_kind = || {
            let of_kind = move |full: &&String| {
                full.strip_prefix(kind)
                    .is_some_and(|rest| rest.starts_with('='))
            };
            self.devices.keys().filter(of_kind).cloned()
        };
        let has_vendor = kind.contains('/');
        let mut found: Vec<String> = match (has_vendor, member) {
            (false, _) => Vec::new(),
            (true, "") => of_kind().take(1).collect(),
            (true, "*") => of_kind().collect(),
            (true, _) => self
                .get(name)
                .map(|_| name.to_owned())
                .into_iter()
                .collect(),
        };
        if found.is_empty() {
            let of_class = |full: &&String| self.annotation(full, CLASS) == Some(name);
            found = self.devices.keys().filter(of_class).cloned().collect();
        }
        if found.is_empty() && !wanted.optional {
            return Err(self.missing(name));
        }
        Ok(found)
    }

    fn missing(&self, name: &str) -> BuildError {
        let message = format!("required device {name:?} is not registered");
        let error = BuildError::new(ErrorClass::NotFound, message);
        match &self.unusable[..] {
            [] => error.with_hint("devices are registered by CDI specifications, as in /etc/cdi"),
            [file, ..] => error.with_hint(format!(
                "`{}` is no usable CDI specification; run with --debug to see why",
                file.display()
            )),
        }
    }

    /// Returns all, each by its full name and whether it may be used without asking.
    pub(crate) fn list(&self) -> Vec<String> {
        let names = self.devices.keys();
        let shown = names.map(|name| {
            if self.is_auto_allowed(name) {
                format!("{name} (automatically allowed)")
            } else {
                name.clone()
            }
        });
        shown.collect()
    }

    /// Returns what steps that are given these devices, by their full names, see of them.
    pub(crate) fn edits(&self, names: &[String]) -> Result<DeviceEdits> {
        let mut edits = DeviceEdits::default();
        let mut specs = Vec::new();
        for name in names {
            let Some((spec, device)) = self.get(name) else {
                continue;
            };
            if !specs.contains(&spec.kind) {
                specs.push(spec.kind.clone());
                edits.add(&spec.container_edits, name)?;
            }
            edits.add(&device.container_edits, name)?;
        }
        Ok(edits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
devices:
- name: foo
  containerEdits:
    env:
    - FOO=injected
- name: bar
  annotations:
    org.mobyproject.buildkit.device.class: class1
  containerEdits:
    env:
    - BAR=injected
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: [ALL=1]
"#;

    fn devices() -> (tempfile::TempDir, Devices) {
        let directory = tempfile::tempdir().unwrap();
        let [low, high] = ["low", "high"].map(|name| directory.path().join(name));
        for directory in [&low, &high] {
            fs_err::create_dir(directory).unwrap();
        }
        fs_err::write(low.join("one.yaml"), SPEC).unwrap();
        let json = r#"{"cdiVersion": "0.5.0", "kind": "vendor2.com/net", "devices": [
            {"name": "a", "containerEdits": {"env": ["A=low"]}},
            {"name": "b", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]}"#;
        fs_err::write(low.join("two.json"), json).unwrap();
        let json = r#"{"cdiVersion": "0.5.0", "kind": "vendor2.com/net", "devices": [
            {"name": "a", "containerEdits": {"env": ["A=high"]}}]}"#;
        fs_err::write(high.join("two.json"), json).unwrap();
        fs_err::write(high.join("bad.yaml"), "kind: nonsense\n").unwrap();
        let devices = Devices::load(&[low, high]);
        (directory, devices)
    }

    fn wanted(name: &str, optional: bool) -> pb::CdiDevice {
        pb::CdiDevice {
            name: name.to_owned(),
            optional,
        }
    }

    #[test]
    fn devices_are_found_by_name_kind_and_class() {
        let (_directory, devices) = devices();
        for (name, expected) in [
            ("vendor1.com/device=foo", &["vendor1.com/device=foo"][..]),
            ("vendor1.com/device", &["vendor1.com/device=bar"]),
            (
                "vendor1.com/device=*",
                &["vendor1.com/device=bar", "vendor1.com/device=foo"],
            ),
            ("class1", &["vendor1.com/device=bar"]),
            ("vendor1.com/device=none", &[]),
            ("vendor1.com", &[]),
        ] {
            assert_eq!(
                devices.find(&wanted(name, true)).unwrap(),
                expected,
                "{name}"
            );
        }
        let error = devices.find(&wanted("vendor3.com/x", false)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "required device \"vendor3.com/x\" is not registered"
        );
        assert!(error.hint().unwrap().contains("bad.yaml"));
        assert!(devices.is_auto_allowed("vendor1.com/device=foo"));
        assert!(!devices.is_auto_allowed("vendor2.com/net=a"));
    }

    #[test]
    fn edits_are_those_of_the_specification_and_then_of_the_device() {
        let (_directory, devices) = devices();
        let names = [
            "vendor1.com/device=foo",
            "vendor2.com/net=a",
            "vendor1.com/device=bar",
        ];
        let edits = devices.edits(&names.map(str::to_owned)).unwrap();
        assert_eq!(
            edits.env,
            ["ALL=1", "FOO=injected", "A=high", "BAR=injected"]
        );
        let error = devices
            .edits(&["vendor2.com/net=b".to_owned()])
            .unwrap_err();
        assert!(error.to_string().contains("hooks"), "{error}");
    }

    #[test]
    fn a_name_that_is_there_twice_is_nobody_s() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yml"] {
            fs_err::write(directory.path().join(file), SPEC).unwrap();
        }
        let devices = Devices::load(&[directory.path().to_owned()]);
        assert!(devices.find(&wanted("vendor1.com/device", false)).is_err());
    }
}
