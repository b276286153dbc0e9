//! Where a daemon's pins and control socket are: one daemon a network namespace, so that two
//! gateways run side by side on one machine.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use thiserror::Error;

const BPFFS: &str = "/sys/fs/bpf";
const RUN: &str = "/run/xgre";

/// The paths of one network namespace's daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The directory of the pinned maps, programs and links, on a bpffs.
    pub pins: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// What commands have asked to adopt.
    pub adopted: PathBuf,
}

#[derive(Debug, Error)]
pub enum InstanceError {
    #[error("cannot read {path}: {source}")]
    Namespace { path: PathBuf, source: io::Error },
    #[error(
        "no BPF file system is mounted at {BPFFS}, and one mounted here would go away with this \
         mount namespace; outside it, run `mount -t bpf bpf {BPFFS}`"
    )]
    NoBpffs,
    #[error("cannot mount a BPF file system at {BPFFS}: {0}")]
    Mount(nix::Error),
    #[error("cannot create the directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

impl Instance {
    /// The instance of this process's network namespace, whether or not a daemon runs there.
    /// Changes nothing, and needs no privilege.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, InstanceError> {
        let netns = match in_initial_netns() {
            true => None,
            false => Some(inode(Path::new("/proc/self/ns/net"))?),
        };
        // `ip netns exec` hides bpffs by mounting /sys anew in a mount namespace of its own.
        let hidden = outermost_process().join("root").join(&BPFFS[1..]);
        let own = PathBuf::from(BPFFS);
        Ok(Self::locate(if !is_bpffs(&own) && is_bpffs(&hidden) { &hidden } else { &own }, netns))
    }

    /// The paths of the network namespace with this inode; `None` is the initial one.
    fn locate(bpffs: &Path, netns: Option<u64>) -> Self {
        let mut pins = bpffs.join("xgre");
        let mut run = PathBuf::from(RUN);
        if let Some(inode) = netns {
            let name = format!("netns-{inode}");
            pins.push(&name);
            run.push(&name);
        }
        Self { pins, socket: run.join("control.sock"), adopted: run.join("adopted.json") }
    }

    /// Creates the directories, and mounts bpffs where that is missing.
    ///
    /// # Errors
    /// When there is no bpffs and this is not the outermost mount namespace: a mount made here
    /// would go away with it, and the pins with the mount.
    pub fn prepare(&self) -> Result<(), InstanceError> {
        if let Some(run) = self.socket.parent() {
            create(run, 0o755)?;
        }
        // Two daemons that start at once must not mount one over the other's pins.
        let _lock = lock(Path::new(RUN))?;
        if self.pins.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            let outermost = outermost_process().join("ns/mnt");
            if inode(Path::new("/proc/self/ns/mnt"))? != inode(&outermost)? {
                return Err(InstanceError::NoBpffs);
            }
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))
                .map_err(InstanceError::Mount)?;
        }
        create(&self.pins, 0o700)
    }
}

impl Instance {
    /// Removes what commands have asked for, and the socket's directory, unless there is something in it:
    /// that of the initial network namespace also holds those of the others.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.adopted);
        if let Some(run) = self.socket.parent() {
            let _ = fs::remove_dir(run);
        }
    }
}

/// The kernel registers this setting in the initial network namespace only, whatever its version
/// (`net_core_table` in net/core/sysctl_net_core.c). Comparing with /proc/1/ns/net instead would
/// take CAP_SYS_PTRACE and all of PID 1's capabilities, which a daemon confined by systemd lacks and
/// its root client has: they would look for each other in different places.
fn in_initial_netns() -> bool {
    Path::new("/proc/sys/net/core/dev_weight").exists()
}

/// The directory in /proc of PID 1, or of the furthest ancestor whose namespaces we may see: what
/// it has mounted outlives us.
fn outermost_process() -> PathBuf {
    let mut outermost = PathBuf::from("/proc/self");
    let mut process = outermost.clone();
    while let Some(parent) = parent(&process) {
        process = parent;
        if process.join("ns/mnt").exists() {
            outermost = process.clone();
        }
    }
    outermost
}

/// The parent's directory in /proc; PID 1 has none.
fn parent(process: &Path) -> Option<PathBuf> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
    (pid != "0").then(|| Path::new("/proc").join(pid))
}

fn inode(path: &Path) -> Result<u64, InstanceError> {
    fs::metadata(path)
        .map(|metadata| metadata.ino())
        .map_err(|source| InstanceError::Namespace { path: path.to_owned(), source })
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC)
}

/// Holds others off while the result lives.
fn lock(directory: &Path) -> Result<Flock<File>, InstanceError> {
    let failed = |source| InstanceError::Directory { path: directory.to_owned(), source };
    let file = File::open(directory).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
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
            Instance::locate(Path::new(BPFFS), None),
            Instance {
                pins: "/sys/fs/bpf/xgre".into(),
                socket: "/run/xgre/control.sock".into(),
                adopted: "/run/xgre/adopted.json".into(),
            }
        );
    }

    #[test]
    fn any_other_network_namespace_has_its_inode_in_the_paths() {
        assert_eq!(
            Instance::locate(Path::new("/proc/1/root/sys/fs/bpf"), Some(4_026_532_301)),
            Instance {
                pins: "/proc/1/root/sys/fs/bpf/xgre/netns-4026532301".into(),
                socket: "/run/xgre/netns-4026532301/control.sock".into(),
                adopted: "/run/xgre/netns-4026532301/adopted.json".into(),
            }
        );
    }

    #[test]
    fn the_outermost_process_shows_its_mount_namespace() {
        assert!(inode(&outermost_process().join("ns/mnt")).is_ok());
    }
}
