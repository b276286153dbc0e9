//! Where a daemon's pins and control socket are: one daemon a network namespace, so that two
//! gateways run side by side on one machine.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use thiserror::Error;

const BPFFS: &str = "/sys/fs/bpf";
/// The bpffs of PID 1's mount namespace: `ip netns exec` hides ours by mounting /sys anew.
const BPFFS_OF_PID_1: &str = "/proc/1/root/sys/fs/bpf";

/// The paths of one network namespace's daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The directory of the pinned maps, programs and links, on a bpffs.
    pub pins: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

#[derive(Debug, Error)]
pub enum InstanceError {
    #[error("cannot read {path}: {source}{}", hint(source))]
    Namespace { path: &'static str, source: io::Error },
    #[error(
        "no BPF file system is mounted at {BPFFS} here or in PID 1's mount namespace; there, run \
         `mount -t bpf bpf {BPFFS}`"
    )]
    NoBpffs,
    #[error("cannot mount a BPF file system at {BPFFS}: {0}; does the kernel have CONFIG_BPF_SYSCALL?")]
    Mount(nix::Error),
    #[error("cannot create the directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; xgre needs root: run it with `sudo`",
        _ => "",
    }
}

impl Instance {
    /// The instance of this process's network namespace, whether or not a daemon runs there.
    /// Changes nothing.
    ///
    /// # Errors
    /// When the namespaces cannot be compared, which takes root.
    pub fn current() -> Result<Self, InstanceError> {
        let own = inode("/proc/self/ns/net")?;
        let initial = inode("/proc/1/ns/net")?;
        let bpffs = [BPFFS, BPFFS_OF_PID_1].into_iter().find(|path| is_bpffs(path));
        Ok(Self::locate(bpffs.unwrap_or(BPFFS), (own != initial).then_some(own)))
    }

    /// The paths of the network namespace with this inode; `None` is the initial one.
    fn locate(bpffs: &str, netns: Option<u64>) -> Self {
        let mut pins = Path::new(bpffs).join("xgre");
        let mut run = PathBuf::from("/run/xgre");
        if let Some(inode) = netns {
            let name = format!("netns-{inode}");
            pins.push(&name);
            run.push(&name);
        }
        Self { pins, socket: run.join("control.sock") }
    }

    /// Creates the directories, and mounts bpffs where that is missing.
    ///
    /// # Errors
    /// When there is no bpffs and this is not PID 1's mount namespace: a mount made in another one
    /// would go away with it, and the pins with the mount.
    pub fn prepare(&self) -> Result<(), InstanceError> {
        if self.pins.starts_with(BPFFS) && !is_bpffs(BPFFS) {
            if inode("/proc/self/ns/mnt")? != inode("/proc/1/ns/mnt")? {
                return Err(InstanceError::NoBpffs);
            }
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))
                .map_err(InstanceError::Mount)?;
        }
        create(&self.pins, 0o700)?;
        match self.socket.parent() {
            Some(run) => create(run, 0o755),
            None => Ok(()),
        }
    }
}

fn inode(path: &'static str) -> Result<u64, InstanceError> {
    fs::metadata(path)
        .map(|metadata| metadata.ino())
        .map_err(|source| InstanceError::Namespace { path, source })
}

fn is_bpffs(path: &str) -> bool {
    statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC)
}

fn create(path: &Path, mode: u32) -> Result<(), InstanceError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| InstanceError::Directory { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_network_namespace_has_the_plain_paths() {
        assert_eq!(
            Instance::locate(BPFFS, None),
            Instance {
                pins: "/sys/fs/bpf/xgre".into(),
                socket: "/run/xgre/control.sock".into(),
            }
        );
    }

    #[test]
    fn any_other_network_namespace_has_its_inode_in_the_paths() {
        assert_eq!(
            Instance::locate(BPFFS_OF_PID_1, Some(4_026_532_301)),
            Instance {
                pins: "/proc/1/root/sys/fs/bpf/xgre/netns-4026532301".into(),
                socket: "/run/xgre/netns-4026532301/control.sock".into(),
            }
        );
    }
}
