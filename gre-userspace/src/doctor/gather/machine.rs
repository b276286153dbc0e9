//! The kernel, the BPF file system, and limits.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
        utsname::uname,
    },
    unistd::SysconfVar,
};

use crate::{
    doctor::{Bpffs, KernelFacts, OpenFiles},
    instance::Instance,
};

/// `compiled` says whether the loaded programs are machine code.
pub(super) fn kernel(compiled: Option<bool>) -> KernelFacts {
    let release =
        uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    let cpus = nix::unistd::sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    KernelFacts {
        version: version(&release),
        release,
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        jit_harden: number("/proc/sys/net/core/bpf_jit_harden"),
        compiled,
        cpus: cpus as u32,
    }
}

/// `6.1.0-18-amd64` is 6.1.0.
fn version(release: &str) -> (u32, u32, u32) {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn bpffs(instance: &Instance) -> Bpffs {
    // The pins are `xgre` below it, or in a directory of that.
    let is_above = |path: &&Path| path.file_name().is_some_and(|name| name == "xgre");
    let pins = instance.pins.ancestors().find(is_above).and_then(Path::parent);
    let path = pins.unwrap_or(Path::new("/sys/fs/bpf"));
    let mounted = statfs(path).is_ok_and(|statfs| statfs.filesystem_type() == BPF_FS_MAGIC);
    let read_only = statvfs(path).is_ok_and(|statvfs| statvfs.flags().contains(FsFlags::ST_RDONLY));
    Bpffs { path: path.display().to_string(), mounted, writable: mounted && !read_only }
}

/// Of the daemon that listens on the control socket, if it `runs`, or else of this process.
pub(super) fn open_files(instance: &Instance, runs: bool) -> OpenFiles {
    let daemon = if runs { daemon_process(instance) } else { None };
    let process = daemon.clone().unwrap_or_else(|| "/proc/self".into());
    let open = daemon.as_ref().and_then(|process| fs::read_dir(process.join("fd")).ok());
    OpenFiles {
        is_daemons: daemon.is_some(),
        open: open.map(|files| files.count() as u64),
        limit: fs::read_to_string(process.join("limits")).ok().and_then(|text| limit(&text)),
    }
}

/// The daemon's directory in /proc: that of who made the socket.
fn daemon_process(instance: &Instance) -> Option<PathBuf> {
    let stream = UnixStream::connect(&instance.socket).ok()?;
    let daemon = getsockopt(&stream, PeerCredentials).ok()?;
    let process = PathBuf::from(format!("/proc/{}", daemon.pid()));
    process.exists().then_some(process)
}

/// The soft limit of open files in /proc/PID/limits; none is no limit.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_starts_with_its_version() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1, 0));
        assert_eq!(version("6.12-rc1"), (6, 12, 0));
        assert_eq!(version("7"), (7, 0, 0));
    }

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             63000                63000                processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(limit(limits), Some(1024));
        assert_eq!(limit("Max open files   unlimited  unlimited  files\n"), None);
    }
}
