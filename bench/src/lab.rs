//! Where it is measured: a network namespace of the benchmark's own, and in it
//!
//! ```text
//! generator -> g0 ==== x0 [subject] x1 ==== s0 [sink]
//! ```
//!
//! Both pairs are veth, on which XDP runs natively. Redirecting into one end needs a program at
//! the other.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, xdp::XdpMode};
use gre_userspace::{dataplane::DataPlane, maps::Maps, model::Limits};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::{
    Effort,
    frames::{self, PORT_MAC},
    objects::Subjects,
    scale::{self, Scale},
};

/// What frames are sent out of.
pub const GENERATOR: &str = "g0";
/// Where they come to their end.
pub const END: &str = "s0";

pub struct Lab {
    pub subjects: Subjects,
    pub maps: Maps,
    pub generator: u32,
    pub ingress: u32,
    pub egress: u32,
    pub sink: u32,
    pins: PathBuf,
}

/// Where BPF_PROG_TEST_RUN says that frames come in unless it is told otherwise.
pub const LOOPBACK: u32 = 1;

impl Lab {
    pub fn new(effort: &Effort) -> Result<Self> {
        Self::with(effort, Limits::default(), |_| ())
    }

    /// With many more routes and tunnels.
    pub fn large(effort: &Effort, scale: &Scale) -> Result<Self> {
        Self::with(effort, scale::limits(), |plane| scale.extend(plane))
    }

    /// With something set otherwise.
    #[cfg(test)]
    pub fn changed(effort: &Effort, change: impl FnOnce(&mut DataPlane)) -> Result<Self> {
        Self::with(effort, Limits::default(), change)
    }

    fn with(effort: &Effort, limits: Limits, extend: impl FnOnce(&mut DataPlane)) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        stay_on_one_cpu()?;
        for pair in [["g0", "x0"], ["x1", "s0"]] {
            run(&format!("ip link add {} type veth peer name {}", pair[0], pair[1]))?;
        }
        let mac = PORT_MAC.map(|byte| format!("{byte:02x}")).join(":");
        run(&format!("ip link set x0 address {mac}"))?;
        for interface in ["lo", "g0", "x0", "x1", "s0"] {
            // Without addresses no IPv6 packet of the kernel's own is in the way.
            run(&format!("ip link set {interface} addrgenmode none up"))?;
        }
        let index = |name: &str| if_nametoindex(name).with_context(|| format!("finding {name}"));
        let (ingress, egress) = (index("x0")?, index("x1")?);

        let pins = PathBuf::from(format!("/sys/fs/bpf/xgre-bench-{}", std::process::id()));
        let (subjects, mut maps) =
            Subjects::load(&pins, limits, effort.earlier.clone()).inspect_err(|_| remove(&pins))?;
        let mut plane = frames::plane(&[LOOPBACK, ingress], egress);
        extend(&mut plane);
        maps.apply(plane).inspect_err(|_| remove(&pins))?;
        maps.bridges.vouch(u64::MAX);
        Ok(Self {
            subjects,
            maps,
            generator: index(GENERATOR)?,
            ingress,
            egress,
            sink: index(END)?,
            pins,
        })
    }
}

impl Lab {
    /// Attaches a program that BPF_PROG_TEST_RUN is to run to where no frame passes it. Otherwise
    /// each call makes it known to the kernel's XDP dispatcher, which patches code and waits for
    /// RCU: that takes longer than what is measured, and never as long twice.
    pub fn make_known(&self, program: &mut Xdp) -> Result<()> {
        program.attach_to_if_index(self.generator, XdpMode::Driver)?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.pins);
    }
}

fn remove(pins: &PathBuf) {
    if let Err(error) = std::fs::remove_dir_all(pins) {
        eprintln!("removing {}: {error}", pins.display());
    }
}

/// The last one: the first takes most interrupts.
fn stay_on_one_cpu() -> Result<()> {
    let last = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1);
    let mut cpus = CpuSet::new();
    cpus.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("staying on one CPU")
}

/// Runs a command line, split at blanks, in the laboratory.
pub fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(words).status();
    let status = status.with_context(|| format!("running `{program}`"))?;
    ensure!(status.success(), "`{line}` failed");
    Ok(())
}
