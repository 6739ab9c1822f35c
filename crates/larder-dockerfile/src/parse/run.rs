use crate::args;
use crate::flags::FlagKind::{List, Text};
use crate::flags::{FlagKind, Flags};
use crate::golang;
use crate::heredoc::Heredoc;
use crate::instruction::{CommandLine, DeviceFlag, MountFlag, Run, RunNetwork};
use crate::path;
use crate::statement::Statement;
use crate::suggest::with_suggestion;

const FLAGS: [(&str, FlagKind); 4] = [
    ("mount", List),
    ("network", Text),
    ("security", Text),
    ("device", List),
];

/// Parses RUN. Mounts are checked when their variables have values; see [`parse_mount`].
pub(super) fn parse(statement: &Statement) -> Result<Run, String> {
    let flags = Flags::parse(&statement.flags, &FLAGS)?;
    let command = super::command_line(&statement.rest)?;
    if matches!(&command, CommandLine::Exec(words) if words.is_empty())
        || command == CommandLine::Shell(String::new())
    {
        return Err(super::at_least_one("RUN"));
    }
    let network = match flags.text("network").unwrap_or_default() {
        "" | "default" => RunNetwork::Default,
        "none" => RunNetwork::None,
        "host" => RunNetwork::Host,
        other => {
            let message = format!("network mode {} is not valid", golang::quote(other));
            return Err(with_suggestion(message, other, ["default", "none", "host"]));
        }
    };
    let insecure = match flags.text("security").unwrap_or_default() {
        "" | "sandbox" => false,
        "insecure" => true,
        other => {
            let message = format!("security {} is not valid", golang::quote(other));
            return Err(with_suggestion(message, other, ["sandbox", "insecure"]));
        }
    };
    let is_script = matches!(Heredoc::parse(&statement.rest), Ok(Some(_)));
    let mounts: Result<_, String> = flags.list("mount").map(mount_flag).collect();
    let devices: Result<_, String> = flags.list("device").map(device_flag).collect();
    Ok(Run {
        command,
        documents: statement
            .heredocs
            .iter()
            .map(|heredoc| {
                let content = if is_script {
                    heredoc.body()
                } else {
                    heredoc.content.clone()
                };
                (heredoc.name.clone(), content)
            })
            .collect(),
        is_script,
        mounts: mounts?,
        network,
        insecure,
        devices: devices?,
    })
}

fn mount_flag(text: &str) -> Result<MountFlag, String> {
    let mut from = None;
    for field in args::comma_separated(text)? {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        if key.eq_ignore_ascii_case("from") {
            if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                return Err(
                    "'from' doesn't support variable expansion, define alias stage instead"
                        .to_owned(),
                );
            }
            from = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
    }
    Ok(MountFlag {
        text: text.to_owned(),
        from,
    })
}

/// Reads `vendor.com/class=name[,required]`.
fn device_flag(text: &str) -> Result<DeviceFlag, String> {
    let mut device = DeviceFlag::default();
    let fields =
        args::comma_separated(text).map_err(|error| error.replace("csv mounts", "csv devices"))?;
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => device.required = boolean(&key, value)?,
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(format!("device name already set to {}", device.name));
            }
            ("name", Some(value)) => value.clone_into(&mut device.name),
            _ if device.name.is_empty() => device.name.clone_from(&field),
            (_, None) => {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            }
            (_, Some(_)) => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(with_suggestion(message, &key, ["name", "required"]));
            }
        }
    }
    Ok(device)
}

/// What a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.expect("ALL has every type").0
    }
}

/// How concurrent steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Private,
    Locked,
}

/// `RUN --mount=…`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: MountType,
    pub(crate) from: Option<String>,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) readonly: bool,
    pub(crate) required: bool,
    pub(crate) id: String,
    pub(crate) sharing: Option<Sharing>,
    pub(crate) size_bytes: i64,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) env: Option<String>,
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
];

/// Reads `type=…,target=…`; `expand` gives each value its variables' values.
pub(crate) fn parse_mount(
    text: &str,
    mut expand: impl FnMut(&str) -> Result<String, String>,
) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: MountType::Bind,
        from: None,
        source: String::new(),
        target: String::new(),
        readonly: false,
        required: false,
        id: String::new(),
        sharing: None,
        size_bytes: 0,
        mode: None,
        uid: None,
        gid: None,
        env: None,
    };
    let mut readonly = None;
    for field in args::comma_separated(text)? {
        let Some((key, value)) = field.split_once('=') else {
            match field.to_ascii_lowercase().as_str() {
                "readonly" | "ro" => readonly = Some(true),
                "readwrite" | "rw" => readonly = Some(false),
                "required" => mount.set_required("true")?,
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            }
            continue;
        };
        let key = key.to_ascii_lowercase();
        let value = expand(value)?;
        match key.as_str() {
            "readonly" | "ro" => readonly = Some(boolean(&key, &value)?),
            "readwrite" | "rw" => readonly = Some(!boolean(&key, &value)?),
            _ => mount.set(&key, value, &field)?,
        }
    }
    let writable = matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
    mount.readonly = readonly.unwrap_or(!writable);
    mount.check()?;
    Ok(mount)
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    golang::parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"))
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
    u32::from_str_radix(value, radix)
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("invalid value {value} for {key}"))
}

