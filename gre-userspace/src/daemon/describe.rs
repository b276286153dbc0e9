//! Answers questions: what the tunnels and ports are, and what they have counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gre_ebpf_common::{
    counters::{self, Tier},
    outcome::{self, Disposition, Outcome},
    wire::gre::GreBase,
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    dataplane::{self, Attachment, TunnelState},
    model::Tunnel,
    report::{
        Count, Direction, Mismatch, PortInfo, Sequence, Stats, TierOutcomes, Traffic, TunnelInfo,
        TunnelStats,
    },
};

use super::{
    mismatch::{Misfits, explain},
    tunnels::device_named,
    world::World,
};

pub fn tunnels(world: &World) -> Vec<TunnelInfo> {
    let kernels = world.kernels.values().map(|kernel| &kernel.tunnel);
    let mut tunnels: Vec<_> = world.desired.tunnels.values().chain(kernels).collect();
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    tunnels.into_iter().map(|tunnel| tunnel_info(world, tunnel)).collect()
}

/// One line: how many tunnels there are, those of the kernel's own that are adopted included, and how many of
/// them XDP encapsulates for.
pub fn in_brief(world: &World) -> String {
    let accelerated = world.states.values().filter(|state| state.why_not.is_none()).count();
    let adopted = world.kernels.values().filter(|kernel| kernel.adopted).count();
    brief(world.desired.tunnels.len() + adopted, accelerated, world.attached.ports.len())
}

fn brief(tunnels: usize, accelerated: usize, ports: usize) -> String {
    let count = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    let (ports, of) = (count(ports, "port"), count(tunnels, "tunnel"));
    match tunnels {
        0 => format!("no tunnels; {ports}"),
        _ if accelerated == tunnels => format!("{of}, accelerated by XDP; {ports}"),
        _ => format!("{of}, {accelerated} accelerated by XDP; {ports}"),
    }
}

fn tunnel_info(world: &World, tunnel: &Tunnel) -> TunnelInfo {
    let snapshot = world.snapshot();
    let name = &tunnel.name;
    let kernel = world.kernels.get(name).filter(|kernel| kernel.tunnel == *tunnel);
    let link = match kernel {
        Some(_) => device_named(&snapshot, name),
        None => world.device_ifindex(&snapshot, name).and_then(|index| snapshot.links.get(&index)),
    };
    let state = world.states.get(name);
    let underlay = state.and_then(|state| state.underlay);
    let why_not = match state {
        Some(state) => state.why_not.clone(),
        None => kernel.and_then(|kernel| kernel.refused.clone()).or_else(|| {
            Some(format!("the device is gone: `xgre tunnel del {name}`, and add it again"))
        }),
    };
    TunnelInfo {
        ifindex: link.map(|link| link.ifindex),
        adopted: kernel.map(|kernel| kernel.adopted),
        up: link.is_some_and(|link| link.up),
        mtu: link.map(|link| link.mtu),
        underlay: underlay
            .and_then(|hop| snapshot.links.get(&hop.ifindex))
            .map(|link| link.name.clone()),
        via: underlay.map(|hop| hop.ip.to_string()),
        fast: why_not.is_none(),
        why_not,
        mismatch: state.and_then(|state| mismatch(world, tunnel, state)),
        path_mtus: state.map(|state| world.path_mtus_of(state)).unwrap_or_default(),
        payload_mtu: state.and_then(|state| world.payload_mtu(state)),
        sequence: state.and_then(|state| sequence(world, tunnel, state)),
        ..TunnelInfo::configured(tunnel)
    }
}

/// What the peer sends and the tunnel does not take, if its last such packet would still be refused.
fn mismatch(world: &World, tunnel: &Tunnel, state: &TunnelState) -> Option<Mismatch> {
    let found = world.maps.mismatch(state.id);
    let outcome = Outcome::ALL.iter().find(|&&outcome| outcome as u32 == found.outcome)?;
    let gre = GreBase(found.gre);
    if found.packets == 0 {
        return None;
    }
    let misfits = Misfits {
        outcome: *outcome,
        gre_flags: gre.flags(),
        key: u32::from_be(found.key),
        since: unix_seconds(found.first),
        last: unix_seconds(found.last),
        packets: found.packets.into(),
    };
    let mut found = explain(tunnel, &misfits)?;
    if world.kernels.get(&tunnel.name).is_some_and(|kernel| kernel.tunnel == *tunnel) {
        let (of_ours, of_kernels) = ("xgre tunnel change", "ip link change");
        let device = format!("{} type {}", tunnel.name, tunnel.mode);
        found.fix = found.fix.replacen(of_ours, of_kernels, 1).replacen(&tunnel.name, &device, 1);
    }
    Some(found)
}

/// The time that CLOCK_BOOTTIME showed as so many nanoseconds.
fn unix_seconds(boot: u64) -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let ago = now.saturating_sub(Duration::from_nanos(boot));
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix.saturating_sub(ago).as_secs()
}

