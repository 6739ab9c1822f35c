//! What a service sees at its paths: directories, volumes, secrets.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use larder_compose::{Grant, Mount, MountKind, Origin, Project, Resource, Service};
use larder_engine::request::SecretBytes;
use larder_engine::{ContainerMount, ContainerSource, Volume, VolumeName};
use serde::{Deserialize, Serialize};

use super::wrong;
use crate::units;

/// Where secrets are seen.
const SECRETS: &str = "/run/secrets";
/// The permission bits of secrets and configs, unless they say otherwise.
const FILE_MODE: u32 = 0o444;

/// Something that a service sees at a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MountSpec {
    source: SourceSpec,
    pub(super) target: String,
    readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SourceSpec {
    Anonymous,
    Host {
        path: PathBuf,
        create: bool,
    },
    Volume {
        name: String,
        copy: bool,
    },
    Memory {
        size_bytes: Option<u64>,
    },
    File {
        origin: OriginSpec,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Where a secret comes from. The secret itself is not written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OriginSpec {
    File(PathBuf),
    Environment(String),
    Content(String),
}

impl MountSpec {
    /// Returns the mount. Reads secrets, so it is done when the service starts.
    pub(super) fn open(&self) -> anyhow::Result<ContainerMount> {
        let source = self.source.open();
        Ok(ContainerMount {
            source: source.with_context(|| format!("cannot mount `{}`", self.target))?,
            target: self.target.clone(),
            readonly: self.readonly,
        })
    }
}

impl From<Volume> for MountSpec {
    fn from(volume: Volume) -> Self {
        Self {
            source: match volume.source {
                Some(path) => SourceSpec::Host { path, create: true },
                None => SourceSpec::Anonymous,
            },
            target: volume.target,
            readonly: volume.readonly,
        }
    }
}

impl SourceSpec {
    fn open(&self) -> anyhow::Result<ContainerSource> {
        Ok(match self {
            Self::Anonymous => ContainerSource::Anonymous,
            Self::Host { path, create } => ContainerSource::Host {
                path: path.clone(),
                create: *create,
            },
            Self::Volume { name, copy } => ContainerSource::Volume {
                name: VolumeName::new(name)?,
                copy: *copy,
            },
            Self::Memory { size_bytes } => ContainerSource::Memory {
                size_bytes: *size_bytes,
            },
            Self::File {
                origin,
                mode,
                uid,
                gid,
            } => ContainerSource::File {
                content: SecretBytes::new(origin.read()?),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        })
    }
}

impl OriginSpec {
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => Ok(fs_err::read(path)?),
            Self::Environment(name) => std::env::var(name)
                .map(String::into_bytes)
                .map_err(|_| anyhow!("the variable `{name}` is not set")),
            Self::Content(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// Returns the mounts of a service, sorted.
///
/// # Errors
/// Names file, line and key of what can't be mounted.
pub(super) fn of(project: &Project, service: &Service) -> anyhow::Result<Vec<MountSpec>> {
    let mut mounts = Vec::new();
    for mount in &service.mounts {
        mounts.push(MountSpec {
            source: mount_source(project, service, mount)?,
            target: mount.target.clone(),
            readonly: mount.is_readonly,
        });
    }
    for text in &service.tmpfs {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let size = options
            .split(',')
            .find_map(|option| option.strip_prefix("size="));
        let size = size.map(units::parse_size).transpose();
        mounts.push(MountSpec {
            source: SourceSpec::Memory {
                size_bytes: size.map_err(|problem| wrong(service, "tmpfs", &problem))?,
            },
            target: target.to_owned(),
            readonly: false,
        });
    }
    let kinds = [
        ("secrets", &service.secrets, &project.secrets, SECRETS),
        ("configs", &service.configs, &project.configs, ""),
    ];
    for (key, grants, known, directory) in kinds {
        for grant in grants {
            let resource = known.get(&grant.source);
            let resource = resource.with_context(|| format!("`{}` is not known", grant.source))?;
            mounts.push(granted(service, key, grant, resource, directory)?);
        }
    }
    sort(&mut mounts);
    Ok(mounts)
}

/// Puts what lies in another mount after it.
pub(super) fn sort(mounts: &mut [MountSpec]) {
    mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
}

fn mount_source(project: &Project, service: &Service, mount: &Mount) -> anyhow::Result<SourceSpec> {
    let not_there = |what: &str| {
        Err(wrong(
            service,
            "volumes",
            &format!("{what} is not supported"),
        ))
    };
    if mount.subpath.is_some() {
        return not_there("`subpath`");
    }
    Ok(match (&mount.kind, &mount.source) {
        (MountKind::Bind, Some(source)) => SourceSpec::Host {
            path: source.into(),
            create: mount.creates_host_path,
        },
        (MountKind::Volume, Some(key)) => {
            let volume = project.volumes.get(key);
            let volume = volume.with_context(|| format!("volume `{key}` is not known"))?;
            if let Some(driver) = volume.driver.as_deref().filter(|driver| *driver != "local") {
                bail!(
                    "{}: volumes.{key}.driver: `{driver}` is not supported",
                    volume.at
                );
            }
            SourceSpec::Volume {
                name: volume.name.clone(),
                copy: !mount.no_copy,
            }
        }
        (MountKind::Bind | MountKind::Volume, None) => SourceSpec::Anonymous,
        (MountKind::Tmpfs, _) => SourceSpec::Memory {
            size_bytes: mount.size_bytes,
        },
        (MountKind::Other(kind), _) => return not_there(&format!("type `{kind}`")),
    })
}

fn granted(
    service: &Service,
    key: &str,
    grant: &Grant,
    resource: &Resource,
    directory: &str,
) -> anyhow::Result<MountSpec> {
    let origin = match &resource.origin {
        Origin::File(path) => OriginSpec::File(path.clone()),
        Origin::Environment(name) => OriginSpec::Environment(name.clone()),
        Origin::Content(text) => OriginSpec::Content(text.clone()),
        Origin::External => {
            let problem = format!("`{}` is external, which is not supported", grant.source);
            return Err(wrong(service, key, &problem));
        }
    };
    let name = grant.target.as_ref().unwrap_or(&grant.source);
    Ok(MountSpec {
        source: SourceSpec::File {
            origin,
            mode: grant.mode.unwrap_or(FILE_MODE),
            uid: grant.uid.unwrap_or(0),
            gid: grant.gid.unwrap_or(0),
        },
        target: if name.starts_with('/') {
            name.clone()
        } else {
            format!("{directory}/{name}")
        },
        readonly: true,
    })
}
