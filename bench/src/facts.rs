//! The machine that was measured.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    /// What the kernel does about each vulnerability that the CPU has: retpolines and return
    /// thunks make every call of a BPF program dearer.
    pub mitigations: BTreeMap<String, String>,
    /// Processes that were running or ready, averaged over the minute before: neighbours.
    pub load_before: f64,
    /// The same at the end, when the benchmark is one of them.
    pub load_after: f64,
}

impl Facts {
    pub fn gather() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name)
            .to_owned();
        let load = load()?;
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            cpu,
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            mitigations: mitigations(),
            load_before: load,
            load_after: load,
        })
    }

    pub fn at_the_end(&mut self) -> Result<()> {
        self.load_after = load()?;
        Ok(())
    }
}

fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    text.split(' ').next().unwrap_or_default().parse().context("/proc/loadavg starts with a number")
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
        let Self { kernel, cpu, cpus, mitigations, load_before, load_after } = self;
        write!(f, "Linux {kernel}, {cpus} x {cpu}, load {load_before} to {load_after}")?;
        mitigations.iter().try_for_each(|(name, state)| write!(f, "\n  {name}: {state}"))
    }
}
