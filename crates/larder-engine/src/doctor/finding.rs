use std::fmt;

/// Something that defeats the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The file to change.
    pub file: String,
    /// The line, from 1; 0 for the whole file.
    pub line: u32,
    /// What is wrong and why that costs, one sentence.
    pub problem: String,
    /// What it has cost so far, where the builds so far tell.
    pub cost: Option<Cost>,
    /// What to do, one sentence.
    pub advice: String,
    /// The lines to write, if there are any.
    pub fix: Vec<String>,
}

/// What it is that defeats the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A package manager downloads everything again whenever its step runs.
    NoCacheMount,
    /// A package manager is told not to use the cache that it is given.
    CacheOff,
    /// What a cache mount holds is removed by the step that fills it.
    CacheEmptied,
    /// Steps at once may break what they share.
    UnlockedCache,
    /// apt without its two locked mounts.
    AptMounts,
    /// Debian's images remove what apt has downloaded.
    DockerClean,
    /// `apt-get update` in a step of its own.
    AptUpdateAlone,
    /// All files are copied before packages are installed.
    CopyBeforeInstall,
    /// A variable that changes often stands above steps that don't read it.
    VolatileVariable,
    /// There is no ignore file.
    NoIgnoreFile,
    /// The ignore file lets through what no image needs.
    LeakyContext,
    /// Files whose modes depend on who checked them out.
    UmaskModes,
    /// A base image without a version.
    UnpinnedBase,
    /// A cache source that was never of use.
    ColdSource,
}

impl FindingKind {
    /// Returns its name in output for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCacheMount => "no-cache-mount",
            Self::CacheOff => "cache-off",
            Self::CacheEmptied => "cache-emptied",
            Self::UnlockedCache => "unlocked-cache",
            Self::AptMounts => "apt-mounts",
            Self::DockerClean => "docker-clean",
            Self::AptUpdateAlone => "apt-update-alone",
            Self::CopyBeforeInstall => "copy-before-install",
            Self::VolatileVariable => "volatile-variable",
            Self::NoIgnoreFile => "no-ignore-file",
            Self::LeakyContext => "leaky-context",
            Self::UmaskModes => "umask-modes",
            Self::UnpinnedBase => "unpinned-base",
            Self::ColdSource => "cold-source",
        }
    }
}

/// What something has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// In how many builds.
    pub hits: usize,
    /// Of how many on record.
    pub builds: usize,
    /// How long steps ran because of it, in all.
    pub milliseconds: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hits, builds, .. } = self;
        let seconds = self.milliseconds as f64 / 1000.0;
        match builds {
            1 => write!(f, "{seconds:.1} s in the one build on record"),
            _ => write!(f, "{seconds:.1} s in {hits} of the last {builds} builds"),
        }
    }
}
