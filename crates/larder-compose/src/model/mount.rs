use crate::error::Result;

use super::fields::Fields;

/// A volume of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What kind.
    pub kind: MountKind,
    /// For a bind: the absolute path. For a volume: its key among the project's volumes; `None`
    /// for an anonymous one.
    pub source: Option<String>,
    /// Where it is seen; absolute.
    pub target: String,
    /// Whether it can't be written.
    pub is_readonly: bool,
    /// For a bind: whether a directory is made where nothing is.
    pub creates_host_path: bool,
    /// For a volume: whether it begins empty, whatever the image has there.
    pub no_copy: bool,
    /// For a volume: what of it is mounted.
    pub subpath: Option<String>,
    /// For a tmpfs: its size in bytes.
    pub size_bytes: Option<u64>,
}

/// The kind of a [`Mount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume, named or anonymous.
    Volume,
    /// A directory in memory.
    Tmpfs,
    /// Something that larder does not have.
    Other(String),
}

impl Mount {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        let kind = match fields.text("type").as_deref() {
            Some("bind") => MountKind::Bind,
            Some("volume") | None => MountKind::Volume,
            Some("tmpfs") => MountKind::Tmpfs,
            Some(other) => MountKind::Other(other.to_owned()),
        };
        let bind = fields.fields("bind");
        let volume = fields.fields("volume");
        let tmpfs = fields.fields("tmpfs");
        let flag = |options: Option<&Fields<'_>>, key: &str| match options {
            Some(options) => options.flag(key),
            None => Ok(None),
        };
        Ok(Self {
            kind,
            source: fields.text("source"),
            target: fields.text("target").unwrap_or_default(),
            is_readonly: fields.flag("read_only")?.unwrap_or(false),
            creates_host_path: flag(bind.as_ref(), "create_host_path")?.unwrap_or(false),
            no_copy: flag(volume.as_ref(), "nocopy")?.unwrap_or(false),
            subpath: volume.as_ref().and_then(|options| options.text("subpath")),
            size_bytes: match &tmpfs {
                Some(options) => options.size("size")?,
                None => None,
            },
        })
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The container's.
    pub target: u16,
    /// The host's: a number or a range; `None` for any.
    pub published: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's address, if one is named.
    pub host_ip: Option<String>,
}

impl Port {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            target: fields.number("target")?.unwrap_or_default(),
            published: fields.text("published").filter(|port| !port.is_empty()),
            protocol: fields.text("protocol").unwrap_or_else(|| "tcp".to_owned()),
            host_ip: fields.text("host_ip"),
        })
    }
}

/// A secret or a config that is handed to a service or a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its key among the project's.
    pub source: String,
    /// For a build: the id; for a service: the file. As the source by default.
    pub target: Option<String>,
    /// The owner of the file.
    pub uid: Option<u32>,
    /// The group of the file.
    pub gid: Option<u32>,
    /// The permission bits of the file.
    pub mode: Option<u32>,
}

impl Grant {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self> {
        // A mode in quotes is octal, as one that YAML reads is.
        let mode = match fields.get("mode").and_then(crate::Node::as_text) {
            Some(text) => Some(
                u32::from_str_radix(text, 8)
                    .map_err(|_| fields.error(format!("`mode`: `{text}` is no octal number")))?,
            ),
            None => fields.number("mode")?,
        };
        Ok(Self {
            source: fields.text("source").unwrap_or_default(),
            target: fields.text("target"),
            uid: fields.number("uid")?,
            gid: fields.number("gid")?,
            mode,
        })
    }
}
