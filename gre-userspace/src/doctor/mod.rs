//! `xgre doctor`: what on this machine is in the way of the traffic, why it matters, and the command
//! that mends it. All facts are gathered first ([`gather`]); the checks, a file for each topic, are
//! functions of them alone.

pub mod gather;
mod kernel;
mod mounts;
mod netfilter;
mod paths;
mod ports;
mod programs;
mod queues;
mod sysctls;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    model::{Desired, Tunnel},
    observed::{FilterChain, Link, Snapshot},
    reconcile,
    report::{PortInfo, Stats, TunnelInfo},
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Good to know; nothing need be done.
    Note,
    /// Packets are slower than they need be, or some are lost.
    Warning,
    /// Packets do not get through, or the daemon cannot run.
    Error,
}

impl Severity {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file of the check: `kernel`, `ports`...
    pub topic: &'static str,
    /// What was looked at; it does not change between versions.
    pub check: &'static str,
    /// The interface or tunnel that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub severity: Severity,
    pub found: String,
    /// What it means for the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The command that mends it, or shows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(severity: Severity, check: &'static str, found: impl Into<String>) -> Self {
        let found = found.into();
        Self { topic: "", check, subject: None, severity, found, why: None, fix: None }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Ok, check, found)
    }

    fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Note, check, found)
    }

    fn warning(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Warning, check, found)
    }

    fn error(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Error, check, found)
    }

    fn of(self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self }
    }

    fn why(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Everything that the checks look at.
pub struct Facts {
    /// Some of the rest only root can read.
    pub is_root: bool,
    /// What the daemon says; why it does not, otherwise.
    pub daemon: Result<DaemonFacts, String>,
    /// A data plane is pinned, whether or not a daemon follows it.
    pub pinned: bool,
    pub kernel: KernelFacts,
    pub bpffs: Bpffs,
    pub files: OpenFiles,
    pub snapshot: Snapshot,
    /// Why it could not be read, otherwise.
    pub filters: Result<Vec<FilterChain>, String>,
    /// By interface index: of ports, and of the devices of tunnels.
    pub devices: BTreeMap<u32, DeviceFacts>,
}

pub struct DaemonFacts {
    pub tunnels: Vec<TunnelInfo>,
    pub ports: Vec<PortInfo>,
    pub stats: Stats,
}

pub struct KernelFacts {
    /// As `uname -r` prints it.
    pub release: String,
    /// Major, minor and patch level.
    pub version: (u32, u32, u32),
    /// /sys/kernel/btf/vmlinux is there.
    pub btf: bool,
    /// net.core.bpf_jit_enable; none outside the initial network namespace.
    pub jit: Option<u32>,
    /// net.core.bpf_jit_harden; as `jit`.
    pub jit_harden: Option<u32>,
    /// Whether the loaded programs of xgre are machine code; none where none is loaded.
    pub compiled: Option<bool>,
    /// CPUs that are online.
    pub cpus: u32,
}

/// The BPF file system.
pub struct Bpffs {
    /// Where the pins are, or would be.
    pub path: String,
    pub mounted: bool,
    pub writable: bool,
}

/// Open files of the daemon, or of this process where it does not run.
pub struct OpenFiles {
    pub is_daemons: bool,
    /// None where they cannot be counted.
    pub open: Option<u64>,
    /// The soft limit; none is no limit.
    pub limit: Option<u64>,
}

/// What the driver says of a device, and what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceFacts {
    pub driver: Option<String>,
    /// Names of the features that are on, as `ethtool -k` calls them in the kernel.
    pub features: BTreeSet<String>,
    /// Receive queues in use, and how many there could be; none where the driver does not say.
    pub queues: Option<Queues>,
    /// Packets received by each queue, where the driver counts them.
    pub queue_packets: Vec<u64>,
    pub programs: Vec<AttachedProgram>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    pub used: u32,
    pub possible: u32,
    /// They are set together with the transmit queues (`combined`).
    pub combined: bool,
}

/// A program or filter on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProgram {
    /// `xdp`, `tc ingress` or `tc egress`.
    pub hook: &'static str,
    /// Of a BPF program.
    pub id: Option<u32>,
    /// The program's name, or a filter's kind.
    pub name: String,
}

impl AttachedProgram {
    fn is_ours(&self) -> bool {
        self.name.starts_with("xgre_")
    }
}

/// An interface that is a port, or would be one if the daemon ran without a config.
struct Port<'a> {
    link: &'a Link,
    /// None where the daemon does not run.
    info: Option<&'a PortInfo>,
    device: &'a DeviceFacts,
}

impl Facts {
    fn ports(&self) -> Vec<Port<'_>> {
        static UNKNOWN: DeviceFacts = DeviceFacts {
            driver: None,
            features: BTreeSet::new(),
            queues: None,
            queue_packets: Vec::new(),
            programs: Vec::new(),
        };
        let port = |ifindex: &u32, info| {
            let link = self.snapshot.links.get(ifindex)?;
            Some(Port { link, info, device: self.devices.get(ifindex).unwrap_or(&UNKNOWN) })
        };
        match &self.daemon {
            Ok(daemon) => {
                daemon.ports.iter().filter_map(|info| port(&info.ifindex, Some(info))).collect()
            }
            Err(_) => reconcile::ports(&Desired::default(), &self.snapshot)
                .keys()
                .filter_map(|ifindex| port(ifindex, None))
                .collect(),
        }
    }

    /// None where the daemon does not run.
    fn tunnels(&self) -> impl Iterator<Item = &TunnelInfo> {
        self.daemon.iter().flat_map(|daemon| &daemon.tunnels)
    }

    fn link_named(&self, name: &str) -> Option<&Link> {
        self.snapshot.links.values().find(|link| link.name == name)
    }

    /// Packets that met an outcome in a tier, by its label.
    fn outcome(&self, tier: &str, reason: &str) -> u64 {
        let tiers = self.daemon.iter().flat_map(|daemon| &daemon.stats.tiers);
        let outcomes = tiers.filter(|found| found.tier == tier).flat_map(|found| &found.outcomes);
        outcomes.filter(|count| count.reason == reason).map(|count| count.packets).sum()
    }
}

/// The tunnel as it is configured; none where a newer daemon says what this program does not know.
fn configured(info: &TunnelInfo) -> Option<Tunnel> {
    Tunnel::try_from(crate::control::api::TunnelSpec::from(info)).ok()
}

/// What the checks of a topic find.
type Check = fn(&Facts) -> Vec<Finding>;

/// Runs all checks; findings are in the order of the checks.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    const TOPICS: [(&str, Check); 8] = [
        ("kernel", kernel::check),
        ("mounts", mounts::check),
        ("ports", ports::check),
        ("paths", paths::check),
        ("sysctls", sysctls::check),
        ("netfilter", netfilter::check),
        ("programs", programs::check),
        ("queues", queues::check),
    ];
    let of_topic = |(topic, check): (&'static str, Check)| {
        check(facts).into_iter().map(move |finding| Finding { topic, ..finding })
    };
    TOPICS.into_iter().flat_map(of_topic).collect()
}
