//! Answers questions: what the tunnels and ports are, and what they have counted.

use gre_ebpf_common::{
    counters::{self, Tier},
    outcome::{self, Disposition, Outcome},
};

use crate::{
    dataplane::{self, Attachment},
    model::Tunnel,
    report::{Count, Direction, PortInfo, Stats, TierOutcomes, Traffic, TunnelInfo, TunnelStats},
};

use super::world::World;

pub fn tunnels(world: &World) -> Vec<TunnelInfo> {
    world.desired.tunnels.values().map(|tunnel| tunnel_info(world, tunnel)).collect()
}

fn tunnel_info(world: &World, tunnel: &Tunnel) -> TunnelInfo {
    let snapshot = world.snapshot();
    let ifindex = world.device_ifindex(&snapshot, &tunnel.name);
    let link = ifindex.and_then(|ifindex| snapshot.links.get(&ifindex));
    let state = world.states.get(&tunnel.name);
    let underlay = state.and_then(|state| state.underlay);
    let why_not = match state {
        Some(state) => state.why_not.clone(),
        None => Some(format!(
            "the device is gone: `xgre tunnel del {0}`, and add it again",
            tunnel.name
        )),
    };
    TunnelInfo {
        name: tunnel.name.clone(),
        mode: tunnel.mode.to_string(),
        local: tunnel.local.to_string(),
        remote: tunnel.remote.to_string(),
        dev: tunnel.dev.clone(),
        ttl: tunnel.ttl,
        tos: tunnel.tos,
        key: tunnel.ikey.filter(|_| tunnel.ikey == tunnel.okey),
        ikey: tunnel.ikey,
        okey: tunnel.okey,
        icsum: tunnel.icsum,
        ocsum: tunnel.ocsum,
        iseq: tunnel.iseq,
        oseq: tunnel.oseq,
        seq_mode: tunnel.seq_mode.to_string(),
        pmtudisc: tunnel.pmtudisc,
        ignore_df: tunnel.ignore_df,
        encap_limit: tunnel.encap_limit,
        flow_label: tunnel.flow_label.to_string(),
        mss: tunnel.mss.to_string(),
        ifindex,
        up: link.is_some_and(|link| link.up),
        mtu: link.map(|link| link.mtu),
        underlay: underlay
            .and_then(|hop| snapshot.links.get(&hop.ifindex))
            .map(|link| link.name.clone()),
        via: underlay.map(|hop| hop.ip.to_string()),
        fast: why_not.is_none(),
        why_not,
        mismatch: None,
        path_mtus: Vec::new(),
        sequence: None,
    }
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
    let tunnels =
        world.states.iter().map(|(name, state)| tunnel_stats(world, name, state.id)).collect();
    let tiers = [(Tier::Xdp, "xdp"), (Tier::Tc, "tc")]
        .into_iter()
        .map(|(tier, name)| TierOutcomes {
            tier: name.to_owned(),
            outcomes: counts(|outcome| world.maps.counters.outcome(tier, outcome), |_| true),
        })
        .collect();
    Stats { tunnels, tiers }
}

fn tunnel_stats(world: &World, name: &str, id: u32) -> TunnelStats {
    let counters = &world.maps.counters;
    let [xdp, tc] = counters.tunnel(id);
    let drops = |direction| {
        counts(
            |outcome| counters.tunnel_drops(id, outcome),
            |outcome| {
                outcome.disposition() != Disposition::Forward && outcome.direction() == direction
            },
        )
    };
    let rx = |t: counters::Traffic| Traffic { packets: t.rx_packets, bytes: t.rx_bytes };
    let tx = |t: counters::Traffic| Traffic { packets: t.tx_packets, bytes: t.tx_bytes };
    TunnelStats {
        name: name.to_owned(),
        rx: Direction { xdp: rx(xdp), tc: rx(tc), drops: drops(outcome::Direction::Receive) },
        tx: Direction { xdp: tx(xdp), tc: tx(tc), drops: drops(outcome::Direction::Transmit) },
        mismatch: None,
    }
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
