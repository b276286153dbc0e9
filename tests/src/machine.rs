//! A machine with systemd: PID 1 of namespaces of its own, over a root file system that it does not
//! change, on the network of a namespace. The kernel is this machine's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    interrupt,
    namespace::{Namespace, Resident, is_stale},
    process::{Finished, Process, wait_until},
};

/// systemd takes one or two seconds.
const BOOT: Duration = Duration::from_secs(60);
/// Bound on a command in there; installing a package is the longest.
const COMMAND: Duration = Duration::from_secs(60);
/// How its processes end.
const END: Duration = Duration::from_secs(10);

pub struct Machine {
    /// PID 1, as this machine counts.
    init: Pid,
    group: ControlGroup,
    // Its namespaces go with it.
    _unshare: Resident,
}

impl Machine {
    /// Returns once all that it starts by itself is up.
    pub fn boot(namespace: &Namespace, root: &Path) -> Result<Self> {
        let group = ControlGroup::new(namespace.name())?;
        let mount_point = namespace.scratch().join("machine");
        fs::create_dir_all(&mount_point)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("machine/start.sh");
        let arguments = [&script, root, &group.path, &mount_point].map(|path| path.to_str());
        let [Some(script), Some(root), Some(path), Some(mount_point)] = arguments else {
            bail!("a path is not UTF-8");
        };
        let mut unshare = namespace.spawn("sh", &[script, root, path, mount_point])?;
        let init = wait_until("systemd is started", BOOT, || {
            unshare.process.still_runs()?;
            child(unshare.process.id())
        })?;
        let machine = Self { init, group, _unshare: unshare };
        wait_until("systemd is up", BOOT, || {
            let state = machine.attempt("systemctl is-system-running --wait")?.output.stdout;
            if state.trim() != "running" {
                bail!("it is {state}{}", machine.attempt("systemctl --failed")?.output);
            }
            Ok(())
        })?;
        Ok(machine)
    }

    /// Runs a command line, split at blanks, to its end, whatever its status.
    pub fn attempt(&self, line: &str) -> Result<Finished> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter", "--all", "--target"])
            .arg(self.init.to_string())
            .args(["--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(line.split_whitespace());
        Process::spawn(command)?.finish(COMMAND)
    }

    /// Runs a command line, split at blanks, which must succeed; returns its stdout.
    pub fn run(&self, line: &str) -> Result<String> {
        self.attempt(line)?.success().context("in the machine")
    }

    /// What `xgre WORDS -j` replies.
    pub fn xgre(&self, words: &str) -> Result<Value> {
        let text = self.run(&format!("xgre {words} -j"))?;
        serde_json::from_str(&text).with_context(|| format!("`xgre {words} -j` printed {text}"))
    }

    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let text = self.run(&format!("systemctl show --value --property {name} {unit}"))?;
        Ok(text.trim().to_owned())
    }

    /// Where a file of the machine is for this one. Links in there that are absolute lead out of it.
    pub fn file(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.init.to_string()).join("root").join(path.trim_matches('/'))
    }

    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.file(path);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The harness shows it of a test that fails.
        if !interrupt::interrupted() {
            match self.attempt("journalctl --no-pager --boot --lines 60") {
                Ok(journal) => eprintln!("the machine's journal:\n{}", journal.output),
                Err(error) => eprintln!("no journal of the machine: {error:#}"),
            }
        }
        // With it all that runs in its namespaces.
        if let Err(error) = kill(self.init, Signal::SIGKILL) {
            eprintln!("ending the machine: {error}");
        }
        if let Err(error) =
            wait_until("the machine's control group is empty", END, || self.group.remove())
        {
            eprintln!("{error:#}");
        }
    }
}

/// The only child of a process.
fn child(parent: u32) -> Result<Pid> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let pid = text.split_whitespace().next().with_context(|| format!("no child of {parent}"))?;
    Ok(Pid::from_raw(pid.parse()?))
}

/// One of version 2, which systemd must have for itself.
struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    fn new(name: &str) -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mounted = mounts.find(|words| words.get(2) == Some(&"cgroup2"));
        let root = mounted.as_deref().and_then(|words| words.get(1)).context(
            "no cgroup2 is mounted, which systemd needs: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
        )?;
        remove_stale(Path::new(root))?;
        let path = Path::new(root).join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    fn remove(&self) -> Result<()> {
        remove(&self.path)
    }
}

/// What runs that were killed have left.
fn remove_stale(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if is_stale(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Those in it first.
fn remove(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("removing {}", group.display()))
}

/// The package and the clean system that `cargo xtask package --test` has made.
pub fn package() -> Result<PathBuf> {
    made("XGRE_PACKAGE")
}

pub fn clean_root() -> Result<PathBuf> {
    made("XGRE_CLEAN_ROOT")
}

fn made(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from);
    let path = path.with_context(|| {
        format!("{variable} is not set: `cargo xtask package --test` runs this")
    })?;
    ensure!(path.exists(), "{} is gone", path.display());
    Ok(path)
}
