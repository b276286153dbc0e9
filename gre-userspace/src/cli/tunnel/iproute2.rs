//! What iproute2 says of a tunnel, in text and JSON alike.

use gre_ebpf_common::outcome::Outcome;
use serde::Serialize;

use crate::{
    model::{FlowLabel, Mode},
    report::{Count, Direction, Stats, TunnelInfo},
};

pub(super) fn is_over_ipv6(tunnel: &TunnelInfo) -> bool {
    tunnel.mode.parse().is_ok_and(Mode::is_over_ipv6)
}

/// What `ip tunnel` calls it; tunnels of Ethernet it does not show.
pub(super) fn mode(tunnel: &TunnelInfo) -> &str {
    match tunnel.mode.as_str() {
        "gre" => "gre/ip",
        "ip6gre" => "gre/ipv6",
        mode => mode,
    }
}

/// Traffic class and flow label as they stand in the first word of the IPv6 header, where they are
/// fixed.
pub(super) fn flow_info(tunnel: &TunnelInfo) -> String {
    let class = if tunnel.tos & 1 == 0 { u32::from(tunnel.tos) } else { 0 };
    let label = match tunnel.flow_label.parse() {
        Ok(FlowLabel::Fixed(label)) => label,
        Ok(FlowLabel::Inherit) | Err(_) => 0,
    };
    format!("{:#010x}", class << 20 | label)
}

/// What iproute2 says of checksums and sequence numbers.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Flag {
    RxDropOoseq,
    RxCsum,
    TxSeq,
    TxCsum,
}

impl Flag {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::RxDropOoseq => "  Drop packets out of sequence.\n",
            Self::RxCsum => "  Checksum in received packet is required.\n",
            Self::TxSeq => "  Sequence packets on output.\n",
            Self::TxCsum => "  Checksum output packets.\n",
        }
    }
}

/// In iproute2's order.
pub(super) fn flags(tunnel: &TunnelInfo) -> Vec<Flag> {
    [
        (tunnel.iseq, Flag::RxDropOoseq),
        (tunnel.icsum, Flag::RxCsum),
        (tunnel.oseq, Flag::TxSeq),
        (tunnel.ocsum, Flag::TxCsum),
    ]
    .into_iter()
    .filter_map(|(on, flag)| on.then_some(flag))
    .collect()
}

/// The columns of `ip -s tunnel show`, filled with what their headings say.
#[derive(Serialize)]
pub(in crate::cli) struct Columns {
    pub(in crate::cli) rx: RxColumns,
    pub(in crate::cli) tx: TxColumns,
}

#[derive(Serialize)]
pub(in crate::cli) struct RxColumns {
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) packets: u64,
    pub(in crate::cli) errors: u64,
    pub(in crate::cli) csum_errors: u64,
    pub(in crate::cli) out_of_sequence: u64,
    /// The programs do not tell multicast apart.
    pub(in crate::cli) multicast: u64,
}

#[derive(Serialize)]
pub(in crate::cli) struct TxColumns {
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) packets: u64,
    pub(in crate::cli) errors: u64,
    pub(in crate::cli) dead_loop: u64,
    pub(in crate::cli) no_route: u64,
    /// The programs have no queue that could be full.
    pub(in crate::cli) no_buffers: u64,
}

impl Columns {
    /// All zero for a tunnel that has no counters yet.
    pub(in crate::cli) fn of(name: &str, stats: &Stats) -> Self {
        let tunnel = stats.tunnels.iter().find(|tunnel| tunnel.name == name);
        let (rx, tx) = match tunnel {
            Some(tunnel) => (tunnel.rx.clone(), tunnel.tx.clone()),
            None => Default::default(),
        };
        Self {
            rx: RxColumns {
                bytes: rx.xdp.bytes + rx.tc.bytes,
                packets: rx.xdp.packets + rx.tc.packets,
                errors: dropped(&rx, |_| true),
                csum_errors: dropped(&rx, |reason| reason.starts_with("checksum-")),
                out_of_sequence: dropped(&rx, |reason| reason.starts_with("sequence-")),
                multicast: 0,
            },
            tx: TxColumns {
                bytes: tx.xdp.bytes + tx.tc.bytes,
                packets: tx.xdp.packets + tx.tc.packets,
                errors: dropped(&tx, |_| true),
                dead_loop: dropped(&tx, |reason| reason == Outcome::TunnelLoop.label()),
                no_route: dropped(&tx, |reason| reason == Outcome::NoRoute.label()),
                no_buffers: 0,
            },
        }
    }
}

fn dropped(direction: &Direction, which: impl Fn(&str) -> bool) -> u64 {
    let drops = direction.drops.iter();
    drops.filter(|Count { reason, .. }| which(reason)).map(|count| count.packets).sum()
}
