//! Tunnels of the kernel's own at both ends, of which R1's are adopted: what is on the wire and what arrives
//! is the same with XDP and without, and what XDP does not do the kernel goes on doing.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::SOON,
    process::wait_until,
    traffic::{ping_all, ping_until_answered},
    xgre::{Daemon, attempt, tunnel, xgre},
};

use crate::{
    FAR, KEY, Lab as Gateways, PC1, R1, R1_TUNNEL, R2, R2_TUNNEL,
    checks::{Checks, TO_KERNEL},
    headers,
    lab::{Lab, on_one_cpu},
    matrix::{Pingers, traffic, warm_up},
    rows::{ADOPTED, Row, rows},
};

#[test]
#[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
fn every_adopted_tunnel_carries_what_it_carried_before() -> Result<()> {
    let xdp = Xdp::Native;
    on_one_cpu()?;
    let rows = rows(ADOPTED);
    let lab = Lab::new(&rows)?;
    let pingers = Pingers::new(&lab)?;
    lab.kernel()?;
    warm_up(&pingers, &rows[0])?;
    let before = headers::sent(&lab, &pingers.near, &rows)?;
    let config = Gateway::without_tunnels().xdp(xdp).adopt("\"all\"");
    let daemon = Daemon::start(&lab.r1, &config)?;
    for row in &rows {
        wait_until("it is accelerated, or the kernel's for good", SOON, || settled(&lab, row))?;
    }
    let mut checks = Checks::new(xdp)?;
    let sent = headers::sent(&lab, &pingers.near, &rows)?;
    for ((row, before), sent) in rows.iter().zip(&before).zip(&sent) {
        for inner in row.inner {
            checks.check(row.cell(*inner), TO_KERNEL, "adopted: headers", || {
                match (before, sent) {
                    (Ok(before), Ok(sent)) => headers::same(before, sent, *inner),
                    (Err(error), _) => bail!("without xgre: {error:#}"),
                    (_, Err(error)) => bail!("{error:#}"),
                }
            })?;
        }
    }
    traffic(&mut checks, &lab, &pingers, &rows)?;
    for row in &rows {
        let carried = daemon.packets(&row.device())?;
        for inner in row.inner {
            checks.check(row.cell(*inner), TO_KERNEL, "adopted: tier", || tier(carried, row))?;
        }
    }
    daemon.kill()?;
    checks.conclude()
}

/// Forwarded IP goes by XDP, but for what is numbered; into a tunnel of Ethernet only the kernel routes.
fn tier(carried: Packets, row: &Row) -> Result<()> {
    let forwarded = carried.rx_xdp.min(carried.tx_xdp);
    let is_kernels = row.is_numbered() || row.outer.is_ethernet();
    let expected = if is_kernels { carried.xdp() == 0 } else { forwarded >= 10 };
    ensure!(expected && carried.rx_tc + carried.tx_tc == 0, "{carried:?}");
    ensure!(carried.drops == 0, "{} packets were dropped: {carried:?}", carried.drops);
    Ok(())
}

/// XDP encapsulates for a tunnel, or says why it never will.
fn settled(lab: &Lab, row: &Row) -> Result<()> {
    let found = shown(&lab.r1, &row.device())?;
    let why_not = found["why_not"].as_str().unwrap_or_default();
    let expected = match () {
        () if row.is_numbered() => why_not.contains("its packets are numbered"),
        () if row.outer.is_ethernet() => true,
        () => found["accelerated"] == true,
    };
    ensure!(expected && found["adopted"] == true, "{found}");
    Ok(())
}

fn shown(namespace: &tests::namespace::Namespace, name: &str) -> Result<Value> {
    tunnel(namespace, name)?.with_context(|| format!("there is no tunnel {name}"))
}

const WORDS: &str = "mode gre remote 10.56.88.67 local 10.56.88.66 ttl 245";

/// R1's tunnel, as its operator made it.
fn with_tunnel() -> Result<Gateways> {
    let lab = Gateways::new()?;
    make(&lab)?;
    ping_until_answered(&lab.pc1, FAR, SOON)?;
    Ok(lab)
}

