//! Tunnels in iproute2's shapes: its lines and JSON keys first, then what only xgre knows.

use std::fmt::Write as _;

use gre_ebpf_common::outcome::Outcome;
use serde::Serialize;

use crate::{
    cli::{dsfield, output::Paint},
    report::{Count, Direction, Stats, TunnelInfo},
};

/// As `ip tunnel show`, each line followed by indented ones of our own.
pub fn text(tunnels: &[TunnelInfo], stats: Option<&Stats>, paint: Paint) -> String {
    let mut text = String::new();
    for tunnel in tunnels {
        text.push_str(&iproute2_line(tunnel, paint));
        if let Some(stats) = stats {
            text.push_str(&iproute2_table(&Columns::of(&tunnel.name, stats)));
        }
        text.push_str(&state(tunnel, paint));
    }
    text
}

fn iproute2_line(tunnel: &TunnelInfo, paint: Paint) -> String {
    let mut line = format!(
        "{}: {}/ip remote {} local {}",
        paint.name(&tunnel.name),
        tunnel.mode,
        tunnel.remote,
        tunnel.local
    );
    match tunnel.ttl {
        0 => line.push_str(" ttl inherit"),
        ttl => _ = write!(line, " ttl {ttl}"),
    }
    match tunnel.tos {
        0 => {}
        1 => line.push_str(" tos inherit"),
        tos if tos & 1 != 0 => _ = write!(line, " tos inherit/{}", dsfield::name(tos & !1)),
        tos => _ = write!(line, " tos {}", dsfield::name(tos)),
    }
    if !tunnel.pmtudisc {
        line.push_str(" nopmtudisc");
    }
    if let Some(key) = tunnel.key {
        _ = write!(line, " key {key}");
    }
    line.push('\n');
    line
}

fn iproute2_table(columns: &Columns) -> String {
    let Columns { rx, tx } = columns;
    format!(
        "RX: Packets    Bytes        Errors CsumErrs OutOfSeq Mcasts\n\
        \x20   {:<10} {:<12} {:<6} {:<8} {:<8} {:<8}\n\
         TX: Packets    Bytes        Errors DeadLoop NoRoute  NoBufs\n\
        \x20   {:<10} {:<12} {:<6} {:<8} {:<8} {:<6}\n",
        rx.packets,
        rx.bytes,
        rx.errors,
        rx.csum_errors,
        rx.out_of_sequence,
        rx.multicast,
        tx.packets,
        tx.bytes,
        tx.errors,
        tx.dead_loop,
        tx.no_route,
        tx.no_buffers,
    )
}

fn state(tunnel: &TunnelInfo, paint: Paint) -> String {
    let mut text = String::from("    state ");
    match (tunnel.ifindex, tunnel.up) {
        (None, _) => text.push_str(&paint.bad("MISSING")),
        (Some(_), true) => text.push_str(&paint.good("UP")),
        (Some(_), false) => text.push_str(&paint.bad("DOWN")),
    }
    if let Some(mtu) = tunnel.mtu {
        _ = write!(text, " mtu {mtu}");
    }
    match (&tunnel.via, &tunnel.underlay) {
        (Some(via), Some(underlay)) => _ = write!(text, " via {via} dev {}", paint.name(underlay)),
        (None, Some(underlay)) => _ = write!(text, " dev {}", paint.name(underlay)),
        (_, None) => _ = write!(text, " {}", paint.bad("no route to the remote")),
    }
    text.push('\n');
    if tunnel.fast {
        _ = writeln!(text, "    {}", paint.good("accelerated by XDP"));
    } else {
        let why = tunnel.why_not.as_deref().unwrap_or("the daemon does not say why");
        _ = writeln!(text, "    {}: {why}", paint.bad("not accelerated"));
    }
    text
}

/// As `ip -j tunnel show`, with keys of our own at the end of each object.
pub fn json<'a>(tunnels: &'a [TunnelInfo], stats: Option<&Stats>) -> impl Serialize + use<'a> {
    tunnels.iter().map(|tunnel| Json::of(tunnel, stats)).collect::<Vec<_>>()
}

#[derive(Serialize)]
struct Json<'a> {
    ifname: &'a str,
    mode: String,
    remote: &'a str,
    local: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tos: Option<String>,
    /// Present without a value, as iproute2 prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    nopmtudisc: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<u32>,
    /// Of checksums and sequence numbers, which no tunnel has yet.
    flags: [&'static str; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    stats64: Option<Columns>,
    ifindex: Option<u32>,
    up: bool,
    mtu: Option<u32>,
    underlay: Option<&'a str>,
    via: Option<&'a str>,
    accelerated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
}

impl<'a> Json<'a> {
    fn of(tunnel: &'a TunnelInfo, stats: Option<&Stats>) -> Self {
        Self {
            ifname: &tunnel.name,
            mode: format!("{}/ip", tunnel.mode),
            remote: &tunnel.remote,
            local: &tunnel.local,
            ttl: Some(tunnel.ttl).filter(|&ttl| ttl != 0),
            tos: match tunnel.tos {
                0 => None,
                1 => Some("inherit".into()),
                tos => Some(dsfield::name(tos & !1)),
            },
            nopmtudisc: (!tunnel.pmtudisc).then_some(()),
            key: tunnel.key,
            flags: [],
            stats64: stats.map(|stats| Columns::of(&tunnel.name, stats)),
            ifindex: tunnel.ifindex,
            up: tunnel.up,
            mtu: tunnel.mtu,
            underlay: tunnel.underlay.as_deref(),
            via: tunnel.via.as_deref(),
            accelerated: tunnel.fast,
            why_not: tunnel.why_not.as_deref(),
        }
    }
}

/// The columns of `ip -s tunnel show`, filled with what their headings say.
#[derive(Serialize)]
struct Columns {
    rx: RxColumns,
    tx: TxColumns,
}

#[derive(Serialize)]
struct RxColumns {
    bytes: u64,
    packets: u64,
    errors: u64,
    csum_errors: u64,
    /// Sequence numbers are not supported, so nothing is out of sequence.
    out_of_sequence: u64,
    /// The programs do not tell multicast apart.
    multicast: u64,
}

#[derive(Serialize)]
struct TxColumns {
    bytes: u64,
    packets: u64,
    errors: u64,
    dead_loop: u64,
    no_route: u64,
    /// The programs have no queue that could be full.
    no_buffers: u64,
}

impl Columns {
    /// All zero for a tunnel that has no counters yet.
    fn of(name: &str, stats: &Stats) -> Self {
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
                csum_errors: dropped(&rx, |reason| reason == Outcome::ChecksumUnexpected.label()),
                out_of_sequence: 0,
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
