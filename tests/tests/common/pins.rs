//! Pins that do not outlive a test, however it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use gre_userspace::loader::Build;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

/// A directory on bpffs that is gone when this is dropped. Programs and maps live on by their
/// descriptors.
pub struct Pins(PathBuf);

impl Pins {
    pub fn new() -> Self {
        assert!(geteuid().is_root(), "loading BPF programs needs root: `sudo -E cargo xtask test`");
        if statfs("/sys/fs/bpf").expect("/sys/fs/bpf").filesystem_type() != BPF_FS_MAGIC {
            mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
                .expect("mounting bpffs on /sys/fs/bpf");
        }
        Self(Path::new("/sys/fs/bpf").join(format!("xgre-test-{}", process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for directory in [Build::THIS.maps(&self.0), self.0.join("links")] {
            let _ = fs::remove_dir_all(directory);
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}
