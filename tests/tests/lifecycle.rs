//! S1 to S3: making a tunnel by command, bringing it up with stock `ip`, and taking it down.
//!
//! ```text
//!  PC1 ------- R1 10.56.88.66 ====== router ====== 192.168.22.196 R2 ------- PC2
//!      tunnel0 172.16.168.2 <---------------------> 172.16.168.1 tunnel0
//! ```
//! The whole of it is drawn in `tests::topology`.

use std::fs;

use anyhow::{Result, bail, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Namespace,
    process::wait_until,
    topology::{Lab, PC1, PC2, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_none, ping_until_answered},
    xgre::{Daemon, attempt, nothing_is_left, tunnel, xgre},
};

in_each_xdp_mode!(
    the_documents_commands_make_a_tunnel_that_carries_pings,
    a_tunnel_that_is_down_carries_nothing_until_it_is_up_again,
    a_deleted_tunnel_is_gone_and_can_be_made_again,
    a_device_deleted_by_ip_link_is_noticed,
    nothing_is_left_after_a_teardown,
    the_verb_teardown_removes_what_a_killed_daemon_left,
);

fn the_documents_commands_make_a_tunnel_that_carries_pings(xdp: Xdp) -> Result<()> {
    let gateways = by_command(xdp)?;
    let Gateways { lab, .. } = &gateways;
    for (gateway, local, remote) in [(&lab.r1, R1_WAN, R2_WAN), (&lab.r2, R2_WAN, R1_WAN)] {
        let shown = xgre(gateway, "tunnel show tunnel0")?;
        let line = format!("tunnel0: gre/ip remote {remote} local {local} ttl 245");
        assert_eq!(shown.lines().next(), Some(line.as_str()));
        let device = gateway.ip("-o link show dev tunnel0")?;
        assert!(device.contains("mtu 1476") && device.contains("NOARP"), "{device}");
        assert!(device.contains("state DOWN"), "it is for `ip link` to bring it up: {device}");
    }

    bring_up(lab)?;
    ping_until_answered(&lab.r1, R2_TUNNEL, SOON)?;
    ping_all(&lab.r2, R1_TUNNEL, 5)?;
    let device = lab.r1.ip("-o link show dev tunnel0")?;
    assert!(device.contains("mtu 1414"), "{device}");
    Ok(())
}

fn a_tunnel_that_is_down_carries_nothing_until_it_is_up_again(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    lab.r2.ip("link set tunnel0 down")?;
    wait_until("R2 forwards nothing", SOON, || ping_none(&lab.pc1, PC2))?;
    ping_none(&lab.pc2, PC1)?;

    lab.r2.ip("link set tunnel0 up")?;
    // The kernel forgets the routes into a device that goes down.
    lab.r2.ip("route replace 192.168.150.0/24 dev tunnel0")?;
    gateways.settle()
}

fn a_deleted_tunnel_is_gone_and_can_be_made_again(xdp: Xdp) -> Result<()> {
    let gateways = by_command(xdp)?;
    let Gateways { lab, .. } = &gateways;
    bring_up(lab)?;
    ping_until_answered(&lab.r1, R2_TUNNEL, SOON)?;

    xgre(&lab.r1, "tunnel del tunnel0")?;
    assert!(!lab.r1.devices()?.contains(&"tunnel0".into()));
    assert_eq!(tunnel(&lab.r1, "tunnel0")?, None);
    ping_none(&lab.r2, R1_TUNNEL)?;
    let refused = attempt(&lab.r1, "tunnel del tunnel0")?.failure()?;
    assert!(refused.contains("tunnel0"), "{refused}");

    add(&lab.r1, R1_WAN, R2_WAN)?;
    up(&lab.r1, R1_TUNNEL, R2_TUNNEL)?;
    ping_until_answered(&lab.r1, R2_TUNNEL, SOON)
}

fn a_device_deleted_by_ip_link_is_noticed(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    lab.r1.ip("link del tunnel0")?;
    wait_until("the daemon knows that the device is gone", SOON, || {
        match tunnel(&lab.r1, "tunnel0")? {
            Some(tunnel) if !tunnel["ifindex"].is_null() => bail!("it still says {tunnel}"),
            Some(_) | None => Ok(()),
        }
    })?;
    ping_none(&lab.pc1, PC2)
}

fn nothing_is_left_after_a_teardown(xdp: Xdp) -> Result<()> {
    let Gateways { lab, r1, r2, .. } = Gateways::forwarding(xdp)?;
    r1.stop()?;
    r2.stop()?;
    for gateway in [&lab.r1, &lab.r2] {
        nothing_is_left(gateway)?;
        assert!(!gateway.ip("route show")?.contains("tunnel0"));
    }
    Ok(())
}

fn the_verb_teardown_removes_what_a_killed_daemon_left(xdp: Xdp) -> Result<()> {
    let Gateways { lab, r1, r2, .. } = Gateways::forwarding(xdp)?;
    let refused = attempt(&lab.r1, "teardown")?.failure()?;
    assert!(refused.contains("systemctl stop xgre"), "{refused}");
    ping_all(&lab.pc1, PC2, 5)?;

    r1.kill()?;
    assert_eq!(xgre(&lab.r1, "teardown")?, "removed the tunnel tunnel0\n");
    nothing_is_left(&lab.r1)?;
    ping_none(&lab.pc1, PC2)?;
    let nothing = "there are no tunnels; nothing of xgre is left in the kernel\n";
    assert_eq!(xgre(&lab.r1, "teardown")?, nothing);
    r2.stop().map(drop)
}

