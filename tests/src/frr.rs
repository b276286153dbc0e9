//! A gateway's routing daemons: FRR's zebra, and ospfd or bgpd beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::{
    namespace::{Namespace, Resident},
    process::wait_until,
};

/// Until a daemon answers, and until one has ended.
const WITHIN: Duration = Duration::from_secs(20);

/// Debian has FRR's daemons in no PATH.
const DAEMONS: &str = "/usr/lib/frr";
/// Where each keeps a directory NAME.PID, compiled in.
const CRASH_LOGS: &str = "/var/tmp/frr";

/// zebra, which has the kernel's routes, and the daemon of one protocol.
pub struct Router {
    // Dropped first: zebra is told of its end, and takes its routes away.
    protocol: Option<Daemon>,
    _zebra: Daemon,
    name: &'static str,
    namespace: Namespace,
}

struct Daemon {
    resident: Resident,
    name: &'static str,
}

impl Router {
    /// `name` is the protocol's daemon, `ospfd` or `bgpd`; `config` is all that it is told.
    pub fn start(namespace: &Namespace, name: &'static str, config: &str) -> Result<Self> {
        fs::create_dir_all(directory(namespace))?;
        for (name, config) in [("zebra", ""), (name, config)] {
            let file = config_file(namespace, name);
            fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        }
        let zebra = Daemon::start(namespace, "zebra")?;
        let protocol = Some(Daemon::start(namespace, name)?);
        Ok(Self { protocol, _zebra: zebra, name, namespace: namespace.clone() })
    }

    /// Ends the protocol's daemon by SIGKILL: it says nothing to its neighbours.
    pub fn kill(&mut self) -> Result<()> {
        let daemon = self.protocol.take().context("the daemon has been killed already")?;
        daemon.resident.process.signal(Signal::SIGKILL)
    }

    /// Starts it again after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        self.protocol = Some(Daemon::start(&self.namespace, self.name)?);
        Ok(())
    }

    /// Stops the protocol's daemon in its tracks, so that it sends nothing. Neighbours take it for
    /// dead after as long as they wait for it.
    pub fn halt(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Lines typed in the protocol's daemon's configuration mode.
    pub fn configure(&self, lines: &[&str]) -> Result<()> {
        let lines = [&["configure terminal"], lines].concat();
        vtysh(&self.namespace, self.name, &lines).map(drop)
    }

    /// What the protocol's daemon answers to a line.
    pub fn ask(&self, line: &str) -> Result<String> {
        vtysh(&self.namespace, self.name, &[line])
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.protocol.iter().try_for_each(|daemon| daemon.resident.process.signal(signal))
    }
}

impl Daemon {
    /// Returns once it takes commands.
    fn start(namespace: &Namespace, name: &'static str) -> Result<Self> {
        // FRR wants its own group, and to be root in it: a change of user would make the kernel
        // forget that it should be killed with the test.
        let line = format!(
            "--regid frrvty --clear-groups --pdeathsig KILL {DAEMONS}/{name} --user root --group \
             frrvty --config_file {config} --pid_file {directory}/{name}.pid --socket \
             {directory}/zserv --vty_socket {directory} --vty_port 0 --log stdout",
            config = config_file(namespace, name).display(),
            directory = directory(namespace).display(),
        );
        let resident = namespace.spawn("setpriv", &line.split_whitespace().collect::<Vec<_>>())?;
        let mut daemon = Self { resident, name };
        wait_until(&format!("{name} takes commands"), WITHIN, || {
            let Err(ended) = daemon.resident.process.still_runs() else {
                return vtysh(namespace, name, &["show version"]).map(|_| Ok(()));
            };
            Ok(Err(ended))
        })??;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // As root without privileges it may not remove this itself.
        let log = format!("{CRASH_LOGS}/{}.{}", self.name, self.resident.process.id());
        drop(fs::remove_dir_all(log));
    }
}

/// Runs lines in a daemon's command line, all of which it must understand.
fn vtysh(namespace: &Namespace, daemon: &str, lines: &[&str]) -> Result<String> {
    let directory = directory(namespace).display().to_string();
    let mut arguments = vec!["--vty_socket", &directory, "-d", daemon];
    arguments.extend(lines.iter().flat_map(|line| ["-c", line]));
    let finished = namespace.spawn("vtysh", &arguments)?.process.finish(WITHIN)?;
    let output = finished.success()?;
    // Its status is 0 for what a daemon refuses.
    if output.lines().any(|line| line.starts_with('%')) {
        bail!("{daemon} refuses {lines:?}:\n{output}");
    }
    Ok(output)
}

fn directory(namespace: &Namespace) -> PathBuf {
    namespace.scratch().join("frr")
}

fn config_file(namespace: &Namespace, daemon: &str) -> PathBuf {
    directory(namespace).join(Path::new(daemon).with_extension("conf"))
}
