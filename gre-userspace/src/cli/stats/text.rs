//! Counters for people: aligned columns, and behind each reason what to do about it.

use std::{fmt::Write as _, time::Duration};

use super::Sample;
use crate::{
    cli::{Clock, mismatch, output::Paint},
    report::{Count, Direction, Stats, TierOutcomes, Traffic, TunnelStats},
};

/// Tunnels first, then the outcomes of each tier.
pub fn text(sample: &Sample, clock: Clock, paint: Paint) -> String {
    let interval = sample.before.as_ref().map(|(_, interval)| *interval);
    let before = sample.before.as_ref().map(|(stats, _)| stats);
    let mut text = String::new();
    for tunnel in &sample.stats.tunnels {
        let before = before.and_then(|stats| find(stats, &tunnel.name)).zip(interval);
        tunnel_text(&mut text, tunnel, before, clock, paint);
    }
    if sample.stats.tunnels.is_empty() {
        text.push_str("no tunnels: `xgre tunnel add --help` shows how to make one\n");
    }
    for tier in &sample.stats.tiers {
        let before = before
            .and_then(|stats| stats.tiers.iter().find(|before| before.tier == tier.tier))
            .zip(interval);
        tier_text(&mut text, tier, before, paint);
    }
    text
}

fn find<'a>(stats: &'a Stats, name: &str) -> Option<&'a TunnelStats> {
    stats.tunnels.iter().find(|tunnel| tunnel.name == name)
}

fn tunnel_text(
    text: &mut String,
    tunnel: &TunnelStats,
    before: Option<(&TunnelStats, Duration)>,
    clock: Clock,
    paint: Paint,
) {
    // Pad before painting: escape codes have no width.
    let name = format!("{:<15}", tunnel.name);
    let rates = if before.is_some() { "      packets/s          bits/s" } else { "" };
    let heading = paint.heading(&format!("{:>16} {:>18}{rates}", "packets", "bytes"));
    _ = writeln!(text, "{}{heading}", paint.name(&name));

    let TunnelStats { rx, tx, .. } = tunnel;
    for (label, now, before) in [
        ("rx xdp", rx.xdp, before.map(|(before, interval)| (before.rx.xdp, interval))),
        ("rx tc", rx.tc, before.map(|(before, interval)| (before.rx.tc, interval))),
        ("rx daemon", rx.daemon, before.map(|(before, interval)| (before.rx.daemon, interval))),
        ("tx xdp", tx.xdp, before.map(|(before, interval)| (before.tx.xdp, interval))),
        ("tx tc", tx.tc, before.map(|(before, interval)| (before.tx.tc, interval))),
        ("tx daemon", tx.daemon, before.map(|(before, interval)| (before.tx.daemon, interval))),
    ] {
        if label.ends_with("daemon") && now.packets == 0 {
            continue;
        }
        _ = write!(text, "  {label:<13}{:>16} {:>18}", now.packets, now.bytes);
        if let Some((before, interval)) = before {
            let (packets, bits) = rates_of(now, before, interval);
            _ = write!(text, "{packets:>15}{bits:>16}");
        }
        text.push('\n');
    }
    for (label, now, before) in [
        ("rx", rx, before.map(|(before, interval)| (&before.rx, interval))),
        ("tx", tx, before.map(|(before, interval)| (&before.tx, interval))),
    ] {
        drops_text(text, label, now, before, paint);
    }
    if let Some(mismatch) = &tunnel.mismatch {
        text.push_str(&mismatch::text(mismatch, "  ", clock, paint));
    }
    let slow_only = |direction: &Direction| direction.xdp.packets == 0 && direction.tc.packets > 0;
    if slow_only(rx) || slow_only(tx) {
        _ = writeln!(
            text,
            "  one direction goes without XDP, as this host's own packets do; if others should not: \
             `xgre tunnel show {}`, `xgre port show`",
            tunnel.name
        );
    }
    text.push('\n');
}

fn drops_text(
    text: &mut String,
    label: &str,
    now: &Direction,
    before: Option<(&Direction, Duration)>,
    paint: Paint,
) {
    if now.drops.is_empty() {
        return;
    }
    _ = writeln!(text, "  {}", paint.bad(&format!("{label} dropped")));
    counts_text(text, &now.drops, before.map(|(before, interval)| (&before.drops[..], interval)));
}

fn tier_text(
    text: &mut String,
    tier: &TierOutcomes,
    before: Option<(&TierOutcomes, Duration)>,
    paint: Paint,
) {
    _ = writeln!(text, "{}", paint.heading(&format!("{}, all ports", tier.tier)));
    if tier.outcomes.is_empty() {
        text.push_str("  no packets yet\n");
    }
    let before = before.map(|(before, interval)| (&before.outcomes[..], interval));
    counts_text(text, &tier.outcomes, before);
    text.push('\n');
}

/// Packets, packets a second where known, the reason, and what it means.
fn counts_text(text: &mut String, counts: &[Count], before: Option<(&[Count], Duration)>) {
    let width = counts.iter().map(|count| count.reason.len()).max().unwrap_or(0);
    for Count { reason, help, packets } in counts {
        _ = write!(text, "  {packets:>16}");
        if let Some((before, interval)) = before {
            let before = before.iter().find(|before| before.reason == *reason);
            let before = before.map_or(0, |before| before.packets);
            _ = write!(text, " {:>10}/s", per_second(*packets, before, interval));
        }
        _ = writeln!(text, "  {reason:<width$}  {help}");
    }
}

/// Packets and bits a second, the latter with a decimal prefix.
fn rates_of(now: Traffic, before: Traffic, interval: Duration) -> (u64, String) {
    let bytes = per_second(now.bytes, before.bytes, interval);
    (per_second(now.packets, before.packets, interval), decimal(bytes.saturating_mul(8)))
}

/// Zero where the counter went back: the maps were made anew.
fn per_second(now: u64, before: u64, interval: Duration) -> u64 {
    let micros = interval.as_micros().max(1);
    let rate = u128::from(now.saturating_sub(before)) * 1_000_000 / micros;
    rate.try_into().unwrap_or(u64::MAX)
}

fn decimal(bits: u64) -> String {
    let (unit, prefix) = match bits {
        0..10_000 => return bits.to_string(),
        10_000..10_000_000 => (1_000, 'k'),
        10_000_000..10_000_000_000 => (1_000_000, 'M'),
        _ => (1_000_000_000, 'G'),
    };
    format!("{}.{}{prefix}", bits / unit, bits % unit * 10 / unit)
}
