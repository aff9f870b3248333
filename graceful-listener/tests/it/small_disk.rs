//! A file system of its own, which can be filled to the last byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it over a directory. `None` where nothing can be mounted, which is told.
    pub(crate) fn over(path: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k,mode=755", "none"])
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            crate::child::left_out("no file system can be mounted");
        }
        mounted.then(|| Self { path: path.into() })
    }

    pub(crate) fn fill(&self) {
        let mut file = File::create(self.path.join("ballast")).unwrap();
        while file.write(&[0; 512]).is_ok_and(|written| written > 0) {}
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
