//! The package on a clean system, as R1 of the document's topology.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!              ^ systemd, dpkg and the package; R2 runs what was built
//! ```

use std::{
    fs,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    config::Gateway,
    counters::Packets,
    gateways::SOON,
    machine::{self, Machine},
    process::wait_until,
    topology::{Lab, PC1, PC2},
    traffic::{ping_all, ping_until_answered},
    xgre::Daemon,
};

const CONFIG: &str = "/etc/xgre/xgre.toml";
/// In tenths, of `systemd-analyze security`.
const EXPOSURE: u32 = 25;
/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF, by their numbers.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

/// R1 is a machine, in which the package has been installed, and R2 forwards.
struct Site {
    r1: Machine,
    r2: Daemon,
    lab: Lab,
}

impl Site {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let [_, config] = Gateway::both();
        let r2 = Daemon::start(&lab.r2, &config)?;
        let r1 = Machine::boot(&lab.r1, &machine::clean_root()?)?;
        fs::copy(machine::package()?, r1.file("/root/xgre.deb"))?;
        Ok(Self { r1, r2, lab })
    }

    /// The same, with the service running and packets taking XDP.
    fn serving() -> Result<Self> {
        let site = Self::new()?;
        site.install()?;
        let [config, _] = Gateway::both();
        site.r1.write(CONFIG, &config.toml())?;
        site.r1.run("systemctl start xgre")?;
        ping_until_answered(&site.lab.pc1, PC2, SOON)?;
        ping_until_answered(&site.lab.pc2, PC1, SOON)?;
        site.wait_for_status("1 tunnel, accelerated by XDP; 2 ports")?;
        Ok(site)
    }

    fn install(&self) -> Result<()> {
        self.r1.run("dpkg --install /root/xgre.deb").map(drop)
    }

    fn property(&self, name: &str) -> Result<String> {
        self.r1.property("xgre", name)
    }

    fn wait_for_status(&self, expected: &str) -> Result<()> {
        wait_until("systemd knows how it stands", SOON, || {
            let status = self.property("StatusText")?;
            ensure!(status == expected, "{status}");
            Ok(())
        })
    }

    fn main_process(&self) -> Result<u32> {
        Ok(self.property("MainPID")?.parse()?)
    }

    fn tunnels(&self) -> Result<Vec<String>> {
        let reply = self.r1.xgre("tunnel show")?;
        let tunnels = reply.as_array().context("no array")?;
        Ok(tunnels.iter().filter_map(|tunnel| Some(tunnel["ifname"].as_str()?.into())).collect())
    }

    /// Pings while something is done, none of which may be lost.
    fn lossless(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let arguments = ["-n", "-q", "-i", "0.01", "-W", "1", PC2];
        let pings = self.lab.pc1.spawn("ping", &arguments)?;
        work()?;
        ping_all(&self.lab.pc1, PC2, 10)?;
        pings.process.signal(Signal::SIGINT)?;
        let summary = pings.process.finish(SOON)?.success()?;
        ensure!(summary.contains(" 0% packet loss"), "{summary}");
        Ok(())
    }
}

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn installing_starts_nothing_and_purging_leaves_nothing() -> Result<()> {
    let site = Site::new()?;
    let before = site.r1.run(LIST)?;
    site.install()?;
    assert_eq!(site.property("ActiveState")?, "inactive");
    assert_eq!(site.property("UnitFileState")?, "disabled");
    assert_eq!(site.lab.r1.devices()?, ["lan", "wan"]);

    let [config, _] = Gateway::both();
    site.r1.write(CONFIG, &config.toml())?;
    site.r1.run("systemctl enable --now xgre")?;
    assert_eq!(site.property("UnitFileState")?, "enabled");
    ping_until_answered(&site.lab.pc1, PC2, SOON)?;

    site.r1.run("dpkg --remove xgre")?;
    site.nothing_forwards()?;
    ensure!(site.r1.file(CONFIG).exists(), "the config goes only when the package is purged");
    site.r1.run("dpkg --purge xgre")?;
    let after = site.r1.run(LIST)?;
    let left: Vec<_> = after.lines().filter(|file| !before.contains(file)).collect();
    assert_eq!(left, [""; 0]);
    Ok(())
}

/// All files but those that dpkg and systemd write whatever is installed.
const LIST: &str = "find / -xdev -path /var/log -prune -o -path /var/cache -prune -o -path \
                    /var/lib/dpkg -prune -o -print";

impl Site {
    /// Neither in R1's network namespace nor below /run and /sys/fs/bpf.
    fn nothing_forwards(&self) -> Result<()> {
        tests::xgre::nothing_is_left(&self.lab.r1)?;
        for directory in ["/run/xgre", "/sys/fs/bpf/xgre"] {
            let found = self.r1.attempt(&format!("find {directory} -mindepth 1"))?.output.stdout;
            assert_eq!(found, "", "in {directory}");
        }
        Ok(())
    }
}

