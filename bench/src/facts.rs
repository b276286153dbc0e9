//! The machine that was measured.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Facts {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    /// What the kernel does about each vulnerability that the CPU has: retpolines and return
    /// thunks make every call of a BPF program dearer.
    pub mitigations: BTreeMap<String, String>,
    /// Processes that were running or ready, averaged over a minute: neighbours.
    pub load: String,
}

impl Facts {
    pub fn gather() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name)
            .to_owned();
        let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            cpu,
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            mitigations: mitigations(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

/// Where the kernel does not tell, none.
fn mitigations() -> BTreeMap<String, String> {
    let Ok(directory) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return BTreeMap::new();
    };
    directory
        .flatten()
        .filter_map(|file| {
            let state = fs::read_to_string(file.path()).ok()?.trim().to_owned();
            (state != "Not affected")
                .then(|| (file.file_name().to_string_lossy().into_owned(), state))
        })
        .collect()
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpu, cpus, mitigations, load } = self;
        write!(f, "Linux {kernel}, {cpus} x {cpu}, load {load}")?;
        mitigations.iter().try_for_each(|(name, state)| write!(f, "\n  {name}: {state}"))
    }
}
