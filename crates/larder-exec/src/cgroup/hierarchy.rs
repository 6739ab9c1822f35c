//! Where the hierarchies of cgroups are mounted, and what they control.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The directory beneath which all of larder's cgroups lie.
const DIRECTORY: &str = "larder";

/// A tree of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hierarchy {
    /// That of version 2.
    Unified,
    /// One of version 1, by one of its controllers.
    Legacy(&'static str),
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Mounted {
    /// Where.
    mount: PathBuf,
    /// The cgroup that is seen there.
    root: String,
    /// Its controllers, if it is of version 1.
    controllers: Vec<String>,
    is_unified: bool,
}

/// All that are mounted.
fn mounted() -> &'static [Mounted] {
    static MOUNTED: OnceLock<Vec<Mounted>> = OnceLock::new();
    MOUNTED.get_or_init(|| {
        let text = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        text.lines().filter_map(parse).collect()
    })
}

/// Reads a line of `mountinfo`, if it is about cgroups.
fn parse(line: &str) -> Option<Mounted> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let is_unified = match kind.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (place.next()?, place.next()?);
    let options = kind.nth(1).unwrap_or_default();
    Some(Mounted {
        mount: PathBuf::from(mount),
        root: root.to_owned(),
        controllers: options.split(',').map(str::to_owned).collect(),
        is_unified,
    })
}

/// Controllers of the hierarchy of version 2.
fn unified_controllers() -> &'static str {
    static CONTROLLERS: OnceLock<String> = OnceLock::new();
    CONTROLLERS.get_or_init(|| {
        let mount = Hierarchy::Unified.mount();
        let read = mount.map(|mount| fs_err::read_to_string(mount.join("cgroup.controllers")));
        read.and_then(Result::ok).unwrap_or_default()
    })
}

impl Hierarchy {
    /// Returns the one that has a controller, if one has.
    pub(super) fn of(controller: &'static str) -> Option<Self> {
        let mut unified = unified_controllers().split_whitespace();
        if unified.any(|name| name == controller) {
            return Some(Self::Unified);
        }
        let legacy = Self::Legacy(controller);
        legacy.mounted().map(|_| legacy)
    }

    pub(super) fn is_legacy(self) -> bool {
        matches!(self, Self::Legacy(_))
    }

    fn mounted(self) -> Option<&'static Mounted> {
        mounted().iter().find(|mounted| match self {
            Self::Unified => mounted.is_unified,
            Self::Legacy(controller) => {
                !mounted.is_unified && mounted.controllers.iter().any(|name| name == controller)
            }
        })
    }

    /// Returns where it is mounted.
    pub(super) fn mount(self) -> Option<&'static Path> {
        self.mounted().map(|mounted| mounted.mount.as_path())
    }

    /// Returns where larder's directory may be: beneath the parent if one is given. Else, of version
    /// 2 beneath the root, and for who may not write there beneath larder's own cgroup; of version 1
    /// beneath larder's own, whose limits a run must not get out of.
    pub(super) fn bases(self, parent: Option<&str>) -> Vec<PathBuf> {
        let Some(mounted) = self.mounted() else {
            return Vec::new();
        };
        let below = |path: &str| {
            mounted
                .mount
                .join(path.trim_start_matches('/'))
                .join(DIRECTORY)
        };
        if let Some(parent) = parent {
            return vec![below(parent)];
        }
        let own = self.own_cgroup();
        let own = own.map(|path| below(path.strip_prefix(&mounted.root).unwrap_or(&path)));
        let mut bases = match self {
            Self::Unified => vec![below("")],
            Self::Legacy(_) => Vec::new(),
        };
        bases.extend(own);
        bases.dedup();
        bases
    }

    /// Returns this process's cgroup in it.
    fn own_cgroup(self) -> Option<String> {
        let cgroups = fs_err::read_to_string("/proc/self/cgroup").ok()?;
        cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_ours = match self {
                Self::Unified => controllers.is_empty(),
                Self::Legacy(controller) => controllers.split(',').any(|name| name == controller),
            };
            is_ours.then(|| path.to_owned())
        })
    }

    /// Returns all that are mounted, each once.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        const LEGACY: [&str; 5] = ["memory", "cpu", "cpuset", "pids", "devices"];
        let legacy = LEGACY.into_iter().map(Self::Legacy);
        let all = std::iter::once(Self::Unified).chain(legacy);
        all.filter(|hierarchy| hierarchy.mounted().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_both_versions_are_known() {
        let line = "32 31 0:29 /docker/1 /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct";
        let legacy = parse(line).unwrap();
        assert_eq!(legacy.mount, Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(legacy.root, "/docker/1");
        assert!(!legacy.is_unified && legacy.controllers.contains(&"cpuacct".to_owned()));
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert!(parse(line).unwrap().is_unified);
        assert!(parse("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw").is_none());
    }
}
