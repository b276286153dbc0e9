//! Devices for people, in the shape of `ip link show` (print_linkinfo in ip/ipaddress.c), with our
//! lines below.

use std::fmt::Write as _;

use super::facts::{Device, quad};
use crate::{
    cli::{
        Clock, Output,
        output::Paint,
        tunnel::{Columns, own_lines},
    },
    report::{Stats, TunnelInfo},
};

/// As `ip link show`, with `-d`, `-s`, `-s -s`, `-o` and `-br`.
pub fn text(
    devices: &[Device<'_>],
    stats: Option<&Stats>,
    output: Output,
    clock: Clock,
    paint: Paint,
) -> String {
    let of_device = |device: &Device<'_>| {
        if output.brief {
            return brief(device, paint);
        }
        let mut text = first_line(device, paint) + &second_line(device, output.details > 0);
        if output.details > 0 {
            text.push_str(&details(device));
        }
        if let Some(stats) = stats {
            let columns = Columns::of(&device.tunnel.name, stats);
            text.push_str(&table(&columns, device, output.statistics > 1));
        }
        output.lines(text + &own_lines(device.tunnel, clock, paint))
    };
    devices.iter().map(of_device).collect()
}

fn name(device: &Device<'_>) -> String {
    format!("{}@{}", device.tunnel.name, device.below().unwrap_or("NONE"))
}

fn state(device: &Device<'_>, width: usize, paint: Paint) -> String {
    let state = device.state();
    let padded = format!("{state:<width$}");
    match state {
        "DOWN" | "LOWERLAYERDOWN" => paint.bad(&padded),
        _ => padded,
    }
}

fn brief(device: &Device<'_>, paint: Paint) -> String {
    format!(
        "{} {} {} <{}> \n",
        paint.name(&format!("{:<16}", name(device))),
        state(device, 14, paint),
        device.address(),
        device.flags().join(",")
    )
}

fn first_line(device: &Device<'_>, paint: Paint) -> String {
    let link = device.link;
    let flags = device.flags().join(",");
    let name = paint.name(&name(device));
    let mut line = format!("{}: {name}: <{flags}> mtu {} ", link.ifindex, link.mtu);
    for (word, value) in [("qdisc", &link.qdisc), ("master", &link.master)] {
        if let Some(value) = value {
            _ = write!(line, "{word} {value} ");
        }
    }
    let (state, mode, group) = (state(device, 0, paint), &link.linkmode, device.group());
    _ = write!(line, "state {state} mode {mode} group {group} ");
    if link.txqlen != 0 {
        _ = write!(line, "qlen {}", link.txqlen);
    }
    line.push('\n');
    line
}

fn second_line(device: &Device<'_>, details: bool) -> String {
    let word = if device.is_point_to_point() { "peer" } else { "brd" };
    let mut line = format!(
        "    link/{} {} {word} {}",
        device.link_type(),
        device.address(),
        device.broadcast()
    );
    if details {
        let link = device.link;
        for (word, value) in [
            (" promiscuity", link.promiscuity),
            (" allmulti", link.allmulti),
            ("minmtu", link.min_mtu),
            ("maxmtu", link.max_mtu),
        ] {
            number(&mut line, word, value);
        }
    }
    line.push('\n');
    line
}

fn details(device: &Device<'_>) -> String {
    let (tunnel, link) = (device.tunnel, device.link);
    let mut line = format!("    {} {}", tunnel.mode, options(tunnel));
    if let Some(mode) = &link.addrgenmode {
        _ = write!(line, "addrgenmode {mode} ");
    }
    for (word, value) in [
        ("numtxqueues", link.num_tx_queues),
        ("numrxqueues", link.num_rx_queues),
        ("gso_max_size", link.gso_max_size),
        ("gso_max_segs", link.gso_max_segs),
        ("tso_max_size", link.tso_max_size),
        ("tso_max_segs", link.tso_max_segs),
        ("gro_max_size", link.gro_max_size),
    ] {
        number(&mut line, word, value);
    }
    line.push('\n');
    line
}

fn number(line: &mut String, word: &str, value: Option<u32>) {
    if let Some(value) = value {
        _ = write!(line, "{word} {value} ");
    }
}

/// As gre_print_opt in ip/link_gre.c and ip/link_gre6.c; each word ends with a space.
fn options(tunnel: &TunnelInfo) -> String {
    let any = |address: &str| match address {
        "0.0.0.0" | "::" => "any".to_owned(),
        address => address.to_owned(),
    };
    let mut words = format!("remote {} local {} ", any(&tunnel.remote), any(&tunnel.local));
    if let Some(dev) = &tunnel.dev {
        _ = write!(words, "dev {dev} ");
    }
    words.push_str(&match tunnel.mode.as_str() {
        "gre" | "gretap" => over_ipv4(tunnel),
        _ => over_ipv6(tunnel),
    });
    for (word, key) in [("ikey", tunnel.ikey), ("okey", tunnel.okey)] {
        if let Some(key) = key {
            _ = write!(words, "{word} {} ", quad(key));
        }
    }
    for (word, on) in [
        ("iseq ", tunnel.iseq),
        ("oseq ", tunnel.oseq),
        ("icsum ", tunnel.icsum),
        ("ocsum ", tunnel.ocsum),
    ] {
        if on {
            words.push_str(word);
        }
    }
    words
}

