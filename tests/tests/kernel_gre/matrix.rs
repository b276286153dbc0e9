//! Every combination of [`crate::rows`]: headers, pings, TCP and what is too big, from xgre to the
//! kernel and back. The result of each check is a line of the file that `XGRE_INTEROP` names, if any.

use std::{env, fs::OpenOptions, io::Write as _, net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    config::Xdp, counters::Packets, gateways::SOON, namespace::Namespace, process::wait_until,
    xgre::stats,
};

use crate::{
    headers,
    lab::Lab,
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
    let mut checks = Checks::new(&format!("{xdp:?}").to_lowercase())?;
    // Neighbours are resolved on the way, and until then packets are passed on.
    warm_up(&pingers, &rows[0])?;
    let before = stats(&lab.r1)?;
    let sent = headers::sent(&lab, &pingers.near, &rows)?;
    for ((row, kernel), sent) in rows.iter().zip(&kernel).zip(&sent) {
        for inner in row.inner {
            checks.check(row, *inner, TO_KERNEL, "headers", || match sent {
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
            checks.check(row, *inner, TO_KERNEL, "tier", || {
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
    daemon.stop()?;
    checks.conclude()
}

/// This thread, what it starts, and so what the kernel does for them. Two CPUs that send through one of
/// the kernel's tunnels take its sequence numbers one before the other, and send the other way round.
fn on_one_cpu() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("staying on one CPU")
}

/// Pings and streams through every tunnel; how many packets of each the kernel sent with a wrong
/// checksum.
fn traffic(checks: &mut Checks, lab: &Lab, pingers: &Pingers, rows: &[Row]) -> Result<Vec<u64>> {
    for row in rows {
        for inner in row.inner {
            pings(checks, pingers, row, *inner)?;
        }
    }
    let tap = Tap::new(&lab.switch)?;
    let mut wrong_sums = vec![0; rows.len()];
    for (what, offloads, segments) in OFFLOADS {
        lab.r2.offloads("wan", offloads)?;
        lab.far_segments(segments)?;
        for (row, wrong_sums) in rows.iter().zip(&mut wrong_sums) {
            for inner in row.inner {
                let near = (&lab.pc1, row.host(*inner).parse()?);
                let far = (&lab.r2, row.target(*inner).parse()?);
                checks.check(row, *inner, TO_KERNEL, what, || stream(near, far))?;
                checks.check(row, *inner, FROM_KERNEL, what, || stream(far, near))?;
                *wrong_sums += tap.wrong_sums(&row.near().parse()?);
            }
        }
    }
    Ok(wrong_sums)
}

const TO_KERNEL: &str = "to";
const FROM_KERNEL: &str = "from";

/// At PC1 and R2, of both versions.
struct Pingers {
    near: [Pinger; 2],
    far: [Pinger; 2],
}

impl Pingers {
    fn new(lab: &Lab) -> Result<Self> {
        let both = |namespace: &Namespace| -> Result<[Pinger; 2]> {
            let [v4, v6] = [Inner::Ipv4, Inner::Ipv6].map(any);
            Ok([Pinger::new(namespace, &v4)?, Pinger::new(namespace, &v6)?])
        };
        Ok(Self { near: both(&lab.pc1)?, far: both(&lab.r2)? })
    }
}

fn warm_up(pingers: &Pingers, row: &Row) -> Result<()> {
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
    checks.check(row, inner, TO_KERNEL, "ping", || replied(near, out))?;
    checks.check(row, inner, FROM_KERNEL, "ping", || replied(far, Echo { number: 2, ..back }))?;
    // The answer to a packet of the near MTU must fit the far one too, or be fragmented.
    checks.check(row, inner, TO_KERNEL, "largest ping", || {
        replied(near, Echo { size: mtu.min(far_mtu), number: 3, ..out })
    })?;
    checks.check(row, inner, FROM_KERNEL, "largest ping", || {
        replied(far, Echo { size: mtu.min(far_mtu), number: 4, ..back })
    })?;
    if mtu < 1500 {
        checks.check(row, inner, TO_KERNEL, "too big", || {
            let answer = near.ping(&Echo { size: mtu + 1, number: 5, ..out })?;
            let expected = Answer::TooBig(mtu as u32);
            ensure!(answer == expected, "{answer:?}, expected {expected:?}");
            Ok(())
        })?;
        if inner == Inner::Ipv4 {
            // Both the request and its answer are too big for a tunnel, and in pieces there.
            checks.check(row, inner, TO_KERNEL, "fragmented", || {
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

/// What has been checked, and what of it failed.
struct Checks {
    /// What is at R1: xgre in one of its modes, or the kernel.
    near: String,
    log: Log,
    failures: Vec<String>,
}

impl Checks {
    fn new(near: &str) -> Result<Self> {
        Ok(Self { near: near.into(), log: Log::new()?, failures: Vec::new() })
    }

    fn check(
        &mut self,
        row: &Row,
        inner: Inner,
        direction: &str,
        what: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        let result = work();
        let milliseconds = started.elapsed().as_millis().to_string();
        let (outer, options, inner) = (row.outer.name(), row.options.name, inner.name());
        let result = result.map_err(|error| format!("{error:#}").replace(['\n', '\t'], " "));
        let said = result.as_ref().map_or_else(|error| error.as_str(), |()| "ok");
        self.log.line(&[
            "check",
            &self.near,
            outer,
            options,
            inner,
            direction,
            what,
            &milliseconds,
            said,
        ])?;
        if let Err(error) = result {
            tests::interrupt::check()?;
            self.failures.push(format!(
                "{outer}, {options}, {inner} {direction} the kernel, {what}: {error}"
            ));
        }
        Ok(())
    }

    fn conclude(self) -> Result<()> {
        ensure!(self.failures.is_empty(), "these failed:\n{}", self.failures.join("\n"));
        Ok(())
    }
}

/// Lines of words with tabs between them.
struct Log(Option<std::fs::File>);

impl Log {
    fn new() -> Result<Self> {
        let Some(path) = env::var_os("XGRE_INTEROP") else { return Ok(Self(None)) };
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Ok(Self(Some(file.with_context(|| format!("opening {}", path.display()))?)))
    }

    fn line(&mut self, words: &[&str]) -> Result<()> {
        if let Some(file) = &mut self.0 {
            file.write_all((words.join("\t") + "\n").as_bytes())?;
        }
        Ok(())
    }
}
