//! Distribution packages: which are missing, and installing them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::progress::step;

/// Where programs are, even if an ordinary user's PATH lacks the sbin directories.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that is needed, and the Debian and Ubuntu package that has it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// What is run, and not built.
pub(crate) const TOOLS: [Tool; 22] = [
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "bridge", package: "iproute2" },
    Tool { program: "brctl", package: "bridge-utils" },
    Tool { program: "dnsmasq", package: "dnsmasq-base" },
    Tool { program: "udhcpc", package: "udhcpc" },
    Tool { program: "radvd", package: "radvd" },
    // Not in any PATH are its daemons, in /usr/lib/frr.
    Tool { program: "vtysh", package: "frr" },
    // Not in any PATH is /lib/systemd/systemd-networkd, of the same package.
    Tool { program: "networkctl", package: "systemd" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "ping", package: "iputils-ping" },
    Tool { program: "iperf3", package: "iperf3" },
    Tool { program: "sysctl", package: "procps" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "setpriv", package: "util-linux" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "iptables-legacy", package: "iptables" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "tshark", package: "tshark" },
    Tool { program: "scapy3", package: "python3-scapy" },
    Tool { program: "pip3", package: "python3-pip" },
    Tool { program: "cc", package: "gcc" },
    // For the C programs that bench/ compares with.
    Tool { program: "clang", package: "clang" },
];

/// What the tests in guests need besides, only installed for them.
pub(crate) const VM_TOOLS: [Tool; 8] = [
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "cpio", package: "cpio" },
    Tool { program: "depmod", package: "kmod" },
    Tool { program: "modprobe", package: "kmod" },
    Tool { program: "xz", package: "xz-utils" },
    Tool { program: "strip", package: "binutils" },
    Tool { program: "ldd", package: "libc-bin" },
];

/// Services that would start with their packages, and at every boot. Tests start what they need in their
/// own namespaces, and this machine's routes are not theirs to meddle with.
const SERVICES: [(&str, &str); 1] = [("frr", "frr.service")];

pub(crate) fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        tools.iter().filter(|tool| !exists(tool.program)).map(|tool| tool.package).collect();
    packages.dedup();
    packages
}

pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

/// Installs packages, or says how to where this may not.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let services: Vec<_> = SERVICES
        .iter()
        .filter(|(package, _)| packages.contains(package))
        .map(|&(_, service)| service)
        .collect();
    if !exists("apt-get") {
        bail!(
            "missing on this machine: {list}\n\
             These are the names of Debian's packages; there is no apt-get here to install them \
             with. Install what has them, then run this again."
        );
    }
    if !geteuid().is_root() {
        let masking: String =
            services.iter().map(|service| format!("    sudo systemctl mask {service}\n")).collect();
        bail!(
            "missing on this machine: {list}\nInstalling needs root. Run\n\n{masking}    \
             sudo apt-get update\n    sudo apt-get install -y {list}\n\nand then this again."
        );
    }
    for service in services {
        mask(service)?;
    }
    update()?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    step(&format!("apt-get install {list}"), apt(&arguments)).map(drop)
}

/// Keeps a service that is not installed yet from ever being started, also where systemd does not run.
fn mask(service: &str) -> Result<()> {
    if !exists("systemctl") {
        return Ok(());
    }
    let mut command = Command::new("systemctl");
    command.args(["mask", service]);
    let what =
        format!("systemctl mask {service} (to have it run here: systemctl unmask {service})");
    step(&what, command).map(drop)
}

/// Those that the distribution does not have, or not as far as its index on this machine knows.
pub(crate) fn unknown<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let known = |package: &str| {
        let output = Command::new("apt-cache").args(["show", package]).output();
        output.is_ok_and(|output| output.status.success())
    };
    packages.iter().copied().filter(|package| !known(package)).collect()
}

/// Once a run.
pub(crate) fn update() -> Result<()> {
    static DONE: Once = Once::new();
    let mut result = Ok(());
    DONE.call_once(|| result = step("apt-get update", apt(&["update"])).map(drop));
    result
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Wireshark's package asks who may capture; there is nobody to answer.
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt at work (a new machine's first update) holds the lock for a while.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command
}
