//! Which tier carries the frames of a bridge: of stations that it knows, XDP, but for a frame of each in
//! half a minute that keeps it known.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    config::Xdp,
    gateways::SOON,
    lan::{Bridged, Lan, OVER_IPV4, PC1, PC2, TUNNEL},
    process::wait_until,
    traffic::{Flow, Load, ping_all, tcp},
    with_xdp,
    xgre::stats,
};

with_xdp!(frames_of_known_stations_take_xdp_both_ways, xdp_carries_99_of_100_frames_of_a_stream,);

/// What has become of frames on a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiers {
    /// From port to tunnel, by XDP.
    encapsulated: u64,
    /// From tunnel to port, by XDP.
    decapsulated: u64,
    /// Shown to the kernel's bridge, which sends them on: from the port, and from the tunnel.
    refreshed: [u64; 2],
    /// Sent into the tunnel by TC.
    by_tc: u64,
}

impl Tiers {
    fn of(stats: &Value) -> Result<Self> {
        let count = |tier: &str, reason: &str| -> Result<u64> {
            let tiers = stats["tiers"].as_array().context("there are no tiers")?;
            let found = tiers.iter().find(|found| found["tier"] == tier).context("no such tier")?;
            let outcomes = found["outcomes"].as_array().context("there are no outcomes")?;
            let found = outcomes.iter().find(|outcome| outcome["reason"] == reason);
            Ok(found.and_then(|outcome| outcome["packets"].as_u64()).unwrap_or(0))
        };
        Ok(Self {
            encapsulated: count("xdp", "encapsulated")?,
            decapsulated: count("xdp", "decapsulated")?,
            refreshed: [count("xdp", "bridge-refresh")?, count("xdp", "to-device")?],
            by_tc: count("tc", "encapsulated")?,
        })
    }

    fn since(self, before: Self) -> Self {
        let [port, tunnel] = self.refreshed;
        Self {
            encapsulated: self.encapsulated - before.encapsulated,
            decapsulated: self.decapsulated - before.decapsulated,
            refreshed: [port - before.refreshed[0], tunnel - before.refreshed[1]],
            by_tc: self.by_tc - before.by_tc,
        }
    }
}

/// What R1 and R2 count while something is done.
fn tiers(bridged: &Bridged, work: impl FnOnce() -> Result<()>) -> Result<[Tiers; 2]> {
    let read = || -> Result<[Tiers; 2]> {
        let [r1, r2] = bridged.gateways();
        Ok([Tiers::of(&stats(r1)?)?, Tiers::of(&stats(r2)?)?])
    };
    let before = read()?;
    work()?;
    let after = read()?;
    Ok([after[0].since(before[0]), after[1].since(before[1])])
}

/// One LAN in which XDP knows where PC1 and PC2 are.
fn known(xdp: Xdp, options: &[&str]) -> Result<Bridged> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, options)?;
    wait_until("XDP forwards all pings", SOON, || {
        let found = tiers(&bridged, || ping_all(&bridged.lan.pc1, PC2, 2))?;
        let all = |found: Tiers| found.encapsulated == 2 && found.decapsulated == 2;
        ensure!(found.into_iter().all(all), "{found:?}");
        Ok(())
    })?;
    Ok(bridged)
}

fn frames_of_known_stations_take_xdp_both_ways(xdp: Xdp) -> Result<()> {
    const PINGS: u64 = 100;
    let bridged = known(xdp, &[])?;
    for (from, to) in [(&bridged.lan.pc1, PC2), (&bridged.lan.pc2, PC1)] {
        let found = tiers(&bridged, || ping_all(from, to, PINGS as u32))?;
        for tiers in found {
            let [port, tunnel] = tiers.refreshed;
            // The pings and their answers take less than the half minute.
            ensure!(port <= 1 && tunnel <= 1, "{found:?}");
            assert_eq!(tiers.encapsulated, PINGS - port, "{found:?}");
            assert_eq!(tiers.decapsulated, PINGS - tunnel, "{found:?}");
            assert_eq!(tiers.by_tc, port, "{found:?}");
        }
    }
    Ok(())
}

/// Both ways; of the frames that the gateways' tunnels carry.
fn xdp_carries_99_of_100_frames_of_a_stream(xdp: Xdp) -> Result<()> {
    let bridged = known(xdp, &["mss = \"auto\""])?;
    let Lan { pc1, pc2, .. } = &bridged.lan;
    for flow in [Flow::ToServer, Flow::ToClient] {
        let carried = || -> Result<[u64; 2]> {
            let [r1, r2] = [bridged.r1.packets(TUNNEL)?, bridged.r2.packets(TUNNEL)?];
            Ok([r1, r2].map(|packets| packets.rx() + packets.tx()))
        };
        let before = carried()?;
        let found = tiers(&bridged, || tcp(pc1, pc2, PC2, Load::Seconds(1), flow).map(drop))?;
        let after = carried()?;
        for (gateway, (tiers, (after, before))) in
            ["R1", "R2"].into_iter().zip(found.into_iter().zip(after.into_iter().zip(before)))
        {
            let (fast, all) = (tiers.encapsulated + tiers.decapsulated, after - before);
            let share = fast as f64 / all as f64;
            println!("{xdp:?}, {flow:?}: {gateway} {fast} of {all} frames by XDP, {share:.5}");
            ensure!(all > 1000 && share >= 0.99, "{gateway}: {fast} of {all}: {tiers:?}");
        }
    }
    Ok(())
}
