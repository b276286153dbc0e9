//! xgre against the kernel's own GRE (`ip_gre`): each understands what the other sends, and both
//! send the same.
//!
//! ```text
//!      PC1                 R1                               R2
//!  +---------+     +------------------+           +-------------------+
//!  |     eth0|-----|lan            wan|===========|wan       (FAR) lo |
//!  +---------+     +------------------+           +-------------------+
//!  192.168.150.10  192.168.150.1      .66   10.56.88.0/24   .67   192.168.110.70
//!
//!                  tunnel0 172.16.168.2 <=======> tunnel0 172.16.168.1
//!                  xgre                           ip_gre
//! ```
//!
//! Many kernels lack `ip_gre`, or cannot load it here: `cargo xtask test --vm` runs these in guests.

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::SOON,
    in_each_xdp_mode,
    namespace::Namespace,
    process::wait_until,
    topology::{like_wire, wire},
    traffic::{Flow, Load, ping_all, ping_until_answered, tcp},
    xgre::{Daemon, xgre},
};

in_each_xdp_mode!(
    #[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
    a_tunnel_without_a_key_carries_pings_and_tcp_both_ways,
    #[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
    a_tunnel_with_a_key_carries_pings_and_tcp_both_ways,
    #[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
    outer_headers_are_the_kernels,
);

const PC1: &str = "192.168.150.10";
const NEAR: &str = "192.168.150.0/24";
const R1: &str = "10.56.88.66";
const R2: &str = "10.56.88.67";
const R1_TUNNEL: &str = "172.16.168.2";
const R2_TUNNEL: &str = "172.16.168.1";
const FAR: &str = "192.168.110.70";

struct Lab {
    pc1: Namespace,
    r1: Namespace,
    r2: Namespace,
}

impl Lab {
    /// Everything but R1's tunnel. R2's has the key, and otherwise what both ends need not agree on.
    fn new(key: Option<u32>) -> Result<Self> {
        let lab = Self {
            pc1: Namespace::new("pc1")?,
            r1: Namespace::new("r1")?,
            r2: Namespace::new("r2")?,
        };
        let Self { pc1, r1, r2 } = &lab;
        wire((pc1, "eth0"), (r1, "lan"))?;
        wire((r1, "wan"), (r2, "wan"))?;
        like_wire(pc1, "eth0")?;
        like_wire(r2, "wan")?;
        pc1.ip(&format!("addr add {PC1}/24 dev eth0"))?;
        r1.ip("addr add 192.168.150.1/24 dev lan")?;
        pc1.ip("route add default via 192.168.150.1")?;
        r1.ip(&format!("addr add {R1}/24 dev wan"))?;
        r2.ip(&format!("addr add {R2}/24 dev wan"))?;
        r1.sysctl("net.ipv4.ip_forward", 1)?;
        r2.ip(&format!("addr add {FAR}/32 dev lo"))?;
        kernel_tunnel(r2, &format!("remote {R1} local {R2} ttl 245 {}", key_words(key)))?;
        r2.ip(&format!("addr add {R2_TUNNEL}/30 dev tunnel0"))?;
        r2.ip(&format!("route add {NEAR} dev tunnel0 src {FAR}"))?;
        Ok(lab)
    }

    /// Replaces R2's tunnel by one with another key.
    fn far_key(&self, key: Option<u32>) -> Result<()> {
        self.r2.ip("link del tunnel0")?;
        kernel_tunnel(&self.r2, &format!("remote {R1} local {R2} ttl 245 {}", key_words(key)))?;
        self.r2.ip(&format!("route add {NEAR} dev tunnel0 src {FAR}")).map(drop)
    }
}

fn key_words(key: Option<u32>) -> String {
    key.map_or_else(String::new, |key| format!("key {key}"))
}

fn kernel_tunnel(namespace: &Namespace, words: &str) -> Result<()> {
    namespace.ip(&format!("tunnel add tunnel0 mode gre {words}")).context("the kernel's GRE")?;
    namespace.ip("link set tunnel0 up").map(drop)
}

fn a_tunnel_without_a_key_carries_pings_and_tcp_both_ways(xdp: Xdp) -> Result<()> {
    carries(xdp, None)
}

fn a_tunnel_with_a_key_carries_pings_and_tcp_both_ways(xdp: Xdp) -> Result<()> {
    carries(xdp, Some(42))
}

