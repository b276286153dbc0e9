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

mod adopt;
mod bond;
mod bridge;
mod checks;
mod headers;
mod lab;
mod lan;
mod matrix;
mod packets;
mod rows;
mod stations;
mod tap;
mod vlans;
mod words;

use anyhow::{Context as _, Result, ensure};
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
    xgre::Daemon,
};

use crate::{
    bridge::a_bridge_treats_xgres_gretap_as_the_kernels, matrix::every_combination_works_both_ways,
    vlans::vlans_and_qinq_on_both_ports_are_forwarded_and_kept_apart,
};

in_each_xdp_mode!(
    #[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
    every_combination_works_both_ways,
    #[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
    a_bridge_treats_xgres_gretap_as_the_kernels,
    #[ignore = "for a kernel with VLANs: cargo xtask test --vm"]
    vlans_and_qinq_on_both_ports_are_forwarded_and_kept_apart,
);

const PC1: &str = "192.168.150.10";
const NEAR: &str = "192.168.150.0/24";
const R1: &str = "10.56.88.66";
const R2: &str = "10.56.88.67";
const R1_TUNNEL: &str = "172.16.168.2";
const R2_TUNNEL: &str = "172.16.168.1";
const FAR: &str = "192.168.110.70";
const KEY: u32 = 42;

struct Lab {
    pc1: Namespace,
    r1: Namespace,
    r2: Namespace,
}

impl Lab {
    /// Everything but R1's tunnel. R2's has the key, and otherwise what both ends need not agree on.
    fn new() -> Result<Self> {
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
        let words = format!("mode gre remote {R1} local {R2} ttl 245 key {KEY}");
        r2.ip(&format!("tunnel add tunnel0 {words}")).context("the kernel's GRE")?;
        r2.ip("link set tunnel0 up")?;
        r2.ip(&format!("addr add {R2_TUNNEL}/30 dev tunnel0"))?;
        r2.ip(&format!("route add {NEAR} dev tunnel0 src {FAR}"))?;
        Ok(lab)
    }
}

/// In one mode, with real programs: the matrix has each.
#[test]
#[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
fn a_tunnel_with_a_key_carries_pings_and_tcp_both_ways() -> Result<()> {
    let xdp = Xdp::Native;
    let lab = Lab::new()?;
    let Lab { pc1, r1, r2 } = &lab;
    let config = Gateway::new(R1, R2)
        .key(Some(KEY))
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
    let capture = Capture::start(r2, "wan", "ip proto 47")?;
    counted(pc1, FAR, 10)?;
    counted(r2, PC1, 10)?;
    capture.finish(40)?;
    tcp(pc1, r2, FAR, Load::OneMegabyte, Flow::ToServer)?;
    tcp(pc1, r2, FAR, Load::OneMegabyte, Flow::ToClient)?;
    // The gateway's own traffic is encapsulated by TC, and delivered through the device.
    ping_until_answered(r1, R2_TUNNEL, SOON)?;
    tcp(r1, r2, R2_TUNNEL, Load::OneMegabyte, Flow::ToServer)?;
    let packets = daemon.packets("tunnel0")?;
    ensure!(packets.drops == 0, "{packets:?}");
    daemon.stop().map(drop)
}
