//! What steps may do beyond the usual: only what whoever builds has allowed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use larder_llb::{Definition, pb};

use crate::cdi::Devices;
use crate::error::{BuildError, ErrorClass, Result};

/// Something that steps may be allowed, as `--allow` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `network.host`: the host's network.
    NetworkHost,
    /// `security.insecure`: to run without confinement.
    SecurityInsecure,
    /// `device`: all devices.
    AllDevices,
    /// `device=NAME[,alias=ALIAS]`: one device, or those of a kind or class.
    Device {
        /// As registered.
        name: String,
        /// What steps call it.
        alias: Option<String>,
    },
}

/// What an entitlement's text begins with.
const NETWORK_HOST: &str = "network.host";
const SECURITY_INSECURE: &str = "security.insecure";
const DEVICE: &str = "device";

impl Entitlement {
    /// Returns the name without what follows: that by which a configuration allows it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NetworkHost => NETWORK_HOST,
            Self::SecurityInsecure => SECURITY_INSECURE,
            Self::AllDevices | Self::Device { .. } => DEVICE,
        }
    }
}

impl FromStr for Entitlement {
    type Err = String;

    /// Reads `network.host`, `security.insecure`, `device` or `device=NAME[,alias=ALIAS]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match (key, value) {
            (NETWORK_HOST, "") => Ok(Self::NetworkHost),
            (SECURITY_INSECURE, "") => Ok(Self::SecurityInsecure),
            (DEVICE, "") => Ok(Self::AllDevices),
            (DEVICE, value) => {
                let mut fields = value.split(',');
                let name = fields.next().unwrap_or_default().to_owned();
                let mut alias = None;
                for field in fields {
                    match field.split_once('=') {
                        Some(("alias", value)) => alias = Some(value.to_owned()),
                        _ => return Err(format!("unknown device config key `{field}`")),
                    }
                }
                Ok(Self::Device { name, alias })
            }
            _ => Err(format!(
                "unknown entitlement key `{key}` (expected {NETWORK_HOST}, {SECURITY_INSECURE} or \
                 {DEVICE})"
            )),
        }
    }
}

/// What the steps of a target may do, and the devices there are for them.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    network_host: bool,
    security_insecure: bool,
    all_devices: bool,
    /// Names of devices; by an alias if they have one.
    named: BTreeMap<String, Option<String>>,
    /// Where devices are specified.
    directories: Vec<PathBuf>,
    /// Read when a step first wants one.
    devices: OnceLock<Devices>,
}

impl Granted {
    /// Grants what a build is allowed, as far as the configuration lets it: `permitted` has the names
    /// of what may be granted, if that is bounded. Devices are specified in `directories`.
    ///
    /// # Errors
    /// When the configuration forbids it.
    pub(crate) fn new(
        allowed: &[Entitlement],
        permitted: Option<&[String]>,
        directories: Vec<PathBuf>,
    ) -> Result<Self> {
        let mut granted = Self {
            directories,
            ..Self::default()
        };
        for entitlement in allowed {
            let key = entitlement.key();
            if permitted.is_some_and(|permitted| permitted.iter().all(|name| name != key)) {
                return Err(BuildError::new(
                    ErrorClass::Invalid,
                    format!(
                        "granting entitlement {key} is not allowed by build daemon configuration"
                    ),
                )
                .with_hint(
                    "`insecure-entitlements` in larder.toml lists what builds may be allowed",
                ));
            }
            match entitlement {
                Entitlement::NetworkHost => granted.network_host = true,
                Entitlement::SecurityInsecure => granted.security_insecure = true,
                Entitlement::AllDevices => granted.all_devices = true,
                Entitlement::Device { name, alias } => {
                    let (known_as, real) = match alias {
                        Some(alias) => (alias.clone(), Some(name.clone())),
                        None => (name.clone(), None),
                    };
                    granted.named.insert(known_as, real);
                }
            }
        }
        Ok(granted)
    }

    /// Fails unless all that the steps of `definition` want is granted.
    ///
    /// # Errors
    /// In BuildKit's words.
    pub(crate) fn check(&self, definition: &Definition) -> Result<()> {
        for vertex in definition.vertices() {
            if let Some(pb::op::Op::Exec(exec)) = &vertex.op.op {
                self.check_exec(exec).map_err(|error| {
                    error
                        .context("failed to load LLB")
                        .with_vertex(vertex.digest.clone())
                })?;
            }
        }
        Ok(())
    }

    fn check_exec(&self, exec: &pb::ExecOp) -> Result<()> {
        let wanted = [
            (
                exec.network() == pb::NetMode::Host,
                self.network_host,
                NETWORK_HOST,
            ),
            (
                exec.security() == pb::SecurityMode::Insecure,
                self.security_insecure,
                SECURITY_INSECURE,
            ),
        ];
        for (is_wanted, is_granted, name) in wanted {
            if is_wanted && !is_granted {
                return Err(BuildError::invalid(format!("{name} is not allowed"))
                    .with_hint(format!("allow it with `--allow {name}`")));
            }
        }
        let forbidden: Vec<String> = self
            .devices_of(exec)?
            .into_iter()
            .filter(|(_, is_granted)| !is_granted)
            .map(|(name, _)| name)
            .collect();
        let message = match &forbidden[..] {
            [] => return Ok(()),
            [only] => format!("device {only} is requested by the build but not allowed"),
            several => format!(
                "devices {} are requested by the build but not allowed",
                several.join(", ")
            ),
        };
        let hint = format!("allow it with `--allow device={}`", forbidden[0]);
        Err(BuildError::invalid(message).with_hint(hint))
    }

