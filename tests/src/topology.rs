//! The document's topology, each box a network namespace, each line a veth pair.
//!
//! ```text
//!      PC1                 R1                       router                      R2
//!  +---------+     +------------------+      +------------------+      +------------------+
//!  |     eth0|-----|lan            wan|------|to-r1        to-r2|------|wan            lan|---+
//!  +---------+     +------------------+      +------------------+      +------------------+   |
//!  192.168.150.10  192.168.150.1             10.56.88.1                192.168.22.196         |
//!                            10.56.88.66           192.168.22.1            192.168.110.70     |
//!                                                                                             |
//!                  tunnel0 172.16.168.2 <=========================> tunnel0 172.16.168.1      |
//!                                                                                             |
//!                                             PC2                   switch (bridge)           |
//!                                         +---------+             +------------------+        |
//!                          192.168.110.10 |     eth0|-------------|to-pc2       to-r2|--------+
//!                                         +---------+             |                  |
//!                                             GW                  |                  |
//!                                         +---------+             |                  |
//!                           192.168.110.1 |     eth0|-------------|to-gw             |
//!                                         +---------+             +------------------+
//! ```
//!
//! All prefixes are /24. PC2's default gateway is GW, which is not the tunnel's end: GW routes
//! 192.168.150.0/24 to R2. What R1 and R2 need besides addresses (the tunnel, its routes) is what
//! is under test, and left to the caller.

use anyhow::Result;

use crate::{namespace::Namespace, process::wait_until};
use std::time::Duration;

pub const PC1: &str = "192.168.150.10";
pub const PC2: &str = "192.168.110.10";
pub const R1_LAN: &str = "192.168.150.1";
pub const R1_WAN: &str = "10.56.88.66";
pub const R1_TUNNEL: &str = "172.16.168.2";
pub const R2_LAN: &str = "192.168.110.70";
pub const R2_WAN: &str = "192.168.22.196";
pub const R2_TUNNEL: &str = "172.16.168.1";
/// What R1 routes into the tunnel.
pub const FAR_LAN_OF_R1: &str = "192.168.110.0/24";
/// What R2 routes into the tunnel.
pub const FAR_LAN_OF_R2: &str = "192.168.150.0/24";

pub struct Lab {
    pub pc1: Namespace,
    pub r1: Namespace,
    pub router: Namespace,
    pub r2: Namespace,
    pub switch: Namespace,
    pub pc2: Namespace,
    pub gw: Namespace,
}

impl Lab {
    /// Everything up to the underlay: R1 and R2 reach each other, PC1 and PC2 do not.
    pub fn new() -> Result<Self> {
        let lab = Self {
            pc1: Namespace::new("pc1")?,
            r1: Namespace::new("r1")?,
            router: Namespace::new("router")?,
            r2: Namespace::new("r2")?,
            switch: Namespace::new("switch")?,
            pc2: Namespace::new("pc2")?,
            gw: Namespace::new("gw")?,
        };

        wire((&lab.pc1, "eth0"), (&lab.r1, "lan"))?;
        wire((&lab.r1, "wan"), (&lab.router, "to-r1"))?;
        wire((&lab.router, "to-r2"), (&lab.r2, "wan"))?;
        wire((&lab.r2, "lan"), (&lab.switch, "to-r2"))?;
        wire((&lab.switch, "to-pc2"), (&lab.pc2, "eth0"))?;
        wire((&lab.switch, "to-gw"), (&lab.gw, "eth0"))?;

        like_wire(&lab.pc1, "eth0")?;
        like_wire(&lab.router, "to-r1")?;
        like_wire(&lab.router, "to-r2")?;
        for port in ["to-r2", "to-pc2", "to-gw"] {
            like_wire(&lab.switch, port)?;
        }
        like_wire(&lab.pc2, "eth0")?;
        like_wire(&lab.gw, "eth0")?;

        host(&lab.pc1, "eth0", PC1, R1_LAN)?;
        gateway(&lab.r1, (R1_LAN, "lan"), (R1_WAN, "wan"), "10.56.88.1")?;
        gateway(&lab.r2, (R2_LAN, "lan"), (R2_WAN, "wan"), "192.168.22.1")?;
        host(&lab.pc2, "eth0", PC2, "192.168.110.1")?;

        // The underlay is a plain router that knows nothing of either LAN.
        lab.router.ip("addr add 10.56.88.1/24 dev to-r1")?;
        lab.router.ip("addr add 192.168.22.1/24 dev to-r2")?;
        lab.router.sysctl("net.ipv4.ip_forward", 1)?;

        // The static return route that the document puts on the far LAN's own gateway.
        lab.gw.ip("addr add 192.168.110.1/24 dev eth0")?;
        lab.gw.ip(&format!("route add {FAR_LAN_OF_R2} via {R2_LAN}"))?;
        lab.gw.sysctl("net.ipv4.ip_forward", 1)?;

        bridge(&lab.switch, &["to-r2", "to-pc2", "to-gw"])?;
        wait_until("the underlay carries a ping", Duration::from_secs(5), || {
            lab.r1.run(&format!("ping -n -c 1 -W 1 {R2_WAN}"))
        })?;
        Ok(lab)
    }

