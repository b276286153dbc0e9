//! Network namespaces that disappear with their last handle, and with them everything in them.

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::kill,
    unistd::{Pid, geteuid},
};
use serde_json::Value;

use crate::process::{Finished, Process, run};

/// Bound on the small commands that lay a topology out.
const COMMAND: Duration = Duration::from_secs(10);

/// A handle; clones name the same namespace, which is deleted when the last one is dropped.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    name: String,
    /// Tells its pins and its control socket from other namespaces'.
    inode: u64,
    scratch: PathBuf,
}

/// A process in a namespace, which stays for as long as the process does.
pub struct Resident {
    // Dropped first, so that the process is gone before its namespace.
    pub process: Process,
    _namespace: Namespace,
}

impl Namespace {
    /// `xgre-PID-N-LABEL`: unique in the machine, and a later run sees from PID whether it is stale.
    pub fn new(label: &str) -> Result<Self> {
        static STALE: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            bail!(
                "network namespaces need root: run this as root, e.g. `sudo -E cargo xtask test`"
            );
        }
        STALE.call_once(remove_stale);

        let name =
            format!("xgre-{}-{}-{label}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let inner = Inner { inode: inode(&name)?, scratch: scratch(&name), name };
        let namespace = Self(Arc::new(inner));
        fs::create_dir_all(namespace.scratch())?;

        namespace.ip("link set lo up")?;
        // A new namespace inherits these from the machine, whose settings must not matter.
        let mut settings =
            vec![("ipv4", "rp_filter=0"), ("ipv4", "send_redirects=0"), ("ipv4", "forwarding=0")];
        // Router solicitations and the like would count as packets nobody sent.
        if Path::new("/proc/sys/net/ipv6").exists() {
            settings.push(("ipv6", "disable_ipv6=1"));
        }
        // By one process: a guest starts few a second.
        let mut line = "sysctl -q -w".to_owned();
        for (family, setting) in settings {
            for of in ["all", "default"] {
                line += &format!(" net.{family}.conf.{of}.{setting}");
            }
        }
        namespace.run(&line)?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A directory of its own for captures and config files.
    pub fn scratch(&self) -> &Path {
        &self.0.scratch
    }

    /// A command that will run in here.
    ///
    /// Only the network namespace is entered: `ip netns exec` would also remount /sys, and hide
    /// /sys/fs/bpf with it. Should this thread die without dropping the process, the kernel kills
    /// the process: a test that is killed leaves no daemon behind.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net=/run/netns/{}", self.0.name))
            .arg("--")
            .arg(program);
        command
    }

    pub fn spawn(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
    ) -> Result<Resident> {
        let mut command = self.command(program);
        command.args(arguments);
        let process =
            Process::spawn(command).with_context(|| format!("in namespace {}", self.0.name))?;
        Ok(Resident { process, _namespace: self.clone() })
    }

    /// Runs a command line, split at blanks, to its end, whatever its status.
    pub fn attempt(&self, line: &str) -> Result<Finished> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let arguments: Vec<_> = words.collect();
        self.spawn(program, &arguments)?.process.finish(COMMAND)
    }

    /// Runs a command line, split at blanks, which must succeed; returns its stdout.
    pub fn run(&self, line: &str) -> Result<String> {
        self.attempt(line)?.success().with_context(|| format!("in namespace {}", self.0.name))
    }

    /// Does something in here. A socket stays in the namespace that it was made in.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(format!("/run/netns/{}", self.name()))?;
        // The thread changes its namespace for good.
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join().expect("the thread does not panic")
        })
    }

    /// `ip ARGUMENTS`.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.run(&format!("ip {arguments}"))
    }

    pub fn sysctl(&self, key: &str, value: u32) -> Result<()> {
        self.run(&format!("sysctl -q -w {key}={value}")).map(drop)
    }

    /// `ethtool -K DEVICE SETTINGS`.
    pub fn offloads(&self, device: &str, settings: &str) -> Result<()> {
        self.run(&format!("ethtool -K {device} {settings}")).map(drop)
    }

    /// Names of its network devices, loopback aside.
    pub fn devices(&self) -> Result<Vec<String>> {
        let text = self.ip("-o link show")?;
        let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
        Ok(text.lines().filter_map(name).filter(|name| name != "lo").collect())
    }

    /// Of all its network devices, loopback aside, in bytes.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let set = |device: String| self.ip(&format!("link set {device} mtu {mtu}")).map(drop);
        self.devices()?.into_iter().try_for_each(set)
    }

    /// The hardware address of a device.
    pub fn mac(&self, device: &str) -> Result<String> {
        let text = self.ip(&format!("-o link show dev {device}"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
        words.nth(1).map(str::to_owned).with_context(|| format!("{device} has no hardware address"))
    }

    /// How many packets a device has sent.
    pub fn sent(&self, device: &str) -> Result<u64> {
        let text = self.ip(&format!("-j -s link show dev {device}"))?;
        let links: Value = serde_json::from_str(&text).context("ip's output is not JSON")?;
        let packets = links[0]["stats64"]["tx"]["packets"].as_u64();
        packets.with_context(|| format!("{device} has no counters: {text}"))
    }

    /// Where a daemon of this namespace keeps its pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/xgre").join(format!("netns-{}", self.0.inode))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove(&self.name, self.inode);
    }
}

/// Deletes what runs that were killed have left. What they ran is dead with them.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_stale(&name)
            && let Ok(inode) = inode(&name)
        {
            remove(&name, inode);
        }
    }
}

/// Whether what has a namespace's name is of a run that has ended.
pub(crate) fn is_stale(name: &str) -> bool {
    owner(name).is_some_and(|owner| kill(owner, None).is_err())
}

/// The process that made a namespace of ours.
fn owner(name: &str) -> Option<Pid> {
    let pid = name.strip_prefix("xgre-")?.split('-').next()?;
    pid.parse().ok().map(Pid::from_raw)
}

/// A daemon that was killed leaves pins, which would keep its maps in memory for ever.
fn remove(name: &str, inode: u64) {
    // To its end even after Ctrl-C, which is why this is done: our own waits give up on that, and
    // a process in the terminal's foreground group would get the next one.
    let delete = Command::new("ip").args(["netns", "del", name]).process_group(0).output();
    if Path::new("/run/netns").join(name).exists() {
        eprintln!("namespace {name} could not be deleted: {delete:?}");
    }
    let of_namespace = format!("netns-{inode}");
    for directory in [
        Path::new("/sys/fs/bpf/xgre").join(&of_namespace),
        Path::new("/run/xgre").join(&of_namespace),
        scratch(name),
    ] {
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("removing {}: {error}", directory.display());
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, COMMAND)
}

fn inode(name: &str) -> Result<u64> {
    let file = Path::new("/run/netns").join(name);
    let metadata = fs::metadata(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(metadata.ino())
}

fn scratch(name: &str) -> PathBuf {
    // Not in /tmp, where others could have put something of this name.
    Path::new("/run/xgre-lab").join(name)
}
