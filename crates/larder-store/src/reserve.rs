//! Room that is kept for a full disk: without any, the database can't even be opened, and so
//! nothing can be pruned.

use rustix::fs::FallocateFlags;

use crate::layout::Layout;

/// Several times what opening the database and pruning write.
const RESERVE_BYTES: u64 = 512 << 10;

/// Makes the reserve. It is no failure if the disk has no room for it, or can't promise any.
pub(crate) fn fill(layout: &Layout) {
    let path = layout.reserve();
    let made = std::fs::File::create(&path).and_then(|file| {
        let flags = FallocateFlags::empty();
        Ok(rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES)?)
    });
    if let Err(error) = made {
        tracing::debug!(%error, "no room is reserved for a full disk");
        spend(layout);
    }
}

/// Gives the reserve up, to whoever writes next. Returns whether there was one.
pub(crate) fn spend(layout: &Layout) -> bool {
    std::fs::remove_file(layout.reserve()).is_ok()
}