    /// Routes the LANs over the bare underlay, with no tunnel: what the laboratory itself does to
    /// packets, and the measure of a tunnel's speed.
    pub fn route_without_tunnel(&self) -> Result<()> {
        self.r1.ip(&format!("route add {FAR_LAN_OF_R1} via 10.56.88.1"))?;
        self.router.ip(&format!("route add {FAR_LAN_OF_R1} via {R2_WAN}"))?;
        self.router.ip(&format!("route add {FAR_LAN_OF_R2} via {R1_WAN}"))?;
        self.r2.ip(&format!("route add {FAR_LAN_OF_R2} via 192.168.22.1"))?;
        Ok(())
    }

    /// All of it, in the order of the drawing.
    pub fn namespaces(&self) -> [&Namespace; 7] {
        [&self.pc1, &self.r1, &self.router, &self.r2, &self.switch, &self.pc2, &self.gw]
    }
}

/// A veth pair, both ends up.
pub fn wire(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    // Made in place, so that the machine's own namespace never sees either end.
    a.0.ip(&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name()))?;
    a.0.ip(&format!("link set {} up", a.1))?;
    b.0.ip(&format!("link set {} up", b.1))?;
    Ok(())
}

/// Makes one end of a veth pair send and receive as network cards on a wire would. For every device
/// but the gateways' own, whose offloads are part of what is under test.
pub fn like_wire(namespace: &Namespace, device: &str) -> Result<()> {
    // tx off: veth leaves checksums to be computed by a card that does not exist, and XDP would
    // forward the packet with none. tso, gso off: a wire carries frames of at most the MTU, never
    // the 64 kB super-packets that veth passes along.
    // gro on: the far end of a gateway's port receives what XDP redirects to that port only if it
    // polls (NAPI), which on veth takes this or an XDP program.
    namespace.offloads(device, "tx off tso off gso off gro on")
}

fn host(namespace: &Namespace, device: &str, address: &str, gateway: &str) -> Result<()> {
    namespace.ip(&format!("addr add {address}/24 dev {device}"))?;
    namespace.ip(&format!("route add default via {gateway}"))?;
    Ok(())
}

/// A router with a LAN and a WAN, each an address and a device.
fn gateway(
    namespace: &Namespace,
    lan: (&str, &str),
    wan: (&str, &str),
    default: &str,
) -> Result<()> {
    namespace.ip(&format!("addr add {}/24 dev {}", lan.0, lan.1))?;
    namespace.ip(&format!("addr add {}/24 dev {}", wan.0, wan.1))?;
    namespace.ip(&format!("route add default via {default}"))?;
    namespace.sysctl("net.ipv4.ip_forward", 1)
}

/// In a namespace of its own, because a machine may filter bridged packets (br_netfilter).
fn bridge(namespace: &Namespace, ports: &[&str]) -> Result<()> {
    // No delay before a port forwards: there are no loops here.
    namespace.ip("link add br0 type bridge stp_state 0 forward_delay 0")?;
    for port in ports {
        namespace.ip(&format!("link set {port} master br0"))?;
    }
    namespace.ip("link set br0 up").map(drop)
}
