//! What a cache may hold at most. BuildKit reads configs up to 1 MiB; these limits only keep a
//! hostile cache from exhausting memory or time.

/// The bytes of a config, and of the value in an image config. 100,000 records take some 30 MB.
pub const CONFIG_BYTES: usize = 64 << 20;
/// The bytes of a manifest or an index; registries refuse more than 4 MiB.
pub const MANIFEST_BYTES: usize = 4 << 20;
/// The records.
pub const RECORDS: usize = 200_000;
/// The links between records, all together.
pub const LINKS: usize = 1_000_000;
/// The layers.
pub const LAYERS: usize = 100_000;
/// The layers of one result. Images have 127 at most with Docker; overlayfs mounts 500.
pub const LAYERS_OF_RESULT: usize = 1_000;
/// The layers of all results together, each counted as often as it occurs.
pub const LAYERS_OF_RESULTS: usize = 2_000_000;
/// How deep indexes may lie in indexes, on the way to an image that holds inline cache.
pub const INDEX_DEPTH: usize = 3;
/// How many images, and lists of them, are looked at for inline cache, on all levels together.
pub const IMAGES: usize = 64;
