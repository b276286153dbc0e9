//! Every combination of [`crate::rows`]: headers, pings, TCP and what is too big, from xgre to the
//! kernel and back.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::{
    config::Xdp, counters::Packets, gateways::SOON, namespace::Namespace, process::wait_until,
    xgre::stats,
};

use crate::{
    checks::{Checks, FROM_KERNEL, TO_KERNEL},
    headers,
    lab::{Lab, OWN, on_one_cpu},
    packets::{Answer, Echo, Pinger, stream},
    rows::{Ends, Inner, RUNS, Row, rows},
    tap::Tap,
};

/// R2's offloads: as on a host, and none; and how many segments its tunnels' devices take at once.
const OFFLOADS: [(&str, &str, u32); 2] = [
    ("TCP, offloads on", "tx on tso on gso on gro on", 65535),
    ("TCP, offloads off", "gro off gso off tso off tx off", 1),
];

pub fn every_combination_works_both_ways(xdp: Xdp) -> Result<()> {
    on_one_cpu()?;
    let rows = rows(RUNS);
    let lab = Lab::new(&rows)?;
    let pingers = Pingers::new(&lab)?;
    let kernel = headers::of_kernel(&lab, &pingers.near, &rows)?;
    let daemon = lab.xgre(xdp)?;
    let mut checks = Checks::new(xdp)?;
    // Neighbours are resolved on the way, and until then packets are passed on.
    warm_up(&pingers, &rows[0])?;
    let before = stats(&lab.r1)?;
    let sent = headers::sent(&lab, &pingers.near, &rows)?;
    for ((row, kernel), sent) in rows.iter().zip(&kernel).zip(&sent) {
        for inner in row.inner {
            checks.check(row.cell(*inner), TO_KERNEL, "headers", || match sent {
                Ok(sent) => headers::compare(kernel, sent, *inner),
                Err(error) => bail!("{error:#}"),
            })?;
        }
    }
    let wrong_sums = traffic(&mut checks, &lab, &pingers, &rows)?;
    let after = stats(&lab.r1)?;
    for (row, wrong_sums) in rows.iter().zip(wrong_sums) {
        let carried = Packets::of(&after, &row.device())? - Packets::of(&before, &row.device())?;
        for inner in row.inner {
            checks.check(row.cell(*inner), TO_KERNEL, "tier", || {
                let mut carried = carried;
                // Of them some came before these packets.
                let unroutable = unroutable(&after, row) - unroutable(&before, row);
                let excused = unroutable + wrong_sums;
                let drops = carried.drops.checked_sub(excused);
                carried.drops = drops.with_context(|| format!("{excused} drops were due"))?;
                tier(carried, xdp, row).with_context(|| reasons(&after, &row.device()))
            })?;
        }
    }
    // Removing so many devices one by one would take seconds, and shows nothing.
    daemon.kill()?;
    checks.conclude()
}

/// Pings and streams through every tunnel; how many packets of each the kernel sent with a wrong
/// checksum.
pub fn traffic(
    checks: &mut Checks,
    lab: &Lab,
    pingers: &Pingers,
    rows: &[Row],
) -> Result<Vec<u64>> {
    let mut tap = Tap::new(&lab.switch)?;
    let mut wrong_sums = vec![0; rows.len()];
    for (row, wrong_sums) in rows.iter().zip(&mut wrong_sums) {
        for inner in row.inner {
            pings(checks, pingers, row, *inner)?;
            *wrong_sums += tap.look(&cell(row, *inner, "pings"), &row.near().parse()?)?;
        }
    }
    for (what, offloads, segments) in OFFLOADS {
        lab.r2.offloads("wan", offloads)?;
        lab.far_segments(segments)?;
        for (row, wrong_sums) in rows.iter().zip(&mut wrong_sums) {
            for inner in row.inner {
                let near = (&lab.pc1, row.host(*inner).parse()?);
                let far = (&lab.r2, row.target(*inner).parse()?);
                for (direction, from, to) in [(TO_KERNEL, near, far), (FROM_KERNEL, far, near)] {
                    checks.check(row.cell(*inner), direction, what, || stream(from, to))?;
                    let cell = cell(row, *inner, &format!("{direction} the kernel, {what}"));
                    *wrong_sums += tap.look(&cell, &row.near().parse()?)?;
                }
            }
        }
    }
    // The gateway's own is encapsulated by TC, and delivered through the device.
    let own = (&lab.r1, OWN.parse()?);
    let far = (&lab.r2, rows[0].target(Inner::Ipv4).parse()?);
    for (direction, from, to) in [(TO_KERNEL, own, far), (FROM_KERNEL, far, own)] {
        checks.check(rows[0].cell(Inner::Ipv4), direction, "own TCP", || stream(from, to))?;
    }
    tap.finish()?;
    Ok(wrong_sums)
}

fn cell(row: &Row, inner: Inner, what: &str) -> String {
    format!("{} {what}", row.cell(inner).join(", "))
}

/// At PC1 and R2, of both versions.
pub struct Pingers {
    pub near: [Pinger; 2],
    far: [Pinger; 2],
}

impl Pingers {
    pub fn new(lab: &Lab) -> Result<Self> {
        let both = |namespace: &Namespace| -> Result<[Pinger; 2]> {
            let [v4, v6] = [Inner::Ipv4, Inner::Ipv6].map(any);
            Ok([Pinger::new(namespace, &v4)?, Pinger::new(namespace, &v6)?])
        };
        Ok(Self { near: both(&lab.pc1)?, far: both(&lab.r2)? })
    }
}