fn make(lab: &Gateways) -> Result<()> {
    lab.r1.ip(&format!("tunnel add gre1 {WORDS} key {KEY}"))?;
    lab.r1.ip("link set gre1 up")?;
    lab.r1.ip(&format!("addr add {R1_TUNNEL}/30 dev gre1"))?;
    lab.r1.ip(&format!("route add {FAR}/32 dev gre1")).map(drop)
}

/// Ten pings from PC1, all answered, and how many packets XDP carried for them, in and out.
fn by_xdp(lab: &Gateways, daemon: &Daemon, name: &str, to: &str) -> Result<(u64, u64)> {
    // Of one that is left alone nothing is counted.
    let before = daemon.packets(name).unwrap_or_default();
    ping_all(&lab.pc1, to, 10)?;
    let carried = daemon.packets(name).unwrap_or_default() - before;
    ensure!(carried.rx_tc + carried.tx_tc + carried.drops == 0, "{carried:?}");
    Ok((carried.rx_xdp, carried.tx_xdp))
}

fn settles(lab: &Gateways, daemon: &Daemon, expected: (u64, u64)) -> Result<()> {
    wait_until(&format!("XDP carries {expected:?} of ten pings"), SOON, || {
        let found = by_xdp(lab, daemon, "gre1", FAR)?;
        ensure!(found == expected, "found {found:?}");
        Ok(())
    })
}

const ALL: (u64, u64) = (10, 10);
const NONE: (u64, u64) = (0, 0);

fn why_not(lab: &Gateways, part: &str) -> Result<()> {
    wait_until(&format!("gre1 is not accelerated: {part}"), SOON, || {
        let found = shown(&lab.r1, "gre1")?;
        let why_not = found["why_not"].as_str().unwrap_or_default();
        ensure!(why_not.contains(part), "{found}");
        Ok(())
    })
}

