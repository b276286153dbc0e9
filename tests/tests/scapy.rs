//! What scapy builds, xgre understands as scapy means it; and what xgre sends, scapy dissects.
//!
//! ```text
//!      host                        R1                           peer
//!  +----------+          +------------------+               +-----------+
//!  |      eth0|----------|lan            wan|===============|wan        |
//!  +----------+          +------------------+               +-----------+
//!  192.168.150.10        192.168.150.1   10.56.88.66        10.56.88.67 and on, one a tunnel
//!  fd50::10              fd50::1         fd56::66           fd56::67 and on
//!
//!  behind tunnel N: 10.110.N.0/24, fd11:N::/64
//! ```
//!
//! Scapy has R1's neighbours' sockets, and builds every bit of their packets (tests/scapy).

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    in_each_xdp_mode,
    namespace::Namespace,
    process::run,
    topology::{like_wire, wire},
    xgre::{Daemon, xgre},
};

in_each_xdp_mode!(scapys_packets_arrive_or_not_as_their_headers_say, scapy_dissects_what_is_sent,);

/// A tunnel of R1, and what its packets carry.
struct Tunnel {
    name: &'static str,
    words: &'static str,
    outer: Version,
    /// The versions of what it carries.
    inner: &'static [Version],
    key: Option<u32>,
    checksum: bool,
    sequence: bool,
    /// Of packets that are sent; copied, and `tos` too, from what is inside where there is none.
    ttl: Option<u8>,
    /// Whether its packets may be cut on their way, where those inside may.
    may_be_cut: bool,
    /// Its packets carry a Tunnel Encapsulation Limit (RFC 2473, 4.1).
    limited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// Scapy's name of the header.
const DESTINATION_OPTIONS: &str = "IPv6 Extension Header - Destination Options Header";

/// The first number of a tunnel's packets: far behind it is room for old ones.
const FIRST: u32 = 1000;

const BOTH: &[Version] = &[Version::V4, Version::V6];

const PLAIN: Tunnel = Tunnel {
    name: "plain",
    words: "ttl 245",
    outer: Version::V4,
    inner: BOTH,
    key: None,
    checksum: false,
    sequence: false,
    ttl: Some(245),
    may_be_cut: false,
    limited: false,
};
const KEYED: Tunnel = Tunnel { name: "keyed", words: "ttl 245 key 42", key: Some(42), ..PLAIN };
const EVERYTHING: Tunnel = Tunnel {
    name: "everything",
    words: "ttl 245 key 43 csum seq",
    key: Some(43),
    checksum: true,
    sequence: true,
    ..PLAIN
};

/// The first is also the fence's.
const TUNNELS: [Tunnel; 12] = [
    PLAIN,
    KEYED,
    Tunnel { name: "summed", words: "ttl 245 csum", checksum: true, ..PLAIN },
    Tunnel { name: "numbered", words: "ttl 245 seq", sequence: true, ..PLAIN },
    EVERYTHING,
    Tunnel {
        name: "copying",
        words: "ttl inherit tos inherit nopmtudisc",
        ttl: None,
        may_be_cut: true,
        ..PLAIN
    },
    Tunnel { name: "plain6", outer: Version::V6, ..PLAIN },
    Tunnel { name: "keyed6", outer: Version::V6, ..KEYED },
    Tunnel { name: "summed6", words: "ttl 245 csum", outer: Version::V6, checksum: true, ..PLAIN },
    Tunnel { name: "numbered6", words: "ttl 245 seq", outer: Version::V6, sequence: true, ..PLAIN },
    Tunnel { name: "everything6", outer: Version::V6, ..EVERYTHING },
    Tunnel {
        name: "copying6",
        words: "ttl inherit tos inherit encaplimit 4",
        outer: Version::V6,
        ttl: None,
        limited: true,
        ..PLAIN
    },
];

fn scapys_packets_arrive_or_not_as_their_headers_say(xdp: Xdp) -> Result<()> {
    let lab = Lab::new(xdp)?;
    let mut rows = Vec::new();
    for (number, tunnel) in (1..).zip(&TUNNELS) {
        rows.extend(tunnel.rows(number));
    }
    let packets: Vec<_> = rows.iter().map(|row| &row.packet).collect();
    let reply = lab.exchange(&json!(packets), &json!([]))?;
    let results = reply["inward"].as_array().context("no results")?;
    ensure!(results.len() == rows.len(), "{} results of {}", results.len(), rows.len());
    let mut wrong = Vec::new();
    for (row, result) in rows.iter().zip(results) {
        let expected = json!({ "arrived": row.arrives, "same": row.arrives });
        if *result != expected {
            wrong.push(format!("{}: {result}, expected {expected}", row.packet));
        }
    }
    let counted = lab.daemon.stats()?;
    let tiers = &counted["tiers"];
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}\ncounted: {tiers}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    lab.daemon.stop().map(drop)
}