fn sequence(world: &World, tunnel: &Tunnel, state: &TunnelState) -> Option<Sequence> {
    if !tunnel.iseq && !tunnel.oseq {
        return None;
    }
    let found = world.maps.sequence(state.id);
    let sent = state.legs.values().map(|&leg| world.maps.sequence(leg).sent).sum::<u64>();
    Some(Sequence {
        next_sent: found.sent + sent,
        next_expected: found.expected.into(),
        resynchronised: found.resynchronised.into(),
    })
}

pub fn ports(world: &World) -> Vec<PortInfo> {
    let snapshot = world.snapshot();
    let ports = &world.attached.ports;
    ports
        .iter()
        .filter_map(|(ifindex, port)| Some((port, snapshot.links.get(ifindex)?)))
        .map(|(port, link)| {
            let xdp = match port.attachment {
                Attachment::Native => "native",
                Attachment::Generic => "generic",
                Attachment::Off => "off",
            };
            // Only natively received frames need the driver to transmit redirected ones.
            let cannot = !dataplane::can_redirect(link, Some(port.attachment))
                && ports.values().any(|port| port.attachment == Attachment::Native);
            let no_redirect = cannot.then(|| {
                format!("packets cannot be redirected out of it: {}", dataplane::no_redirect(link))
            });
            let notes: Vec<_> = port.note.iter().cloned().chain(no_redirect).collect();
            PortInfo {
                name: link.name.clone(),
                ifindex: link.ifindex,
                xdp: xdp.to_owned(),
                note: (!notes.is_empty()).then(|| notes.join("; ")),
                forwarding: link.forwarding,
            }
        })
        .collect()
}

pub fn stats(world: &World) -> Stats {
    let is_left_alone = |name: &String| world.kernels.get(name).is_some_and(|k| !k.adopted);
    let tunnels = world
        .states
        .iter()
        .filter(|(name, _)| !is_left_alone(name))
        .map(|(name, state)| tunnel_stats(world, name, state))
        .collect();
    let tiers = [(Tier::Xdp, "xdp"), (Tier::Tc, "tc")]
        .into_iter()
        .map(|(tier, name)| TierOutcomes {
            tier: name.to_owned(),
            outcomes: counts(|outcome| world.maps.counters.outcome(tier, outcome), |_| true),
        })
        .chain([slow_path(world)])
        .collect();
    Stats { tunnels, tiers }
}

fn tunnel_stats(world: &World, name: &str, state: &TunnelState) -> TunnelStats {
    let counters = &world.maps.counters;
    let ids: Vec<u32> = state.legs.values().copied().chain([state.id]).collect();
    let [xdp, tc] = [Tier::Xdp, Tier::Tc].map(|tier| {
        let each = ids.iter().map(|&id| counters.tunnel(id)[tier as usize]);
        each.fold(counters::Traffic::default(), |total, one| total.plus(one))
    });
    let carried = world.carried(state);
    let drops = |direction| {
        counts(
            |outcome| ids.iter().map(|&id| counters.tunnel_drops(id, outcome)).sum(),
            |outcome| {
                outcome.disposition() != Disposition::Forward && outcome.direction() == direction
            },
        )
    };
    let rx = |t: counters::Traffic| Traffic { packets: t.rx_packets, bytes: t.rx_bytes };
    let tx = |t: counters::Traffic| Traffic { packets: t.tx_packets, bytes: t.tx_bytes };
    TunnelStats {
        name: name.to_owned(),
        rx: Direction {
            xdp: rx(xdp),
            tc: rx(tc),
            daemon: carried.rx,
            drops: drops(outcome::Direction::Receive),
        },
        tx: Direction {
            xdp: tx(xdp),
            tc: tx(tc),
            daemon: carried.tx,
            drops: drops(outcome::Direction::Transmit),
        },
        mismatch: world.tunnel(name).and_then(|t| mismatch(world, t, state)),
    }
}

/// What became of packets that reached the daemon.
fn slow_path(world: &World) -> TierOutcomes {
    let slow_path = world.slow_path.lock();
    let outcomes = slow_path.counts.happened().map(|(reason, help, packets)| Count {
        reason: reason.to_owned(),
        help: help.to_owned(),
        packets,
    });
    TierOutcomes { tier: "daemon".to_owned(), outcomes: outcomes.collect() }
}

/// Outcomes that have occurred, of those wanted.
fn counts(packets: impl Fn(Outcome) -> u64, wanted: impl Fn(Outcome) -> bool) -> Vec<Count> {
    Outcome::ALL
        .iter()
        .filter(|&&outcome| wanted(outcome))
        .map(|&outcome| Count {
            reason: outcome.label().to_owned(),
            help: outcome.help().to_owned(),
            packets: packets(outcome),
        })
        .filter(|count| count.packets > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_how_many_tunnels_are_accelerated() {
        assert_eq!(brief(0, 0, 1), "no tunnels; 1 port");
        assert_eq!(brief(1, 1, 2), "1 tunnel, accelerated by XDP; 2 ports");
        assert_eq!(brief(3, 1, 0), "3 tunnels, 1 accelerated by XDP; 0 ports");
    }
}
