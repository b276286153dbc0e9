//! The data plane outlives the daemon: no packet is lost when it is killed, and none when a
//! successor takes over.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!              ^ its daemon is killed and started again under traffic
//! ```

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Namespace,
    topology::{PC2, R1_TUNNEL, R1_WAN, R2_WAN},
    traffic::{ping_all, ping_until_answered},
    xgre::{Daemon, stats, tunnel, xgre},
};

in_each_xdp_mode!(no_packet_is_lost_while_a_daemon_is_killed_and_another_takes_over);

fn no_packet_is_lost_while_a_daemon_is_killed_and_another_takes_over(xdp: Xdp) -> Result<()> {
    let mut gateways = Gateways::forwarding(xdp)?;
    let before = gateways.r1.packets("tunnel0")?;

    // 5 s, long enough for a daemon to be killed and another to take over twice.
    let arguments = ["-n", "-q", "-c", "2500", "-i", "0.002", "-W", "1", PC2];
    let pings = gateways.lab.pc1.spawn("ping", &arguments)?;
    let [config, _] = Gateway::both();
    for _ in 0..2 {
        gateways.r1.kill()?;
        ping_all(&gateways.lab.pc1, PC2, 10).context("without a daemon")?;
        gateways.r1 = Daemon::start(&gateways.lab.r1, &config.clone().xdp(xdp))?;
    }
    let summary = pings.process.finish(SOON)?.success()?;
    ensure!(summary.contains("2500 received"), "{summary}");

    let after = gateways.r1.packets("tunnel0")?;
    assert_eq!((after - before).tx(), 2500 + 2 * 10, "counters go on, and every packet is in them");
    assert_eq!((after - before).drops, 0);
    Ok(())
}

#[test]
fn a_tunnel_made_by_a_command_is_known_to_the_next_daemon() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    xgre(&r1, "tunnel add extra mode gre remote 192.0.2.9 local 10.56.88.66 ttl 33 key 1.2.3.4")?;
    let before = definition(&r1)?;

    gateways.r1.kill()?;
    let [config, _] = Gateway::both();
    gateways.r1 = Daemon::start(&r1, &config)?;
    assert_eq!(definition(&r1)?, before);
    let ports: serde_json::Value = serde_json::from_str(&xgre(&r1, "port show -j")?)?;
    let names: Vec<_> = ports.as_array().context("no array")?.iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["lan", "wan"], "devices of tunnels are no ports");
    Ok(())
}

fn definition(namespace: &Namespace) -> Result<Vec<serde_json::Value>> {
    let extra = tunnel(namespace, "extra")?.context("there is no tunnel extra")?;
    Ok(["mode", "remote", "local", "ttl", "key", "mtu"].map(|key| extra[key].clone()).to_vec())
}

/// Tunnels of the config file go when the file does not name them any more.
#[test]
fn a_tunnel_that_the_config_does_not_name_any_more_goes() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    gateways.r1.kill()?;
    let other = Gateway::new(R1_WAN, R2_WAN).name("tunnel1").address(R1_TUNNEL, "172.16.168.1");
    gateways.r1 = Daemon::start(&r1, &other)?;
    ensure!(r1.attempt("ip link show tunnel0")?.status.code() == Some(1), "tunnel0 is still there");
    ping_until_answered(&r1, "172.16.168.1", SOON)
}

#[test]
fn a_second_daemon_says_so_and_leaves_the_first_alone() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let words = tests::xgre::refused_run(&gateways.lab.r1, "")?;
    assert!(words.contains("another"), "{words}");
    stats(&gateways.lab.r1)?;
    ping_all(&gateways.lab.pc1, PC2, 10)
}