fn scapy_dissects_what_is_sent(xdp: Xdp) -> Result<()> {
    let lab = Lab::new(xdp)?;
    let mut rows = Vec::new();
    for (number, tunnel) in (1..).zip(&TUNNELS) {
        for inner in tunnel.inner {
            // An odd size, for the checksum; and what fits every tunnel.
            for (size, ttl, tos, df) in [
                (32, 64, 0, false),
                (33, 2, 0xb8, true),
                (1000, 255, 0x2a, false),
                (1001, 65, 0x03, false),
                (1380, 64, 0, true),
            ] {
                rows.push((number, tunnel, outbound(number, *inner, size, ttl, tos, df)));
            }
        }
    }
    let capture = Capture::start(&lab.peer, "wan", "src host 10.56.88.66 or src host fd56::66")?;
    let packets: Vec<_> = rows.iter().map(|(_, _, packet)| packet).collect();
    let reply = lab.exchange(&json!([]), &json!(packets))?;
    // tshark's opinion is asked for as well.
    capture.finish(rows.len())?;
    let results = reply["outward"].as_array().context("no results")?;
    for ((number, tunnel, packet), result) in rows.iter().zip(results) {
        let expected = tunnel.sent(*number, packet, &result["gre"]["sequence_number"]);
        ensure!(*result == expected, "of {packet}\nfound    {result}\nexpected {expected}");
    }
    for (number, tunnel) in (1..).zip(&TUNNELS) {
        let sent = numbers(&reply["numbers"][tunnel.remote(number)])?;
        let of_rows: Vec<_> = rows
            .iter()
            .zip(results)
            .filter(|((of, ..), _)| *of == number)
            .filter_map(|(_, result)| result["gre"]["sequence_number"].as_u64())
            .collect();
        ensure!(tunnel.sequence || sent.is_empty(), "{}: numbers {sent:?}", tunnel.name);
        // The kernel's own packets, through the tunnel's device, have numbers as well: some were
        // sent before anybody listened, others stand between those of the rows.
        ensure!(sent.is_sorted_by(|a, b| a + 1 == *b), "{}: not one by one {sent:?}", tunnel.name);
        ensure!(of_rows.is_sorted_by(|a, b| a < b), "{}: not in order {of_rows:?}", tunnel.name);
        ensure!(of_rows.iter().all(|number| sent.contains(number)), "{}", tunnel.name);
    }
    lab.daemon.stop().map(drop)
}

fn numbers(value: &Value) -> Result<Vec<u64>> {
    let Some(values) = value.as_array() else { return Ok(Vec::new()) };
    values.iter().map(|number| number.as_u64().context("no number")).collect()
}

/// An encapsulated packet, and whether what is in it should arrive at the host.
struct Row {
    packet: Value,
    arrives: bool,
}

impl Tunnel {
    fn remote(&self, number: u8) -> String {
        match self.outer {
            Version::V4 => format!("10.56.88.{}", 66 + u32::from(number)),
            Version::V6 => format!("fd56::{}", 66 + u32::from(number)),
        }
    }

