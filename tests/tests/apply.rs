//! The config file while the daemon runs: `xgre apply`, SIGHUP, `xgre save` and `xgre check`.
//!
//! ```text
//!  PC1 ------- R1 10.56.88.66 ====== router ====== 192.168.22.196 R2 ------- PC2
//!              ^ its config file changes
//! ```
//! The whole of it is drawn in `tests::topology`.

use std::fs;

use anyhow::{Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Namespace,
    process::wait_until,
    topology::{PC2, R1_WAN},
    traffic::ping_all,
    xgre::{Daemon, attempt, tunnel, xgre},
};

in_each_xdp_mode!(only_what_differs_is_changed_and_no_packet_is_lost);

/// A second tunnel, between other addresses.
fn other() -> Gateway {
    Gateway::new(R1_WAN, "198.51.100.9").name("other").address("172.16.9.1", "172.16.9.2")
}

/// What a user of the gateway sees of its tunnels.
fn state(r1: &Namespace) -> Result<String> {
    let addresses = r1.ip("-4 -o address show")?;
    Ok([addresses, r1.ip("route show")?, xgre(r1, "tunnel show")?].join("\n"))
}

/// Writes the config of the daemon on R1, and applies it.
fn apply(r1: &Daemon, lab: &Namespace, config: &str) -> Result<String> {
    fs::write(r1.config(), config)?;
    xgre(lab, &format!("apply {}", r1.config().display()))
}

fn only_what_differs_is_changed_and_no_packet_is_lost(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, r1, .. } = &gateways;
    let index = lab.r1.ip("-br link show dev tunnel0")?;
    let arguments = ["-n", "-q", "-c", "1000", "-i", "0.002", "-W", "1", PC2];
    let pings = lab.pc1.spawn("ping", &arguments)?;

    let [first, _] = Gateway::both().map(|config| config.xdp(xdp));
    let second = first.clone().options(&["tos = 8", "mss = \"auto\""]).and(other());
    let said = apply(r1, &lab.r1, &second.toml())?;
    assert_eq!(
        said,
        "+ tunnel other: mode gre local 10.56.88.66 remote 198.51.100.9 ttl 245 addresses \
         172.16.9.1/30 peer 172.16.9.2/30\n\
         ~ tunnel tunnel0: mss default -> auto, tos default -> 8\n\
         added 1, changed 1, deleted 0\n"
    );
    assert_eq!(
        xgre(&lab.r1, &format!("apply {}", r1.config().display()))?,
        "nothing to do: all is as the file says\n"
    );
    let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
    ensure!(shown.contains(" tos 0x08"), "{shown}");
    ensure!(lab.r1.ip("address show dev other")?.contains("172.16.9.1"));

    let dry = xgre(&lab.r1, &format!("apply -n {}", write(r1, &first.toml())?))?;
    ensure!(dry.ends_with("would add 0, change 1 and delete 1; `xgre apply` does it\n"), "{dry}");
    ensure!(tunnel(&lab.r1, "other")?.is_some(), "it was only said");
    apply(r1, &lab.r1, &first.toml())?;
    ensure!(tunnel(&lab.r1, "other")?.is_none());
    assert_eq!(lab.r1.ip("-br link show dev tunnel0")?, index, "the device is the same");

    let summary = pings.process.finish(SOON)?.success()?;
    ensure!(summary.contains("1000 received"), "{summary}");
    Ok(())
}

fn write(r1: &Daemon, config: &str) -> Result<String> {
    fs::write(r1.config(), config)?;
    Ok(r1.config().display().to_string())
}

#[test]
fn what_is_the_devices_follows_the_config() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let Gateways { lab, r1, .. } = &gateways;
    let [first, _] = Gateway::both().map(|config| config.xdp(Xdp::Native));
    let started = state(&lab.r1)?;
    lab.r1.ip("address add 10.99.0.1/32 dev tunnel0")?;

    let more = first.clone().options(&["mtu = 1400"]).routes(&["10.77.0.0/16"]);
    apply(r1, &lab.r1, &more.toml())?;
    ensure!(lab.r1.ip("-o link show dev tunnel0")?.contains(" mtu 1400 "));
    ensure!(lab.r1.ip("route show 10.77.0.0/16")?.contains("dev tunnel0"));

    apply(r1, &lab.r1, &first.toml())?;
    ensure!(lab.r1.ip("-o link show dev tunnel0")?.contains(" mtu 1476 "));
    ensure!(lab.r1.ip("address show dev tunnel0")?.contains("10.99.0.1/32"), "the user's stays");
    lab.r1.ip("address del 10.99.0.1/32 dev tunnel0")?;
    assert_eq!(state(&lab.r1)?, started);
    ping_all(&lab.pc1, PC2, 3)
}

