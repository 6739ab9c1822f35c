use rustix::fs::Timespec;

use super::ModeChange;

/// What to copy, where to, and how: the fields of LLB's copy action.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Path in the source, or a pattern.
    pub src: String,
    /// Path in the destination; a `/` or `/.` at its end makes it a directory.
    pub dest: String,
    /// User and group of all that is made; else that of the source, and for the directories that
    /// lead to it that of the process.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of all that is copied; else those of the source.
    pub mode: Option<ModeChange>,
    /// Whether a symlink that `src` names, or matches, is followed.
    pub follow_symlink: bool,
    /// Whether a directory stands for its entries, also where the destination exists.
    pub dir_copy_contents: bool,
    /// Whether an archive is unpacked instead of copied.
    pub unpack_archives: bool,
    /// Whether directories that lead to the destination are made.
    pub create_dest_path: bool,
    /// Whether `src` may be a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern that matches nothing is no error.
    pub allow_empty_wildcard: bool,
    /// Time of all that is made, nanoseconds since 1970; else that of the source, and for the
    /// directories that lead to it the present.
    pub timestamp: Option<i64>,
    /// If not empty, only what matches one of these, relative to the source.
    pub include_patterns: Vec<String>,
    /// Without what matches these.
    pub exclude_patterns: Vec<String>,
    /// Whether what is in the way is removed, whatever it is; directories are merged anyway.
    pub always_replace_existing_dest_paths: bool,
    /// Paths of the source that must exist.
    pub required_paths: Vec<String>,
}

/// What [`copy`](super::copy) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyStats {
    /// Files, links and devices made, without those that an archive brought.
    pub file_count: u64,
    /// Bytes of files copied, and of archives unpacked.
    pub size_bytes: u64,
}

/// What a file operation gives to what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileAttributes {
    /// User and group; else those of the process.
    pub owner: Option<(u32, u32)>,
    /// Nanoseconds since 1970; else the present.
    pub timestamp: Option<i64>,
}

/// Returns a time as the kernel takes it.
pub(super) fn timespec(nanos: i64) -> Timespec {
    Timespec {
        tv_sec: nanos.div_euclid(1_000_000_000),
        tv_nsec: nanos.rem_euclid(1_000_000_000),
    }
}