    fn local(&self) -> &'static str {
        match self.outer {
            Version::V4 => "10.56.88.66",
            Version::V6 => "fd56::66",
        }
    }

    fn xgre_words(&self, number: u8) -> String {
        let mode = if self.outer == Version::V4 { "gre" } else { "ip6gre" };
        let (local, remote) = (self.local(), self.remote(number));
        format!("{} mode {mode} local {local} remote {remote} {}", self.name, self.words)
    }

    /// What the peer sends. Each packet has a number above those before it, but for those of
    /// `numbers`.
    fn rows(&self, number: u8) -> Vec<Row> {
        let mut rows = self.headers(number);
        rows.extend(self.around(number));
        for (sequence, row) in (FIRST..).zip(&mut rows) {
            row.packet["gre"]["sequence_number"] = json!(sequence);
        }
        if self.sequence {
            let next = FIRST + rows.len() as u32;
            rows.extend(self.numbers(number, next));
        }
        rows
    }

    /// Duplicates and what is late, a restart of the peer, and numbers that wrap; `newest` is above
    /// all that were sent.
    fn numbers(&self, number: u8, newest: u32) -> Vec<Row> {
        const HALF: u32 = 1 << 31;
        let mut numbers = vec![
            (newest, true),
            (newest, false),
            (newest - 1, false),
            (newest + 1, true),
            (newest + 10, true),
            (newest + 9, false),
            (newest + 10, false),
            (newest + 11, true),
            (0, false),
            (newest + 12, true),
        ];
        // Of 32 old numbers that ascend the last is a restart.
        numbers.extend((0..31).map(|number| (number, false)));
        numbers.extend([(31, true), (31, false), (30, false), (32, true)]);
        // Ahead are 2^31 numbers from the one that is expected on.
        numbers.extend([(33 + HALF, false), (33 + HALF - 1, true), (33, false)]);
        // Of the number behind the last one nothing is known: like the kernel, any is taken.
        numbers.extend([(u32::MAX, true), (5, true), (u32::MAX, false), (5, false), (6, true)]);
        let row = |(sequence, arrives)| {
            let mut gre = self.right(Version::V4);
            gre["sequence_number"] = json!(sequence);
            Row { packet: self.packet(number, gre, Version::V4), arrives }
        };
        numbers.into_iter().map(row).collect()
    }

    /// Options, which XDP passes on to TC, extension headers, and fragments for the daemon.
    fn around(&self, number: u8) -> Vec<Row> {
        let mut rows = Vec::new();
        let options: &[&str] = match self.outer {
            Version::V4 => &["no operation", "router alert", "record route", "as many as fit"],
            Version::V6 => &[
                "padding",
                "encapsulation limit",
                "long",
                "hop by hop",
                "hop by hop, encapsulation limit",
            ],
        };
        const ORDERS: [(&str, bool); 5] = [
            ("in order", true),
            ("backwards", true),
            ("first twice", true),
            ("one missing", false),
            ("overlapping", false),
        ];
        for inner in BOTH {
            let right = || self.packet(number, self.right(*inner), *inner);
            // Inner packets of this size fit the device of each tunnel.
            const LONG: u16 = 1380;
            for option in options {
                let mut packet = right();
                packet["outer"]["options"] = json!(option);
                rows.push(Row { packet, arrives: true });
            }
            for (order, arrives) in ORDERS {
                for option in [None, Some(options[1])] {
                    for size in [1001, LONG] {
                        let mut packet = right();
                        packet["inner"]["size"] = json!(size);
                        packet["pieces"] = json!({ "mtu": 576, "order": order });
                        if let Some(option) = option {
                            packet["outer"]["options"] = json!(option);
                        }
                        rows.push(Row { packet, arrives });
                    }
                }
            }
            for (field, value, is_wrong) in
                [("key", 41, self.key.is_some()), ("chksum", 1, self.checksum)]
            {
                for pieces in [false, true] {
                    let mut packet = right();
                    packet["gre"][field] = json!(value);
                    packet["inner"]["size"] = json!(1001);
                    if pieces {
                        packet["pieces"] = json!({ "mtu": 576, "order": "in order" });
                    } else {
                        packet["outer"]["options"] = json!(options[1]);
                    }
                    rows.push(Row { packet, arrives: !is_wrong });
                }
            }
        }
        rows
    }

    /// Every combination of flags and versions, each reserved bit, protocols, wrong keys and
    /// checksums.
    fn headers(&self, number: u8) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |gre: Value, inner: Version| {
            let arrives = self.opens(&gre, inner);
            rows.push(Row { packet: self.packet(number, gre, inner), arrives });
        };
        for inner in BOTH {
            let protocol = protocol(*inner);
            for bits in 0..16_u8 {
                for version in 0..8_u8 {
                    add(
                        json!({
                            "chksum_present": bits >> 3,
                            "routing_present": bits >> 2 & 1,
                            "key_present": bits >> 1 & 1,
                            "key": self.key.unwrap_or(7),
                            "seqnum_present": bits & 1,
                            "version": version,
                            "proto": protocol,
                        }),
                        *inner,
                    );
                }
            }
            for field in ["strict_route_source", "recursion_control", "flags"] {
                for value in [1, 2, 4, 8, 16] {
                    let mut gre = self.right(*inner);
                    gre[field] = json!(value);
                    let fits = match field {
                        "strict_route_source" => value == 1,
                        "recursion_control" => value <= 4,
                        _ => true,
                    };
                    if fits {
                        add(gre, *inner);
                    }
                }
            }
        }
        // Bridged Ethernet, WCCP, ERSPAN II and III, PPTP's, MPLS, what nobody has, and none.
        for protocol in [0x6558, 0x883e, 0x88be, 0x22eb, 0x880b, 0x8847, 0x1234, 0] {
            let mut gre = self.right(Version::V4);
            gre["proto"] = json!(protocol);
            add(gre, Version::V4);
        }
        for (field, value) in [("key", 41), ("chksum", 1)] {
            let mut gre = self.right(Version::V4);
            gre[field] = json!(value);
            add(gre, Version::V4);
        }
        rows
    }

    /// The header that the tunnel takes.
    fn right(&self, inner: Version) -> Value {
        json!({
            "chksum_present": u8::from(self.checksum),
            "key_present": u8::from(self.key.is_some()),
            "key": self.key.unwrap_or(0),
            "seqnum_present": u8::from(self.sequence),
            "proto": protocol(inner),
        })
    }

    /// RFC 2784 with 2890, and the kernel's rule that flags are those of the tunnel.
    fn opens(&self, gre: &Value, inner: Version) -> bool {
        let field = |name: &str| gre[name].as_u64().unwrap_or(0);
        let reserved = field("routing_present") | field("strict_route_source");
        let keyed = field("key_present") == 1;
        let key = !keyed || self.key.map(u64::from) == Some(field("key"));
        let wrong_checksum = field("chksum_present") == 1 && gre["chksum"].is_number();
        field("version") == 0
            && reserved == 0
            && field("recursion_control") < 4
            && keyed == self.key.is_some()
            && key
            && (field("chksum_present") == 1) == self.checksum
            && !wrong_checksum
            && (field("seqnum_present") == 1 || !self.sequence)
            && field("proto") == u64::from(protocol(inner))
            && self.inner.contains(&inner)
    }

    fn packet(&self, number: u8, gre: Value, inner: Version) -> Value {
        let (source, destination) = (far(number, inner), host(inner));
        json!({
            "outer": { "src": self.remote(number), "dst": self.local() },
            "gre": gre,
            "inner": { "src": source, "dst": destination, "size": 40 },
        })
    }

    /// What scapy should make of a packet that the host sent.
    fn sent(&self, number: u8, packet: &Value, sequence: &Value) -> Value {
        let inner = if packet["dst"].as_str().is_some_and(|text| text.contains(':')) {
            Version::V6
        } else {
            Version::V4
        };
        let field = |v4: &str, v6: &str| {
            packet[if inner == Version::V4 { v4 } else { v6 }].as_u64().expect("a number") as u8
        };
        let dsfield = field("tos", "tc");
        let sequence = sequence.as_u64().filter(|_| self.sequence);
        json!({
            "outer": {
                "src": self.local(),
                "dst": self.remote(number),
                // Inside it has been forwarded.
                "ttl": self.ttl.unwrap_or(field("ttl", "hlim") - 1),
                // RFC 6040: of the inner DS field, ECN is copied always.
                "tos": if self.ttl.is_some() { dsfield & 3 } else { dsfield },
                "df": self.outer == Version::V4 && (!self.may_be_cut || packet["flags"] == "DF"),
                "label": 0,
                "between": if self.limited { json!([DESTINATION_OPTIONS]) } else { json!([]) },
            },
            "gre": {
                "chksum_present": u8::from(self.checksum),
                "routing_present": 0,
                "key_present": u8::from(self.key.is_some()),
                "seqnum_present": u8::from(self.sequence),
                "strict_route_source": 0,
                "recursion_control": 0,
                "flags": 0,
                "version": 0,
                "proto": protocol(inner),
                "offset": if self.checksum { json!(0) } else { Value::Null },
                "key": self.key,
                "sequence_number": sequence,
            },
            "sums_to_zero": true,
            "right": true,
            "same": true,
        })
    }
}