#[test]
fn where_one_step_is_refused_nothing_has_changed() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let Gateways { lab, r1, .. } = &gateways;
    let before = state(&lab.r1)?;
    let [first, _] = Gateway::both().map(|config| config.xdp(Xdp::Native));
    let changed = first.clone().options(&["ttl = 9"]).and(other());
    // The kernel has no IPv6 on a device with so small an MTU: the last of the steps fails.
    let impossible = Gateway::new(R1_WAN, "198.51.100.10").name("zz").options(&["mtu = 1000"]);
    let impossible = impossible.address("fd00::1", "fd00::2");
    let file = write(r1, &changed.clone().and(impossible).toml())?;
    let refused = attempt(&lab.r1, &format!("apply {file}"))?.failure()?;
    ensure!(refused.contains("cannot add the address fd00::1"), "{refused}");
    assert_eq!(state(&lab.r1)?, before);

    for (config, refusal) in [
        (changed.toml() + "[limits]\ntunnels = 5\n", "limits.tunnels is 1024 and would be 5"),
        (changed.toml().replace("\"lan\"", "\"nosuch\""), "no such interface"),
        (changed.toml().replace("ttl =", "ttll ="), "did you mean `ttl`?"),
    ] {
        let file = write(r1, &config)?;
        let refused = attempt(&lab.r1, &format!("apply {file}"))?.failure()?;
        ensure!(refused.contains(refusal), "{refused}");
        assert_eq!(state(&lab.r1)?, before, "{refusal}");
    }
    ping_all(&lab.pc1, PC2, 3)
}

#[test]
fn sighup_reads_the_config_again_or_leaves_everything_as_it_is() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let Gateways { lab, r1, .. } = &gateways;
    let [first, _] = Gateway::both().map(|config| config.xdp(Xdp::Native));
    write(r1, &first.clone().and(other()).toml())?;
    r1.hang_up()?;
    wait_until("the new tunnel is there, and up", SOON, || {
        let other = tunnel(&lab.r1, "other")?.unwrap_or_default();
        ensure!(other["up"] == true, "{other} {}", r1.log()?);
        Ok(())
    })?;
    let before = state(&lab.r1)?;
    write(r1, "[[tunnel]]\nname = \"half")?;
    r1.hang_up()?;
    wait_until("the daemon says that it cannot", SOON, || {
        let log = r1.log()?;
        ensure!(log.contains("not reloaded, nothing has changed"), "{log}");
        Ok(())
    })?;
    assert_eq!(state(&lab.r1)?, before);
    ping_all(&lab.pc1, PC2, 3)
}

#[test]
fn tunnels_that_are_saved_come_back() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    let file = gateways.r1.config();
    fs::write(&file, format!("# Ours.\n{}", fs::read_to_string(&file)?))?;
    let text = fs::read_to_string(&file)?;
    let save = format!("save {}", file.display());
    ensure!(xgre(&r1, &save)?.contains("says it all already"));

    xgre(
        &r1,
        "tunnel add extra mode gre remote 198.51.100.9 local 10.56.88.66 ttl 33 ikey 1 csum",
    )?;
    r1.ip("address add 172.16.9.1/24 dev extra")?;
    r1.ip("link set extra up mtu 1300")?;
    wait_until("the tunnel is saved as it is", SOON, || {
        let printed = xgre(&r1, &format!("{save} -n"))?;
        ensure!(printed.contains("addresses = [\"172.16.9.1/24\"]"), "{printed}");
        ensure!(printed.contains("mtu = 1300"), "{printed}");
        let extra = tunnel(&r1, "extra")?.unwrap_or_default();
        ensure!(extra["up"] == true, "{extra}");
        Ok(())
    })?;
    assert_eq!(fs::read_to_string(&file)?, text, "it was only printed");
    ensure!(xgre(&r1, &save)?.contains("2 tunnels saved"));
    let saved = fs::read_to_string(&file)?;
    for line in text.lines() {
        ensure!(saved.contains(line), "`{line}` was there, and is not any more:\n{saved}");
    }
    ensure!(xgre(&r1, &format!("check {}", file.display()))?.contains("right: 2 tunnels, 2 ports"));
    assert_eq!(
        xgre(&r1, &format!("apply {}", file.display()))?,
        "~ tunnel extra: addresses default -> 172.16.9.1/24, mtu default -> 1300, kept in the \
         config from now on\nadded 0, changed 1, deleted 0\n"
    );
    let state_before = state(&r1)?;
    gateways.r1.stop()?;
    gateways.r1 = Daemon::start_from(&r1, &file)?;
    let before = without_indices(&state_before);
    // The daemon hears a moment after its start that the devices are up.
    wait_until("all is as it was", SOON, || {
        let now = without_indices(&state(&r1)?);
        ensure!(now == before, "it is {now:#?} and was {before:#?}");
        Ok(())
    })
}

/// `7: extra ...`: a device that is made anew has another index.
fn without_indices(state: &str) -> Vec<String> {
    let mut lines: Vec<_> = state
        .lines()
        .map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned())
        .collect();
    lines.sort();
    lines
}