#[test]
#[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
fn a_kernels_tunnel_is_adopted_followed_and_given_back() -> Result<()> {
    let lab = with_tunnel()?;
    let config = Gateway::without_tunnels().xdp(Xdp::Native);
    let daemon = Daemon::start(&lab.r1, &config)?;
    why_not(&lab, "not adopted: `xgre adopt gre1`")?;
    ping_all(&lab.pc1, FAR, 10)?;

    let said = xgre(&lab.r1, "adopt gre1")?;
    ensure!(
        said.starts_with("gre1: gre/ip remote 10.56.88.67 local 10.56.88.66 ttl 245 key 42"),
        "{said}"
    );
    settles(&lab, &daemon, ALL)?;
    let said = xgre(&lab.r1, "adopt")?;
    ensure!(said.contains("via 10.56.88.67 dev wan adopted\n    accelerated by XDP"), "{said}");
    // The gateway's own goes through the device, as it always did.
    ping_until_answered(&lab.r1, R2_TUNNEL, SOON)?;
    ping_until_answered(&lab.r2, R1_TUNNEL, SOON)?;
    ping_all(&lab.r2, PC1, 10)?;

    // It outlives the daemon, and what it has counted does.
    let counted = daemon.packets("gre1")?;
    daemon.kill()?;
    ping_all(&lab.pc1, FAR, 10)?;
    let daemon = Daemon::start(&lab.r1, &config)?;
    settles(&lab, &daemon, ALL)?;
    let carried = daemon.packets("gre1")? - counted;
    ensure!(carried.rx_xdp >= 20 && carried.tx_xdp >= 20, "{carried:?}");

    // Changes are followed, and what the ends disagree about is told in the words that mend it.
    lab.r2.ip("tunnel change tunnel0 key 43")?;
    wait_until("the peer's key is told", SOON, || {
        let _ = ping_all(&lab.pc1, FAR, 1);
        ping_until_answered(&lab.r2, PC1, std::time::Duration::from_millis(200)).ok();
        let found = shown(&lab.r1, "gre1")?;
        let fix = found["mismatch"]["fix"].as_str().unwrap_or_default();
        ensure!(fix == "ip link change gre1 type gre key 43", "{found}");
        Ok(())
    })?;
    lab.r1.ip("link change gre1 type gre key 43")?;
    settles(&lab, &daemon, ALL)?;

    // A queue, and filters, see all of its packets.
    lab.r1.run("tc qdisc add dev gre1 root pfifo limit 100")?;
    why_not(&lab, "past its queue pfifo")?;
    settles(&lab, &daemon, NONE)?;
    lab.r1.run("tc qdisc del dev gre1 root")?;
    settles(&lab, &daemon, ALL)?;

    // Gone, it is gone; made again, it is adopted again.
    lab.r1.ip("link del gre1")?;
    wait_until("it is gone", SOON, || {
        ensure!(tunnel(&lab.r1, "gre1")?.is_none(), "it is there");
        Ok(())
    })?;
    make(&lab)?;
    lab.r1.ip("link change gre1 type gre key 43")?;
    ping_until_answered(&lab.pc1, FAR, SOON)?;
    settles(&lab, &daemon, ALL)?;

    for (words, hint) in [
        ("tunnel del gre1", "`ip tunnel del gre1`"),
        ("tunnel change gre1 key 9", "`ip tunnel change gre1`"),
        ("link set gre1 down", "`ip link set gre1`"),
        ("adopt wan", "wan is veth, and no GRE tunnel"),
        ("adopt gre7", "No such device"),
        ("adopt gre0", "there is nothing to forward"),
    ] {
        let refused = attempt(&lab.r1, words)?;
        ensure!(!refused.status.success(), "{words} was taken");
        let said = refused.output.to_string();
        ensure!(said.contains(hint), "no {hint} in {said}");
    }

    xgre(&lab.r1, "adopt gre1 off")?;
    settles(&lab, &daemon, NONE)?;
    why_not(&lab, "not adopted")?;
    xgre(&lab.r1, "adopt all")?;
    settles(&lab, &daemon, ALL)?;
    daemon.stop()?;
    xgre(&lab.r1, "teardown")?;
    ping_all(&lab.pc1, FAR, 10)?;
    let left = lab.r1.devices()?;
    ensure!(left.iter().any(|device| device == "gre1"), "{left:?}");
    let left = lab.r1.run("ip link show dev wan")?;
    ensure!(!left.contains("xdp"), "{left}");
    Ok(())
}

const FAR_STATION: &str = "192.168.150.77";

#[test]
#[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
fn an_adopted_gretap_in_a_bridge_takes_what_the_bridge_has_learned() -> Result<()> {
    let lab = Gateways::new()?;
    let Gateways { r1, r2, .. } = &lab;
    let words = |local, remote| format!("type gretap local {local} remote {remote} key 7");
    r2.ip(&format!("link add tap1 {}", words(R2, R1)))?;
    r2.ip("route flush dev tunnel0")?;
    r2.ip(&format!("addr add {FAR_STATION}/24 dev tap1"))?;
    r1.ip(&format!("link add tap1 {}", words(R1, R2)))?;
    r1.ip("addr flush dev lan")?;
    r1.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    for device in ["lan", "tap1"] {
        r1.ip(&format!("link set {device} master br0"))?;
    }
    r1.ip("link set br0 up")?;
    for gateway in [r1, r2] {
        gateway.ip("link set tap1 up")?;
    }
    ping_until_answered(&lab.pc1, FAR_STATION, SOON)?;
    let config = Gateway::without_tunnels().xdp(Xdp::Native).adopt("[\"tap1\"]");
    let daemon = Daemon::start(r1, &config)?;
    wait_until("XDP carries all of ten pings", SOON, || {
        let found = by_xdp(&lab, &daemon, "tap1", FAR_STATION)?;
        ensure!(found == ALL, "found {found:?}");
        Ok(())
    })?;
    // What the bridge floods is the kernel's, both ways.
    lab.pc1.ip("neigh flush dev eth0")?;
    ping_until_answered(&lab.pc1, FAR_STATION, SOON)?;
    daemon.stop().map(drop)
}