/// Reload applies the file, and fails where the file is wrong, which then changes nothing.
#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn systemctl_reload_adds_a_tunnel_and_fails_where_the_file_is_wrong() -> Result<()> {
    let site = Site::serving()?;
    let daemon = site.main_process()?;
    let [config, _] = Gateway::both();
    let other = Gateway::new("10.56.88.66", "192.0.2.9").name("tunnel1");
    let both = config.toml() + &other.toml();
    site.r1.write(CONFIG, &both)?;
    site.lossless(|| site.r1.run("systemctl reload xgre").map(drop))?;
    assert_eq!(site.tunnels()?, ["tunnel0", "tunnel1"]);
    site.wait_for_status("2 tunnels, accelerated by XDP; 2 ports")?;

    site.r1.write(CONFIG, &both.replace("ttl = 245", "tll = 245"))?;
    let said = site.r1.attempt("systemctl reload xgre")?.failure()?;
    ensure!(said.contains("xgre.service failed"), "{said}");
    let journal = site.r1.run("journalctl --unit xgre --no-pager")?;
    ensure!(journal.contains("tll") && journal.contains(CONFIG), "{journal}");
    ensure!(journal.contains("]:  INFO "), "the time is the journal's: {journal}");
    assert_eq!(site.tunnels()?, ["tunnel0", "tunnel1"]);
    assert_eq!(site.property("ActiveState")?, "active");
    assert_eq!(site.main_process()?, daemon, "the same daemon goes on");
    ping_all(&site.lab.pc1, PC2, 10)
}

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn forwarding_outlives_stop_restart_and_upgrade_without_a_loss() -> Result<()> {
    let site = Site::serving()?;
    let before = site.packets()?;
    site.lossless(|| {
        site.r1.run("systemctl stop xgre")?;
        assert_eq!(site.property("ActiveState")?, "inactive");
        ping_all(&site.lab.pc1, PC2, 100).context("without a daemon")?;
        site.r1.run("systemctl start xgre")?;
        site.r1.run("systemctl restart xgre")?;
        let daemon = site.main_process()?;
        // The same version again; to dpkg and the scripts that is an upgrade.
        site.install()?;
        assert_ne!(site.main_process()?, daemon, "the new daemon has taken over");
        Ok(())
    })?;
    let carried = site.packets()? - before;
    ensure!(carried.tx_xdp > 100 && carried.drops == 0, "{carried:?}");
    site.r2.stop().map(drop)
}

impl Site {
    fn packets(&self) -> Result<Packets> {
        Packets::of(&self.r1.xgre("stats")?, "tunnel0")
    }
}

/// When the last sign of life came, by systemd's clock.
const LAST_SIGN: &str = "WatchdogTimestampMonotonic";

/// The main loop gives the signs of life: a daemon that hangs is replaced, and meanwhile forwards.
#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn a_daemon_that_hangs_is_replaced_and_one_that_works_is_not() -> Result<()> {
    let site = Site::serving()?;
    assert_eq!(site.property("WatchdogUSec")?, "30s");
    let patience = "/etc/systemd/system/xgre.service.d/patience.conf";
    site.r1.write(patience, "[Service]\nWatchdogSec=3\n")?;
    site.r1.run("systemctl daemon-reload")?;
    site.r1.run("systemctl restart xgre")?;
    let daemon = site.main_process()?;
    // One a second, for longer than systemd waits.
    for _ in 0..5 {
        let earlier = site.property(LAST_SIGN)?;
        wait_until("there is a sign of life", SOON, || {
            ensure!(site.property(LAST_SIGN)? != earlier, "none since {earlier}");
            Ok(())
        })?;
    }
    assert_eq!(site.property("NRestarts")?, "0");

    site.lossless(|| {
        site.r1.run("systemctl kill --signal=STOP --kill-whom=main xgre")?;
        wait_until("systemd has started another", Duration::from_secs(30), || {
            ensure!(site.property("NRestarts")? == "1", "not yet");
            ensure!(site.property("ActiveState")? == "active", "not yet");
            Ok(())
        })
    })?;
    assert_eq!(site.property("Result")?, "success");
    assert_ne!(site.main_process()?, daemon);
    Ok(())
}

/// What the unit promises is in force on the running daemon, and the figure is as good as promised.
#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn the_service_is_confined() -> Result<()> {
    let site = Site::serving()?;
    let daemon = site.main_process()?;
    let status = site.r1.run(&format!("cat /proc/{daemon}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), format!("{CAPABILITIES:016x}"), "{set}");
    }
    assert_eq!((&*field("NoNewPrivs"), &*field("Seccomp")), ("1", "2"));

    let analyze = format!(
        "systemd-analyze security --no-pager --offline=true --threshold={EXPOSURE} \
         /usr/lib/systemd/system/xgre.service"
    );
    let report = site.r1.run(&analyze)?;
    let figure = report.lines().last().unwrap_or_default();
    ensure!(figure.contains("Overall exposure level"), "{report}");
    // Past the harness, which would keep it to itself.
    writeln!(io::stderr(), "{figure}")?;
    Ok(())
}