fn over_ipv4(tunnel: &TunnelInfo) -> String {
    let mut words = match tunnel.ttl {
        0 => "ttl inherit ".to_owned(),
        ttl => format!("ttl {ttl} "),
    };
    match tunnel.tos {
        0 => {}
        1 => words.push_str("tos inherit "),
        tos => _ = write!(words, "tos {tos:#x} "),
    }
    if !tunnel.pmtudisc {
        words.push_str("nopmtudisc ");
    }
    if tunnel.ignore_df {
        words.push_str("ignore-df ");
    }
    words
}

fn over_ipv6(tunnel: &TunnelInfo) -> String {
    let or_inherit = |number: u8| match number {
        0 => "inherit".to_owned(),
        number => number.to_string(),
    };
    let limit = tunnel.encap_limit.map_or("none".to_owned(), |limit| limit.to_string());
    let class = match tunnel.tos {
        tos if tos & 1 != 0 => "inherit".to_owned(),
        tos => format!("{tos:#04x}"),
    };
    format!(
        "hoplimit {} encaplimit {limit} tclass {class} flowlabel {} ",
        or_inherit(tunnel.ttl),
        tunnel.flow_label
    )
}

/// As print_stats64 in ip/ipaddress.c: what is counted is the tunnel's, whichever tier carried it.
fn table(columns: &Columns, device: &Device<'_>, by_kind: bool) -> String {
    let Columns { rx, tx } = columns;
    let received = [rx.bytes, rx.packets, rx.errors, 0, 0, rx.multicast];
    let sent = [tx.bytes, tx.packets, tx.errors, tx.no_buffers, tx.no_route, tx.dead_loop];
    let rx_kinds = [0, rx.csum_errors, 0, rx.out_of_sequence, 0];
    let changes = device.link.carrier_changes.unwrap_or_default();
    let tx_kinds = [0, 0, 0, 0, changes.into()];
    let rows: &[&[u64]] = &[&received, &sent];
    let kinds: &[&[u64]] = if by_kind { &[&rx_kinds, &tx_kinds] } else { &[] };
    let widths = widths(rows, kinds);
    let mut text = String::new();
    let headings = ["bytes", "packets", "errors", "dropped", "missed", "mcast"];
    main_rows(&mut text, "RX", headings, &received, &widths);
    if by_kind {
        let headings = ["length", "crc", "frame", "fifo", "overrun"];
        kind_rows(&mut text, "RX", headings, &rx_kinds, &widths);
    }
    let headings = ["bytes", "packets", "errors", "dropped", "carrier", "collsns"];
    main_rows(&mut text, "TX", headings, &sent, &widths);
    if by_kind {
        let headings = ["aborted", "fifo", "window", "heartbt", "transns"];
        kind_rows(&mut text, "TX", headings, &tx_kinds, &widths);
    }
    text
}

/// No narrower than the headings, and wide enough for every number.
fn widths(rows: &[&[u64]], kinds: &[&[u64]]) -> [usize; 6] {
    let mut widths =
        ["*X errors:", "packets", "errors", "dropped", "heartbt", "overrun"].map(str::len);
    let mut fit = |column: usize, number: u64| {
        widths[column] = widths[column].max(number.to_string().len());
    };
    for (first, rows) in [(0, rows), (1, kinds)] {
        for row in rows {
            for (column, number) in (first..).zip(*row) {
                fit(column, *number);
            }
        }
    }
    widths
}

fn main_rows(
    text: &mut String,
    direction: &str,
    headings: [&str; 6],
    numbers: &[u64; 6],
    widths: &[usize; 6],
) {
    _ = write!(text, "    {direction}: {:>width$}", headings[0], width = widths[0] - 4);
    for (heading, &width) in headings.iter().zip(widths).skip(1) {
        _ = write!(text, " {heading:>width$}");
    }
    // Where iproute2 has a column for compressed packets.
    _ = write!(text, " {:>10}\n    ", "");
    for (number, &width) in numbers.iter().zip(widths) {
        _ = write!(text, "{number:>width$} ");
    }
    text.push('\n');
}

fn kind_rows(
    text: &mut String,
    direction: &str,
    headings: [&str; 5],
    numbers: &[u64; 5],
    widths: &[usize; 6],
) {
    _ = write!(text, "    {direction} errors:{:width$}", "", width = widths[0] - 10);
    for (heading, &width) in headings.iter().zip(&widths[1..]) {
        _ = write!(text, " {heading:>width$}");
    }
    _ = write!(text, "\n{:width$}", "", width = widths[0] + 5);
    for (number, &width) in numbers.iter().zip(&widths[1..]) {
        _ = write!(text, "{number:>width$} ");
    }
    text.push('\n');
}