fn protocol(inner: Version) -> u16 {
    match inner {
        Version::V4 => 0x0800,
        Version::V6 => 0x86dd,
    }
}

fn host(version: Version) -> &'static str {
    match version {
        Version::V4 => "192.168.150.10",
        Version::V6 => "fd50::10",
    }
}

fn far(number: u8, version: Version) -> String {
    match version {
        Version::V4 => format!("10.110.{number}.10"),
        Version::V6 => format!("fd11:{number}::10"),
    }
}

fn outbound(number: u8, version: Version, size: u16, ttl: u8, tos: u8, df: bool) -> Value {
    let (source, destination) = (host(version), far(number, version));
    match version {
        Version::V4 => json!({
            "src": source, "dst": destination, "size": size, "ttl": ttl, "tos": tos, "id": 4711,
            "flags": if df { "DF" } else { "" },
        }),
        Version::V6 => json!({
            "src": source, "dst": destination, "size": size, "hlim": ttl, "tc": tos,
        }),
    }
}

struct Lab {
    host: Namespace,
    r1: Namespace,
    peer: Namespace,
    daemon: Daemon,
}

impl Lab {
    /// All of `TUNNELS`, carrying packets.
    fn new(xdp: Xdp) -> Result<Self> {
        let [host, r1, peer] =
            [Namespace::new("host")?, Namespace::new("r1")?, Namespace::new("peer")?];
        for namespace in [&host, &r1, &peer] {
            for (key, value) in
                [("accept_dad", 0), ("router_solicitations", 0), ("disable_ipv6", 0)]
            {
                namespace.sysctl(&format!("net.ipv6.conf.default.{key}"), value)?;
                namespace.sysctl(&format!("net.ipv6.conf.all.{key}"), value)?;
            }
        }
        wire((&host, "eth0"), (&r1, "lan"))?;
        wire((&r1, "wan"), (&peer, "wan"))?;
        like_wire(&host, "eth0")?;
        like_wire(&peer, "wan")?;
        for (namespace, address, device) in [
            (&host, "192.168.150.10/24", "eth0"),
            (&host, "fd50::10/64", "eth0"),
            (&r1, "192.168.150.1/24", "lan"),
            (&r1, "fd50::1/64", "lan"),
            (&r1, "10.56.88.66/24", "wan"),
            (&r1, "fd56::66/64", "wan"),
        ] {
            namespace.ip(&format!("addr add {address} dev {device}"))?;
        }
        r1.sysctl("net.ipv4.ip_forward", 1)?;
        r1.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        for (number, tunnel) in (1..).zip(&TUNNELS) {
            let bits = if tunnel.outer == Version::V4 { 24 } else { 64 };
            peer.ip(&format!("addr add {}/{bits} dev wan", tunnel.remote(number)))?;
        }
        let daemon = Daemon::start(&r1, &Gateway::without_tunnels().xdp(xdp))?;
        for (number, tunnel) in (1..).zip(&TUNNELS) {
            let name = tunnel.name;
            xgre(&r1, &format!("tunnel add {}", tunnel.xgre_words(number)))?;
            r1.ip(&format!("link set {name} up"))?;
            for version in tunnel.inner {
                let far = far(number, *version);
                let prefix = if *version == Version::V4 { 24 } else { 64 };
                let network = far.trim_end_matches("10");
                let network =
                    if *version == Version::V4 { format!("{network}0") } else { network.into() };
                r1.ip(&format!("route add {network}/{prefix} dev {name}"))?;
            }
            if xdp != Xdp::Off {
                daemon.wait_until_accelerated(name)?;
            }
        }
        Ok(Self { host, r1, peer, daemon })
    }

    fn exchange(&self, inward: &Value, outward: &Value) -> Result<Value> {
        let port = |namespace: &Namespace, device: &str, gateway: &str| -> Result<Value> {
            Ok(json!({
                "namespace": format!("/run/netns/{}", namespace.name()),
                "device": device,
                "mac": namespace.mac(device)?,
                "gateway": self.r1.mac(gateway)?,
            }))
        };
        let [plain, ..] = &TUNNELS;
        let task = json!({
            "peer": port(&self.peer, "wan", "wan")?,
            "host": port(&self.host, "eth0", "lan")?,
            "fence": plain.packet(1, plain.right(Version::V4), Version::V4),
            "inward": inward,
            "outward": outward,
        });
        let file = self.r1.scratch().join("task.json");
        fs::write(&file, task.to_string())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy/exchange.py");
        // The distribution's, whose scapy it is.
        let mut python = Command::new("/usr/bin/python3");
        python.arg(script).arg(&file);
        let reply =
            run(python, Duration::from_secs(300)).context("scapy (package python3-scapy)")?;
        serde_json::from_str(&reply).context("the script printed no JSON")
    }
}