impl Mount {
    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), String> {
        match key {
            "type" => {
                let lower = value.to_ascii_lowercase();
                let found = MountType::ALL.iter().find(|(name, _)| *name == lower);
                self.kind = found.map(|(_, kind)| *kind).ok_or_else(|| {
                    let message = format!("unsupported mount type {}", golang::quote(&value));
                    with_suggestion(message, &value, MountType::ALL.map(|(name, _)| name))
                })?;
            }
            "from" => self.from = Some(value).filter(|value| !value.is_empty()),
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "required" => self.set_required(&value)?,
            "size" if self.kind == MountType::Tmpfs => {
                self.size_bytes = golang::parse_bytes(&value)
                    .ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            "env" if self.kind == MountType::Secret => self.env = Some(value),
            "size" | "env" => return Err(self.unexpected(key)),
            "id" => self.id = value,
            "sharing" => self.sharing = Some(sharing(&value)?),
            "mode" => self.mode = Some(number(key, &value, 8)?),
            "uid" => self.uid = Some(number(key, &value, 10)?),
            "gid" => self.gid = Some(number(key, &value, 10)?),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(with_suggestion(message, key, KEYS));
            }
        }
        Ok(())
    }

    fn set_required(&mut self, value: &str) -> Result<(), String> {
        if !matches!(self.kind, MountType::Secret | MountType::Ssh) {
            return Err(self.unexpected("required"));
        }
        self.required = boolean("required", value)?;
        Ok(())
    }

    fn unexpected(&self, key: &str) -> String {
        format!(
            "unexpected key '{key}' for mount type '{}'",
            self.kind.name()
        )
    }

    fn check(&mut self) -> Result<(), String> {
        let owned = matches!(
            self.kind,
            MountType::Secret | MountType::Ssh | MountType::Cache
        );
        for (key, given) in [
            ("mode", self.mode.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
        ] {
            if given && !owned {
                return Err(format!(
                    "{key} not allowed for \"{}\" type mounts",
                    self.kind.name()
                ));
            }
        }
        if self.kind == MountType::Secret {
            self.check_secret()?;
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            let kind = self.kind.name();
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        if self.target.is_empty()
            && matches!(
                self.kind,
                MountType::Bind | MountType::Cache | MountType::Tmpfs
            )
        {
            return Err(format!("{} mount needs a target", self.kind.name()));
        }
        if self.kind == MountType::Cache && self.id.is_empty() {
            self.id = path::clean(&self.target);
        }
        Ok(())
    }

    fn check_secret(&self) -> Result<(), String> {
        let message = if self.from.is_some() {
            "secret mount should not have a from"
        } else if self.sharing.is_some() {
            "secret mount should not define sharing"
        } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
            "invalid secret mount. one of source, target required"
        } else if !self.source.is_empty() && !self.id.is_empty() {
            "both source and id can't be set"
        } else {
            return Ok(());
        };
        Err(message.to_owned())
    }
}

fn sharing(value: &str) -> Result<Sharing, String> {
    match value.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let message = format!("unsupported sharing value {}", golang::quote(value));
            Err(with_suggestion(
                message,
                value,
                ["shared", "private", "locked"],
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        for (text, name, required) in [
            ("vendor.com/class=name", "vendor.com/class=name", false),
            ("vendor.com/class", "vendor.com/class", false),
            ("vendor.com/class=*,required", "vendor.com/class=*", true),
            ("name=class1,required=false", "class1", false),
            ("required=1,class1", "class1", true),
        ] {
            let device = device_flag(text).unwrap();
            assert_eq!(
                (device.name.as_str(), device.required),
                (name, required),
                "{text}"
            );
        }
        for (text, message) in [
            ("a,b", "invalid field 'b' must be a key=value pair"),
            ("a,name=b", "device name already set to a"),
            (
                "a,requird=1",
                "unexpected key 'requird' in 'requird=1' (did you mean required?)",
            ),
            ("a,required=x", "invalid value for required: x"),
            ("", "failed to parse csv devices: EOF"),
        ] {
            assert_eq!(device_flag(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn mounts_are_checked() {
        let parse = |text: &str| parse_mount(text, |value| Ok(value.to_owned()));
        let cache = parse("type=cache,target=/a/,sharing=locked,uid=1,mode=0700").unwrap();
        assert_eq!((cache.id.as_str(), cache.readonly), ("/a", false));
        assert_eq!((cache.uid, cache.mode), (Some(1), Some(0o700)));
        assert!(parse("source=a,dst=/b").unwrap().readonly);
        assert!(!parse("src=a,dst=/b,rw").unwrap().readonly);
        assert!(parse("type=cache,target=/b,ro").unwrap().readonly);
        for (text, message) in [
            (
                "foo=1,target=/x",
                "unexpected key 'foo' in 'foo=1' (did you mean from?)",
            ),
            (
                "type=bnd",
                "unsupported mount type \"bnd\" (did you mean bind?)",
            ),
            ("target", "invalid field 'target' must be a key=value pair"),
            (
                "type=bind,target=/x,uid=1",
                "uid not allowed for \"bind\" type mounts",
            ),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            (
                "size=1,type=tmpfs",
                "unexpected key 'size' for mount type 'bind'",
            ),
            (
                "required",
                "unexpected key 'required' for mount type 'bind'",
            ),
            (
                "type=secret",
                "invalid secret mount. one of source, target required",
            ),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
            (
                "type=cache,target=/a,sharing=loked",
                "unsupported sharing value \"loked\" (did you mean locked?)",
            ),
            (
                "target=/a,sharing=locked",
                "invalid cache sharing set for bind mount",
            ),
            ("type=bind", "bind mount needs a target"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }
}
