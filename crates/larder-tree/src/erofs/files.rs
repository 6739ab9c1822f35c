use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::decode::{ReadSuperblock, damaged, word};
use super::format::{
    BLOCK_BYTES, DEVICE_NAME_BYTES, DEVICE_SLOT_BYTES, MAX_BLOCKS, SUPERBLOCK_OFFSET,
};

/// The files that an image lies in: its own, and those of its extra devices. These are other images,
/// whose blocks it uses for what its files have in common with theirs.
#[derive(Debug)]
pub struct Files {
    own: File,
    devices: Vec<Device>,
}

/// An extra device of an image.
#[derive(Debug)]
pub struct Device {
    slot: DeviceSlot,
    file: File,
}

/// What the image knows of an extra device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceSlot {
    pub(super) name: String,
    pub(super) block_count: u32,
    /// The number that its first block has in the image.
    pub(super) first_block: u32,
}

impl Files {
    /// Returns the files of the image in `own`, which is complete; `open` opens its extra devices, by the names under
    /// which they were [shared](super::Past::shared_as).
    ///
    /// # Errors
    /// `InvalidData` for what is no image that [`Image`](super::Image) has written; those of `open`.
    pub fn open(own: File, mut open: impl FnMut(&str) -> io::Result<File>) -> io::Result<Self> {
        let slots = read_slots(&own)?;
        let devices = slots.into_iter().map(|slot| {
            let file = open(&slot.name)?;
            let length = u64::from(slot.block_count) * BLOCK_BYTES as u64;
            if file.metadata()?.len() < length {
                return Err(damaged("the end of an image that it uses is missing"));
            }
            Ok(Device { slot, file })
        });
        let devices = devices.collect::<io::Result<_>>()?;
        Ok(Self { own, devices })
    }

    /// Returns the names of the extra devices of the image in `own`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn device_names(own: &File) -> io::Result<Vec<String>> {
        let slots = read_slots(own)?;
        Ok(slots.into_iter().map(|slot| slot.name).collect())
    }

    /// Returns the image's own file, which has the superblock.
    pub fn own(&self) -> &File {
        &self.own
    }

    /// Returns the files of the extra devices, in the order in which they must be mounted.
    pub fn devices(&self) -> impl Iterator<Item = &File> {
        self.devices.iter().map(|device| &device.file)
    }

    pub(super) fn device_slots(&self) -> impl Iterator<Item = &DeviceSlot> {
        self.devices.iter().map(|device| &device.slot)
    }

    /// Returns the file that holds `length` bytes from `offset` on, as the image's blocks are numbered; which device
    /// it is, if it is one; and where they begin there. `None` for what lies outside, or in more than one file.
    pub(super) fn locate(&self, offset: u64, length: u64, own_length: u64) -> Option<Located<'_>> {
        let end = offset.checked_add(length)?;
        if end <= own_length {
            return Some(Located {
                file: &self.own,
                device: None,
                offset,
            });
        }
        let found = self.devices.iter().enumerate().find(|(_, device)| {
            let (begin, length) = device.slot.bytes();
            offset >= begin && end <= begin + length
        });
        found.map(|(index, device)| Located {
            file: &device.file,
            device: Some(index),
            offset: offset - device.slot.bytes().0,
        })
    }
}

impl From<File> for Files {
    /// Takes an image that has no extra devices.
    fn from(own: File) -> Self {
        Self {
            own,
            devices: Vec::new(),
        }
    }
}

/// Where bytes of an image are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<'a> {
    pub(super) file: &'a File,
    /// Which extra device it is; `None` for the image's own file.
    pub(super) device: Option<usize>,
    pub(super) offset: u64,
}

impl DeviceSlot {
    /// Returns where in the image its bytes begin, and how many they are.
    fn bytes(&self) -> (u64, u64) {
        let bytes = |blocks: u32| u64::from(blocks) * BLOCK_BYTES as u64;
        (bytes(self.first_block), bytes(self.block_count))
    }

    /// Returns the slot as it lies in the table; `None` for a name that has no room there.
    pub(super) fn encode(&self) -> Option<[u8; DEVICE_SLOT_BYTES]> {
        let mut slot = [0; DEVICE_SLOT_BYTES];
        let name = self.name.as_bytes();
        slot[..DEVICE_NAME_BYTES]
            .get_mut(..name.len())?
            .copy_from_slice(name);
        slot[64..68].copy_from_slice(&self.block_count.to_le_bytes());
        slot[68..72].copy_from_slice(&self.first_block.to_le_bytes());
        Some(slot)
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let name = slot.get(..DEVICE_NAME_BYTES)?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(Self {
            name: str::from_utf8(name).ok()?.to_owned(),
            block_count: word(slot, 64)?,
            first_block: word(slot, 68)?,
        })
    }
}

fn read_slots(own: &File) -> io::Result<Vec<DeviceSlot>> {
    let mut first = [0; BLOCK_BYTES];
    own.read_exact_at(&mut first, 0)?;
    let superblock = ReadSuperblock::decode(&first);
    let superblock = superblock.ok_or_else(|| damaged("it has no superblock"))?;
    let table = first[..SUPERBLOCK_OFFSET].chunks(DEVICE_SLOT_BYTES);
    // The superblock's checksum doesn't cover them, but each begins where the one before ends.
    let mut next = MAX_BLOCKS as u32;
    let slots = table.take(superblock.device_count).map(|slot| {
        let slot = DeviceSlot::decode(slot).filter(|slot| slot.first_block == next)?;
        next = next.checked_add(slot.block_count)?;
        Some(slot)
    });
    let slots = slots.collect::<Option<_>>();
    slots.ok_or_else(|| damaged("its table of devices is none"))
}
