//! The daemon under test, and its command line, in a namespace.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    config::Gateway,
    counters::Packets,
    interrupt,
    namespace::{Namespace, Resident},
    process::{Finished, wait_until},
};

/// Loading the programs and creating the maps takes a second or two on a busy machine, and of a guest ten:
/// the verifier is emulated, too.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(10);
const CLIENT: Duration = Duration::from_secs(10);

/// `xgre run` in a namespace.
pub struct Daemon {
    /// None once it has been stopped.
    resident: Option<Resident>,
    namespace: Namespace,
}

impl Daemon {
    /// Returns once its control socket answers.
    pub fn start(namespace: &Namespace, config: &Gateway) -> Result<Self> {
        let file = config_file(namespace);
        fs::write(&file, config.toml()).with_context(|| format!("writing {}", file.display()))?;
        Self::start_from(namespace, &file)
    }

    /// The same with a config file that is there.
    pub fn start_from(namespace: &Namespace, file: &Path) -> Result<Self> {
        Self::start_of(namespace, &binary()?, file)
    }

    /// The same of another build of xgre, an example of this crate, which `cargo test` builds when it builds all
    /// of the crate.
    pub fn start_other_build(namespace: &Namespace, file: &Path) -> Result<Self> {
        let other = target().join("debug/examples/other_build");
        ensure!(
            other.exists(),
            "{} is not built: `cargo build --package tests --examples`",
            other.display()
        );
        Self::start_of(namespace, &other, file)
    }

    fn start_of(namespace: &Namespace, binary: &Path, file: &Path) -> Result<Self> {
        let file = file.to_str().context("the scratch directory's name is not UTF-8")?;
        // With --teardown the end of a test is the end of its devices, programs and pins.
        let mut resident = namespace.spawn(binary, &["run", "--config", file, "--teardown"])?;
        wait_until("the daemon answers", START, || match resident.process.still_runs() {
            Ok(()) => stats(namespace).map(|_| Ok(())),
            // There is nothing to wait for any more.
            Err(ended) => Ok(Err(ended)),
        })
        .with_context(|| format!("its log:\n{}", resident.process.output()))??;
        Ok(Self { resident: Some(resident), namespace: namespace.clone() })
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        config_file(&self.namespace)
    }

    /// SIGHUP, which makes it read its config file again.
    pub fn hang_up(&self) -> Result<()> {
        let resident = self.resident.as_ref().context("the daemon has been stopped")?;
        resident.process.signal(Signal::SIGHUP)
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        let resident = self.resident.as_ref().context("the daemon has been stopped")?;
        Ok(resident.process.output().to_string())
    }

    /// How many XDP programs it has loaded, whether or not they are attached.
    pub fn xdp_programs(&self) -> Result<usize> {
        // BPF_PROG_TYPE_XDP
        const XDP: &str = "prog_type:\t6";
        let resident = self.resident.as_ref().context("the daemon has been stopped")?;
        let descriptors = format!("/proc/{}/fdinfo", resident.process.id());
        let mut programs = BTreeSet::new();
        for entry in fs::read_dir(descriptors)? {
            // One may be closed meanwhile.
            let told = fs::read_to_string(entry?.path()).unwrap_or_default();
            if told.lines().any(|line| line == XDP) {
                let id = told.lines().find_map(|line| line.strip_prefix("prog_id:"));
                programs.insert(id.context("a program has an id")?.to_owned());
            }
        }
        Ok(programs.len())
    }

    /// Stops it by SIGTERM, and returns its log.
    pub fn stop(mut self) -> Result<String> {
        let resident = self.resident.take().context("the daemon has been stopped")?;
        let finished = resident.process.stop(STOP)?;
        let log = finished.output.to_string();
        finished.success()?;
        Ok(log)
    }

    /// Ends it by SIGKILL: it cannot clean up.
    pub fn kill(mut self) -> Result<()> {
        let resident = self.resident.take().context("the daemon has been stopped")?;
        resident.process.signal(Signal::SIGKILL)?;
        resident.process.finish(STOP).map(drop)
    }

    /// The reply to `xgre stats -j`.
    pub fn stats(&self) -> Result<Value> {
        stats(&self.namespace)
    }

    /// The counters of a tunnel.
    pub fn packets(&self, tunnel: &str) -> Result<Packets> {
        Packets::of(&self.stats()?, tunnel)
    }

    /// Waits until XDP encapsulates for the tunnel: its device is up, and the next hop on the
    /// underlay is resolved.
    pub fn wait_until_accelerated(&self, name: &str) -> Result<()> {
        wait_until(&format!("tunnel {name} is accelerated"), START, || {
            let tunnel = tunnel(&self.namespace, name)?
                .with_context(|| format!("there is no tunnel {name}"))?;
            if tunnel["accelerated"] != true {
                bail!("{}", tunnel["why_not"].as_str().unwrap_or("no reason is given"));
            }
            Ok(())
        })
    }
}

