use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use fs_err as fs;
use tempfile::TempDir;

use crate::apt;

/// A small ext4 filesystem in a file, mounted through a loop device: soon full. Unmounted when
/// dropped.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Makes and mounts a filesystem of `size_bytes`. Needs root and loop devices.
    pub fn mount(size_bytes: u64) -> Result<Self> {
        let disk = Self {
            dir: tempfile::tempdir()?,
        };
        let image = disk.dir.path().join("image");
        fs::File::create(&image)?.set_len(size_bytes)?;
        let mount_point = disk.path();
        fs::create_dir(&mount_point)?;
        apt::install(&["e2fsprogs", "mount"])?;
        apt::output(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0"])
                .arg(&image),
        )?;
        apt::output(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&mount_point),
        )
        .context("cannot mount a file through a loop device")?;
        Ok(disk)
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Fills what is left with one file of zeros, and returns its path.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("fill");
        let mut file = fs::File::create(&path)?;
        match std::io::copy(&mut std::io::repeat(0), &mut file) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(path),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("the disk has no end"),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since something may still hold it open; a failed mount leaves nothing to undo.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_soon_full() {
        let disk = match SmallDisk::mount(16 << 20) {
            Ok(disk) => disk,
            Err(error) => crate::skip!("no loop mount: {error:#}"),
        };
        let filled = fs::metadata(disk.fill().unwrap()).unwrap().len();
        assert!((4 << 20..16 << 20).contains(&filled), "{filled}");
        assert!(fs::write(disk.path().join("more"), vec![1; 8192]).is_err());
    }
}