fn carries(xdp: Xdp, key: Option<u32>) -> Result<()> {
    let lab = Lab::new(key)?;
    let Lab { pc1, r1, r2 } = &lab;
    let config = Gateway::new(R1, R2)
        .key(key)
        .address(R1_TUNNEL, R2_TUNNEL)
        .routes(&[&format!("{FAR}/32")])
        .xdp(xdp);
    let daemon = Daemon::start(r1, &config)?;
    ping_until_answered(pc1, FAR, SOON)?;
    // Neighbours are resolved one after the other; until then packets are passed on to TC.
    let counted = |from: &Namespace, to: &str, count: u32| -> Result<()> {
        let before = daemon.packets("tunnel0")?;
        ping_all(from, to, count)?;
        let found = daemon.packets("tunnel0")? - before;
        let expected = Packets::pings(xdp, count.into());
        ensure!(found == expected, "found {found:?}, expected {expected:?}");
        Ok(())
    };
    wait_until("all packets take the expected tier", SOON, || counted(pc1, FAR, 2))?;
    counted(pc1, FAR, 10)?;
    counted(r2, PC1, 10)?;
    tcp(pc1, r2, FAR, Load::OneMegabyte, Flow::ToServer)?;
    tcp(pc1, r2, FAR, Load::OneMegabyte, Flow::ToClient)?;
    // The gateway's own traffic is encapsulated by TC, and delivered through the device.
    ping_until_answered(r1, R2_TUNNEL, SOON)?;
    tcp(r1, r2, R2_TUNNEL, Load::OneMegabyte, Flow::ToServer)?;
    let packets = daemon.packets("tunnel0")?;
    ensure!(packets.drops == 0, "{packets:?}");
    daemon.stop().map(drop)
}

/// What `ip tunnel add` and `xgre tunnel add` are both given.
const OPTIONS: [(&str, Option<u32>); 6] = [
    ("ttl 245", None),
    ("ttl 245 tos 0xb8", Some(42)),
    ("ttl inherit", Some(0xffff_ffff)),
    ("ttl 64 tos inherit", None),
    ("nopmtudisc", None),
    ("nopmtudisc tos inherit", Some(0)),
];

/// What PC1 sends: Don't Fragment set and not, TOS with and without ECN, TTL, sizes up to the
/// largest. Not ECN's "congestion experienced", which the kernel replaces outside (RFC 3168, 9.1.1) and
/// xgre copies (RFC 6040, 4.1).
const PINGS: [&str; 4] =
    ["-M do -s 56", "-M dont -s 0 -Q 0xb9", "-M dont -s 1000 -Q 0x22 -t 3", "-M do -s 1400 -t 255"];

/// First the kernel is R1's end of the tunnel and then xgre, with the same words and pings.
fn outer_headers_are_the_kernels(xdp: Xdp) -> Result<()> {
    let lab = Lab::new(None)?;
    let Lab { r1, .. } = &lab;
    for (options, key) in OPTIONS {
        let words = format!("remote {R2} local {R1} {options} {}", key_words(key));
        lab.far_key(key)?;
        kernel_tunnel(r1, &words)?;
        let expected = sent(&lab)?;
        r1.ip("link del tunnel0")?;

        let daemon = Daemon::start(r1, &Gateway::without_tunnels().xdp(xdp))?;
        xgre(r1, &format!("tunnel add tunnel0 mode gre {words}"))?;
        r1.ip("link set tunnel0 up")?;
        if xdp != Xdp::Off {
            daemon.wait_until_accelerated("tunnel0")?;
        }
        let found = sent(&lab)?;
        let packets = daemon.packets("tunnel0")?;
        daemon.stop()?;
        ensure!(xdp == Xdp::Off || packets.tx_xdp >= PINGS.len() as u64, "{packets:?}");
        for ((ping, expected), found) in PINGS.iter().zip(expected).zip(found) {
            ensure!(
                found == expected,
                "with `{words}`, `ping {ping}`:\nthe kernel {expected:02x?}\nxgre       {found:02x?}"
            );
        }
    }
    Ok(())
}

/// What is on the wire between the gateways when PC1 sends its pings, all of which are answered: of
/// each frame the length, and the headers behind Ethernet's.
fn sent(lab: &Lab) -> Result<Vec<(usize, Vec<u8>)>> {
    let Lab { pc1, r1, r2 } = lab;
    r1.ip(&format!("route add {FAR}/32 dev tunnel0"))?;
    ping_until_answered(pc1, FAR, SOON)?;
    let capture = Capture::start(r2, "wan", &format!("src host {R1} and ip proto 47"))?;
    for options in PINGS {
        pc1.run(&format!("ping -n -q -c 1 -W 2 {options} {FAR}"))?;
    }
    capture.finish(PINGS.len())?.bytes()?.iter().map(|frame| headers(frame)).collect()
}

/// The outer and inner IPv4 header and what is between them, without identifications, which are
/// the sender's choice, and checksums, which are right: the other end has accepted them.
fn headers(frame: &[u8]) -> Result<(usize, Vec<u8>)> {
    let key_present = frame.get(34).context("a short frame")? & 0x20 != 0;
    let inner = if key_present { 28 } else { 24 };
    let mut headers = frame.get(14..14 + inner + 20).context("a short frame")?.to_vec();
    if headers[inner] != 0x45 {
        bail!("no inner header where it should be: {frame:02x?}");
    }
    for header in [0, inner] {
        headers[header + 4..header + 6].fill(0);
        headers[header + 10..header + 12].fill(0);
    }
    Ok((frame.len(), headers))
}