#[test]
fn a_second_tunnel_with_the_same_ends_is_refused_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let _daemon = Daemon::start(&lab.r1, &Gateway::new(R1_WAN, R2_WAN))?;
    let before = lab.r1.devices()?;
    let words = format!("tunnel add other mode gre remote {R2_WAN} local {R1_WAN} ttl 64");
    let refused = attempt(&lab.r1, &words)?.failure()?;
    assert!(refused.contains("File exists") && refused.contains("tunnel0"), "{refused}");
    assert_eq!(lab.r1.devices()?, before);
    Ok(())
}

/// Without a [[port]] in the config every Ethernet interface that has an address is a port.
#[test]
fn an_interface_that_appears_later_becomes_a_port_and_ceases_to_be_one() -> Result<()> {
    let host = Namespace::new("later")?;
    let daemon = Daemon::start(&host, &Gateway::without_tunnels())?;
    assert_eq!(ports(&host)?, "[]");
    host.ip("link add late type veth peer name bare")?;
    host.ip("link set late up")?;
    host.ip("addr add 192.0.2.1/24 dev late")?;
    wait_until("late is a port", SOON, || match ports(&host)? {
        ports if ports.contains("late") && !ports.contains("bare") => Ok(()),
        ports => bail!("the ports are {ports}"),
    })?;
    assert!(host.ip("link show dev late")?.contains("prog/xdp"));
    host.ip("addr del 192.0.2.1/24 dev late")?;
    wait_until("late is no port", SOON, || match ports(&host)?.as_str() {
        "[]" => Ok(()),
        ports => bail!("the ports are {ports}"),
    })?;
    // The kernel takes a program off a moment after its link's pin has gone.
    wait_until("late has no program", SOON, || {
        let shown = host.ip("link show dev late")?;
        ensure!(!shown.contains("prog/xdp"), "{shown}");
        Ok(())
    })?;
    daemon.stop().map(drop)
}

/// The verifier takes a third of a second for those of a mode.
#[test]
fn xdp_programs_are_loaded_for_the_modes_alone_that_ports_run_in() -> Result<()> {
    let host = Namespace::new("modes")?;
    // By its queues the kernel has no native XDP on `slow`.
    const SLOW: &str =
        "slow numrxqueues 1 numtxqueues 1 type veth peer name end numrxqueues 2 numtxqueues 2";
    for pair in ["fast type veth peer name far", SLOW] {
        host.ip(&format!("link add {pair}"))?;
    }
    let none = Gateway::without_tunnels();
    let asked = |ports: &[(&str, Xdp)]| {
        ports.iter().fold(String::new(), |text, (port, xdp)| {
            text + &none.clone().ports(&[*port]).xdp(*xdp).toml()
        })
    };
    let file = host.scratch().join("ports.toml");
    fs::write(&file, asked(&[("fast", Xdp::Off), ("slow", Xdp::Off)]))?;
    let daemon = Daemon::start_from(&host, &file)?;
    assert_eq!(daemon.xdp_programs()?, 0);
    for (ports, loaded) in [
        ([("fast", Xdp::Off), ("slow", Xdp::Generic)], 3),
        ([("fast", Xdp::Generic), ("slow", Xdp::Off)], 3),
        ([("fast", Xdp::Native), ("slow", Xdp::Generic)], 6),
        ([("fast", Xdp::Off), ("slow", Xdp::Off)], 6),
    ] {
        fs::write(&file, asked(&ports))?;
        xgre(&host, &format!("apply {}", file.display()))?;
        assert_eq!(daemon.xdp_programs()?, loaded, "{ports:?}");
    }
    daemon.stop()?;

    for (port, mode, note) in
        [("fast", "native", ""), ("slow", "generic", "no native XDP: the kernel says that")]
    {
        let daemon = Daemon::start(&host, &none.clone().ports(&[port]))?;
        let told = self::ports(&host)?;
        ensure!(told.contains(&format!("\"xdp\":\"{mode}\"")) && told.contains(note), "{told}");
        assert_eq!(daemon.xdp_programs()?, 3, "{port} by itself");
        daemon.stop()?;
    }
    Ok(())
}

fn ports(host: &Namespace) -> Result<String> {
    Ok(xgre(host, "port show -j")?.trim().to_owned())
}

/// S1: both ends by command, nothing in the config but the ports.
fn by_command(xdp: Xdp) -> Result<Gateways> {
    let none = Gateway::without_tunnels();
    let gateways = Gateways::start(xdp, [none.clone(), none])?;
    add(&gateways.lab.r1, R1_WAN, R2_WAN)?;
    add(&gateways.lab.r2, R2_WAN, R1_WAN)?;
    Ok(gateways)
}

fn add(gateway: &Namespace, local: &str, remote: &str) -> Result<()> {
    let words = format!("tunnel add tunnel0 mode gre remote {remote} local {local} ttl 245");
    xgre(gateway, &words).map(drop)
}

/// S2.
fn bring_up(lab: &Lab) -> Result<()> {
    up(&lab.r1, R1_TUNNEL, R2_TUNNEL)?;
    up(&lab.r2, R2_TUNNEL, R1_TUNNEL)
}

fn up(gateway: &Namespace, own: &str, peer: &str) -> Result<()> {
    gateway.ip("link set tunnel0 up mtu 1414")?;
    gateway.ip(&format!("addr add {own}/30 peer {peer}/30 dev tunnel0"))?;
    Ok(())
}