    /// Returns the full names of the devices that a step gets, each once, in its order.
    ///
    /// # Errors
    /// When a required one is not there.
    pub(crate) fn resolve(&self, exec: &pb::ExecOp) -> Result<Vec<String>> {
        let devices = self.devices_of(exec)?;
        Ok(devices.into_iter().map(|(name, _)| name).collect())
    }

    /// Returns the devices that a step wants, and whether each is granted.
    fn devices_of(&self, exec: &pb::ExecOp) -> Result<Vec<(String, bool)>> {
        if exec.cdi_devices.is_empty() {
            return Ok(Vec::new());
        }
        let mut granted = Vec::new();
        for name in self.named.iter().filter(|(_, real)| real.is_none()) {
            granted.extend(self.find(name.0, true)?);
        }
        let mut found: Vec<(String, bool)> = Vec::new();
        for wanted in &exec.cdi_devices {
            let real = self.named.get(&wanted.name).and_then(Option::as_ref);
            let names = self.find(real.unwrap_or(&wanted.name), wanted.optional)?;
            for name in names {
                let is_granted = self.all_devices
                    || real.is_some()
                    || granted.contains(&name)
                    || self.devices().is_auto_allowed(&name);
                if found.iter().all(|(known, _)| *known != name) {
                    found.push((name, is_granted));
                }
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str, optional: bool) -> Result<Vec<String>> {
        self.devices().find(&pb::CdiDevice {
            name: name.to_owned(),
            optional,
        })
    }

    /// Returns the devices of the machine.
    pub(crate) fn devices(&self) -> &Devices {
        self.devices
            .get_or_init(|| Devices::load(&self.directories))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(texts: &[&str]) -> Vec<Entitlement> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn entitlements_are_read() {
        assert_eq!(
            allowed(&["network.host", "device", "device=a/b=c,alias=x"]),
            [
                Entitlement::NetworkHost,
                Entitlement::AllDevices,
                Entitlement::Device {
                    name: "a/b=c".to_owned(),
                    alias: Some("x".to_owned())
                }
            ]
        );
        for bad in ["", "network", "network.host=x", "device=a,b=c"] {
            assert!(bad.parse::<Entitlement>().is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_may_do_what_is_granted() {
        let exec = |host: bool, insecure: bool| {
            let mut exec = pb::ExecOp::default();
            if host {
                exec.set_network(pb::NetMode::Host);
            }
            if insecure {
                exec.set_security(pb::SecurityMode::Insecure);
            }
            exec
        };
        let check = |texts: &[&str], exec: &pb::ExecOp| {
            let granted = Granted::new(&allowed(texts), None, Vec::new()).unwrap();
            granted.check_exec(exec).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[], &exec(false, false)), Ok(()));
        assert_eq!(
            check(&["security.insecure"], &exec(true, true)),
            Err("network.host is not allowed".to_owned())
        );
        assert_eq!(
            check(&["network.host"], &exec(true, true)),
            Err("security.insecure is not allowed".to_owned())
        );
        let both = ["network.host", "security.insecure"];
        assert_eq!(check(&both, &exec(true, true)), Ok(()));
        let permitted = ["network.host".to_owned()];
        let error = Granted::new(&allowed(&both), Some(&permitted), Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
    }

    #[test]
    fn devices_are_granted_by_name_kind_alias_or_by_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let text = "cdiVersion: 0.6.0\nkind: v.com/d\ndevices:\n- name: one\n- name: two\n- name: free\n  \
                    annotations: {org.mobyproject.buildkit.device.autoallow: 'true'}\n";
        fs_err::write(directory.path().join("v.yaml"), text).unwrap();
        let check = |texts: &[&str], wanted: &[(&str, bool)]| {
            let directories = vec![directory.path().to_owned()];
            let granted = Granted::new(&allowed(texts), None, directories).unwrap();
            let exec = pb::ExecOp {
                cdi_devices: wanted
                    .iter()
                    .map(|(name, optional)| pb::CdiDevice {
                        name: (*name).to_owned(),
                        optional: *optional,
                    })
                    .collect(),
                ..pb::ExecOp::default()
            };
            granted
                .check_exec(&exec)
                .and_then(|()| granted.resolve(&exec))
                .map_err(|error| error.to_string())
        };
        let ok = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        let no = |text: &str| Err(text.to_owned());
        assert_eq!(
            check(&[], &[("v.com/d=free", false)]),
            ok(&["v.com/d=free"])
        );
        assert_eq!(
            check(&[], &[("v.com/d=one", false)]),
            no("device v.com/d=one is requested by the build but not allowed")
        );
        assert_eq!(
            check(&[], &[("v.com/d=*", false)]),
            no("devices v.com/d=one, v.com/d=two are requested by the build but not allowed")
        );
        assert_eq!(
            check(&["device=v.com/d=one"], &[("v.com/d=one", false)]),
            ok(&["v.com/d=one"])
        );
        assert_eq!(
            check(&["device=v.com/d=two,alias=gpu"], &[("gpu", false)]),
            ok(&["v.com/d=two"])
        );
        assert_eq!(
            check(&["device"], &[("v.com/d=*", false), ("none", true)]),
            ok(&["v.com/d=free", "v.com/d=one", "v.com/d=two"])
        );
        assert_eq!(check(&["device"], &[("none", true)]), ok(&[]));
        assert_eq!(
            check(&["device"], &[("none", false)]),
            no("required device \"none\" is not registered")
        );
    }
}