impl Drop for Daemon {
    /// A test that fails unwinds past its daemons; the test harness shows this only then.
    fn drop(&mut self) {
        if let Some(resident) = &self.resident
            && !interrupt::interrupted()
        {
            let log = resident.process.output();
            eprintln!("log of the daemon in {}:\n{log}", self.namespace.name());
        }
    }
}

fn config_file(namespace: &Namespace) -> PathBuf {
    namespace.scratch().join("xgre.toml")
}

/// Runs `xgre run` with a config that it must refuse; returns what it wrote to stderr.
pub fn refused_run(namespace: &Namespace, config: &str) -> Result<String> {
    let file = namespace.scratch().join("refused.toml");
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    let file = file.to_str().context("the scratch directory's name is not UTF-8")?;
    namespace
        .spawn(binary()?, &["run", "--config", file, "--teardown"])?
        .process
        .finish(START)?
        .failure()
}

/// A tunnel's object in the reply to `xgre tunnel show -j`.
pub fn tunnel(namespace: &Namespace, name: &str) -> Result<Option<Value>> {
    let mut tunnels = json(namespace, "tunnel show")?;
    let tunnels = tunnels.as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(tunnels.into_iter().find(|tunnel| tunnel["ifname"] == name))
}

/// Runs `xgre WORDS` in a namespace, whatever its status.
pub fn attempt(namespace: &Namespace, words: &str) -> Result<Finished> {
    let words: Vec<_> = words.split_whitespace().collect();
    namespace.spawn(binary()?, &words)?.process.finish(CLIENT)
}

/// Runs `xgre WORDS` in a namespace, which must succeed; returns its stdout.
pub fn xgre(namespace: &Namespace, words: &str) -> Result<String> {
    attempt(namespace, words)?
        .success()
        .with_context(|| format!("in namespace {}", namespace.name()))
}

/// The reply to `xgre stats -j`.
pub fn stats(namespace: &Namespace) -> Result<Value> {
    json(namespace, "stats")
}

/// How often something happened in a tier (`xdp`, `tc` or `daemon`), by the outcome's label.
pub fn outcome(namespace: &Namespace, tier: &str, reason: &str) -> Result<u64> {
    outcome_of(&stats(namespace)?, tier, reason)
}

/// The same in a whole reply of `xgre stats -j`.
pub fn outcome_of(stats: &Value, tier: &str, reason: &str) -> Result<u64> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tiers = list(&stats["tiers"]);
    let tier = tiers
        .iter()
        .find(|found| found["tier"] == tier)
        .with_context(|| format!("no tier {tier} in {stats}"))?;
    let outcomes = list(&tier["outcomes"]);
    let found = outcomes.iter().find(|outcome| outcome["reason"] == reason);
    Ok(found.and_then(|outcome| outcome["packets"].as_u64()).unwrap_or(0))
}

/// Of a gateway whose daemon has torn everything down, only `lan` and `wan` are left, with no program,
/// no filter and no pin.
pub fn nothing_is_left(gateway: &Namespace) -> Result<()> {
    let mut devices = gateway.devices()?;
    devices.sort();
    ensure!(devices == ["lan", "wan"], "devices: {devices:?}");
    // The kernel takes a program off a moment after its link's pin has gone.
    wait_until("no XDP program is left", STOP, || {
        let links = gateway.ip("-d link show")?;
        ensure!(!links.contains("prog/xdp"), "{links}");
        Ok(())
    })?;
    for device in devices {
        for hook in ["ingress", "egress"] {
            let filters = gateway.attempt(&format!("tc filter show dev {device} {hook}"))?;
            let filters = filters.output.stdout;
            ensure!(filters.is_empty(), "on {device} {hook}: {filters}");
        }
    }
    let pins = gateway.pins();
    ensure!(!pins.exists() || fs::read_dir(&pins)?.next().is_none(), "{}", pins.display());
    Ok(())
}

fn json(namespace: &Namespace, words: &str) -> Result<Value> {
    let text = xgre(namespace, &format!("{words} -j"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`xgre {words} -j` printed no JSON: {text}"))
}

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Says which binary to run, for a program that has just built it.
pub fn set_binary(path: PathBuf) {
    BINARY.get_or_init(|| path);
}

/// That of [`set_binary`], else `XGRE_BIN`, else what was built last.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = BINARY.get() {
        return Ok(path.clone());
    }
    if let Some(path) = env::var_os("XGRE_BIN") {
        return Ok(path.into());
    }
    let target = target();
    let built = |profile: &str| -> Option<(SystemTime, PathBuf)> {
        let path = target.join(profile).join("xgre");
        Some((path.metadata().ok()?.modified().ok()?, path))
    };
    let newest = ["release", "debug"].into_iter().filter_map(built).max();
    let (_, path) = newest.context("xgre is not built: `cargo build --package gre-userspace`")?;
    Ok(path)
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}
