//! Tunnels for people, in iproute2's shape: its lines first, then what only xgre knows.

use std::fmt::Write as _;

use super::iproute2::{Columns, flags, flow_info, is_over_ipv6, mode};
use crate::{
    cli::{Clock, dsfield, mismatch, output::Paint},
    model::{Mss, Netfilter, SeqMode},
    report::{PathMtu, Sequence, Stats, TunnelInfo},
};

/// As `ip tunnel show`, each line followed by indented ones of our own.
pub fn text(tunnels: &[TunnelInfo], stats: Option<&Stats>, clock: Clock, paint: Paint) -> String {
    let mut text = String::new();
    for tunnel in tunnels {
        text.push_str(&iproute2_lines(tunnel, paint));
        if let Some(stats) = stats {
            text.push_str(&iproute2_table(&Columns::of(&tunnel.name, stats)));
        }
        text.push_str(&own_lines(tunnel, clock, paint));
    }
    text
}

fn iproute2_lines(tunnel: &TunnelInfo, paint: Paint) -> String {
    let mut line = format!("{}: {} ", paint.name(&tunnel.name), mode(tunnel));
    if is_over_ipv6(tunnel) {
        ip6gre_words(&mut line, tunnel);
    } else {
        gre_words(&mut line, tunnel);
    }
    match (tunnel.key, tunnel.ikey, tunnel.okey) {
        (Some(key), _, _) => _ = write!(line, " key {key}"),
        (None, ikey, okey) => {
            for (word, key) in [("ikey", ikey), ("okey", okey)] {
                if let Some(key) = key {
                    _ = write!(line, " {word} {key}");
                }
            }
        }
    }
    line.push('\n');
    for flag in flags(tunnel) {
        line.push_str(flag.text());
    }
    line
}

fn gre_words(line: &mut String, tunnel: &TunnelInfo) {
    let any = |address| if is_any(address) { "any" } else { address };
    _ = write!(line, "remote {} local {}", any(&tunnel.remote), any(&tunnel.local));
    if let Some(dev) = &tunnel.dev {
        _ = write!(line, " dev {dev}");
    }
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
}

fn is_any(address: &str) -> bool {
    matches!(address, "0.0.0.0" | "::")
}

/// As `ip -6 tunnel show`, which has no word for any address.
fn ip6gre_words(line: &mut String, tunnel: &TunnelInfo) {
    _ = write!(line, "remote {} local {}", tunnel.remote, tunnel.local);
    if let Some(dev) = &tunnel.dev {
        _ = write!(line, " dev {dev}");
    }
    match tunnel.encap_limit {
        None => line.push_str(" encaplimit none"),
        Some(limit) => _ = write!(line, " encaplimit {limit}"),
    }
    match tunnel.ttl {
        0 => line.push_str(" hoplimit inherit"),
        limit => _ = write!(line, " hoplimit {limit}"),
    }
    match tunnel.tos {
        tos if tos & 1 != 0 => line.push_str(" tclass inherit"),
        tos => _ = write!(line, " tclass {tos:#04x}"),
    }
    _ = write!(line, " flowlabel {} (flowinfo {})", tunnel.flow_label, flow_info(tunnel));
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

/// What only xgre knows.
pub(in crate::cli) fn own_lines(tunnel: &TunnelInfo, clock: Clock, paint: Paint) -> String {
    state(tunnel, paint) + &details(tunnel, clock, paint)
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
        // Each packet's destination is its own.
        (_, None) if is_any(&tunnel.remote) => {}
        (_, None) => _ = write!(text, " {}", paint.bad("no route to the remote")),
    }
    if tunnel.adopted == Some(true) {
        text.push_str(" adopted");
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

/// Options that iproute2 has no words for here, and what the daemon has learned.
fn details(tunnel: &TunnelInfo, clock: Clock, paint: Paint) -> String {
    let mut text = String::new();
    let mut options = String::new();
    if tunnel.ignore_df {
        options.push_str(" ignore-df");
    }
    if tunnel.seq_mode != SeqMode::Linux.to_string() {
        _ = write!(options, " seq-mode {}", tunnel.seq_mode);
    }
    if tunnel.mss != Mss::Off.to_string() {
        _ = write!(options, " mss {}", tunnel.mss);
    }
    if tunnel.netfilter == Netfilter::Bypass.to_string() {
        options.push_str(" netfilter bypass");
    }
    if !options.is_empty() {
        _ = writeln!(text, "   {options}");
    }
    if let Some(mismatch) = &tunnel.mismatch {
        text.push_str(&mismatch::text(mismatch, "    ", clock, paint));
    }
    for PathMtu { remote, mtu, expires_in } in &tunnel.path_mtus {
        _ = writeln!(text, "    path to {remote}: mtu {mtu} expires {expires_in}sec");
    }
    if let Some(mtu) = tunnel.payload_mtu.filter(|_| tunnel.fragments_ipv6()) {
        let state = paint.bad("path too narrow for IPv6");
        _ = writeln!(
            text,
            "    {state}: it takes {mtu} of 1280 bytes in one piece, so that longer packets go in outer \
             fragments; raise the underlay's MTU by {}",
            1280 - mtu
        );
    }
    if let Some(Sequence { next_sent, next_expected, resynchronised }) = tunnel.sequence {
        text.push_str("    sequence");
        if tunnel.oseq {
            _ = write!(text, " next sent {next_sent}");
        }
        if tunnel.iseq {
            _ = write!(text, " next expected {next_expected} resynchronised {resynchronised}");
        }
        text.push('\n');
    }
    text
}