pub fn warm_up(pingers: &Pingers, row: &Row) -> Result<()> {
    let inner = row.inner[0];
    let (host, target) = (row.host(inner).parse()?, row.target(inner).parse()?);
    let echo =
        Echo { source: host, target, size: 84, dont_fragment: true, tos: 0, ttl: 64, number: 100 };
    wait_until("neighbours are resolved", SOON, || pingers.near[inner as usize].ping(&echo))?;
    let back = Echo { source: target, target: host, ..echo };
    wait_until("neighbours are resolved", SOON, || pingers.far[inner as usize].ping(&back))
        .map(drop)
}

fn any(inner: Inner) -> IpAddr {
    match inner {
        Inner::Ipv4 => [0; 4].into(),
        Inner::Ipv6 => [0_u16; 8].into(),
    }
}

/// Small, just fitting and too big, from either end.
fn pings(checks: &mut Checks, pingers: &Pingers, row: &Row, inner: Inner) -> Result<()> {
    let (near, far) = (&pingers.near[inner as usize], &pingers.far[inner as usize]);
    let out = Echo {
        source: row.host(inner).parse()?,
        target: row.target(inner).parse()?,
        size: 84,
        dont_fragment: true,
        tos: 0,
        ttl: 64,
        number: 1,
    };
    let back = Echo { source: out.target, target: out.source, ..out };
    let (mtu, far_mtu) = (row.near_mtu() as usize, row.far_mtu() as usize);
    let replied = |pinger: &Pinger, echo: Echo| -> Result<()> {
        let answer = pinger.ping(&echo)?;
        ensure!(answer == Answer::Reply, "{answer:?} to {echo:?}");
        Ok(())
    };
    checks.check(row.cell(inner), TO_KERNEL, "ping", || replied(near, out))?;
    checks
        .check(row.cell(inner), FROM_KERNEL, "ping", || replied(far, Echo { number: 2, ..back }))?;
    // The answer to a packet of the near MTU must fit the far one too, or be fragmented.
    checks.check(row.cell(inner), TO_KERNEL, "largest ping", || {
        replied(near, Echo { size: mtu.min(far_mtu), number: 3, ..out })
    })?;
    checks.check(row.cell(inner), FROM_KERNEL, "largest ping", || {
        replied(far, Echo { size: mtu.min(far_mtu), number: 4, ..back })
    })?;
    if mtu < 1500 {
        checks.check(row.cell(inner), TO_KERNEL, "too big", || {
            let answer = near.ping(&Echo { size: mtu + 1, number: 5, ..out })?;
            let expected = Answer::TooBig(mtu as u32);
            ensure!(answer == expected, "{answer:?}, expected {expected:?}");
            Ok(())
        })?;
        if inner == Inner::Ipv4 {
            // Both the request and its answer are too big for a tunnel, and in pieces there.
            checks.check(row.cell(inner), TO_KERNEL, "fragmented", || {
                replied(near, Echo { size: 1500, dont_fragment: false, number: 6, ..out })
            })?;
        }
    }
    Ok(())
}

/// All of a tunnel's traffic took XDP, but for what is too big for it and goes to the kernel; or TC, as
/// what goes in outer fragments does. Into a tunnel of Ethernet only the kernel can route.
fn tier(packets: Packets, xdp: Xdp, row: &Row) -> Result<()> {
    let fragments = match xdp {
        Xdp::Off => false,
        Xdp::Native | Xdp::Generic => row.sends_fragments(),
    };
    if fragments {
        ensure!(packets.rx_tc >= 10, "no fragments were put together: {packets:?}");
    }
    let ethernet = row.outer.is_ethernet();
    let (used, unused) = match xdp {
        Xdp::Off => (packets.rx_tc.min(packets.tx_tc), packets.xdp()),
        _ if fragments && ethernet => (packets.rx_xdp.min(packets.tx_tc), 0),
        _ if fragments => (packets.rx_xdp.min(packets.tx_xdp), 0),
        _ if ethernet => (packets.rx_xdp.min(packets.tx_tc), packets.rx_tc),
        Xdp::Native | Xdp::Generic => (packets.rx_xdp.min(packets.tx_xdp), packets.rx_tc),
    };
    // Every stream is many packets, though some may have been merged.
    ensure!(used >= 10, "only {used} packets took it: {packets:?}");
    ensure!(unused == 0, "{unused} packets took the other: {packets:?}");
    ensure!(packets.drops == 0, "{} packets were dropped: {packets:?}", packets.drops);
    Ok(())
}

/// Drops that are nobody's fault here: into a tunnel to any the host itself announces its groups,
/// which go to no remote.
fn unroutable(stats: &Value, row: &Row) -> u64 {
    match row.options.near_ends {
        Ends::Local | Ends::Neither => {}
        Ends::Both | Ends::Remote => return 0,
    }
    let tunnels = stats["tunnels"].as_array().map_or(&[][..], Vec::as_slice);
    let tunnel = tunnels.iter().find(|tunnel| tunnel["name"] == row.device());
    let drops = tunnel.and_then(|tunnel| tunnel["tx"]["drops"].as_array());
    let found = drops.and_then(|drops| drops.iter().find(|count| count["reason"] == "no-route"));
    found.map_or(0, |count| count["packets"].as_u64().unwrap_or(0))
}

/// Why packets of a tunnel have been dropped since it was made.
fn reasons(stats: &Value, device: &str) -> String {
    let tunnels = stats["tunnels"].as_array().map_or(&[][..], Vec::as_slice);
    let tunnel = tunnels.iter().find(|tunnel| tunnel["name"] == device).unwrap_or(&Value::Null);
    format!("drops: rx {}, tx {}", tunnel["rx"]["drops"], tunnel["tx"]["drops"])
}
