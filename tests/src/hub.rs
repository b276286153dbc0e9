//! Three gateways, spoke - hub - spoke, on one underlay network.
//!
//! ```text
//!  host A           A (spoke)                        B (spoke)         host B
//!  +------+      +-------------+                  +-------------+      +------+
//!  |  eth0|------|lan       wan|---+          +---|wan       lan|------|eth0  |
//!  +------+      +-------------+   |          |   +-------------+      +------+
//!  10.1.0.10     10.1.0.1      .1  |          |  .2      10.2.0.1      10.2.0.10
//!                               +----------------+
//!                               | switch (br0)   |  198.51.100.0/24
//!                               +----------------+
//!                                       |
//!                                   .3 wan
//!                                  +---------+
//!                                  |   hub   |  tunnels `a` and `b`, nothing else
//!                                  +---------+
//! ```

use anyhow::Result;

use crate::{
    config::Gateway,
    namespace::Namespace,
    topology::{like_wire, wire},
};

pub const HOST_A: &str = "10.1.0.10";
pub const HOST_B: &str = "10.2.0.10";
pub const WAN_A: &str = "198.51.100.1";
pub const WAN_B: &str = "198.51.100.2";
pub const WAN_HUB: &str = "198.51.100.3";

pub struct Hub {
    pub host_a: Namespace,
    pub a: Namespace,
    pub hub: Namespace,
    pub b: Namespace,
    pub host_b: Namespace,
    pub switch: Namespace,
}

impl Hub {
    pub fn new() -> Result<Self> {
        let lab = Self {
            host_a: Namespace::new("host-a")?,
            a: Namespace::new("a")?,
            hub: Namespace::new("hub")?,
            b: Namespace::new("b")?,
            host_b: Namespace::new("host-b")?,
            switch: Namespace::new("switch")?,
        };
        wire((&lab.host_a, "eth0"), (&lab.a, "lan"))?;
        wire((&lab.host_b, "eth0"), (&lab.b, "lan"))?;
        lab.switch.ip("link add br0 up type bridge stp_state 0 forward_delay 0")?;
        for (gateway, port, address) in
            [(&lab.a, "to-a", WAN_A), (&lab.b, "to-b", WAN_B), (&lab.hub, "to-hub", WAN_HUB)]
        {
            wire((gateway, "wan"), (&lab.switch, port))?;
            like_wire(&lab.switch, port)?;
            lab.switch.ip(&format!("link set {port} master br0"))?;
            gateway.ip(&format!("addr add {address}/24 dev wan"))?;
            gateway.sysctl("net.ipv4.ip_forward", 1)?;
        }
        for (host, address, spoke, gateway) in
            [(&lab.host_a, HOST_A, &lab.a, "10.1.0.1"), (&lab.host_b, HOST_B, &lab.b, "10.2.0.1")]
        {
            like_wire(host, "eth0")?;
            spoke.ip(&format!("addr add {gateway}/24 dev lan"))?;
            host.ip(&format!("addr add {address}/24 dev eth0"))?;
            host.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(lab)
    }

    /// The spokes' tunnels and the hub's two.
    pub fn configs(&self) -> [Gateway; 3] {
        let to = |name, local, remote, route| {
            Gateway::new(local, remote).name(name).routes(&[route]).ports(&["wan"])
        };
        [
            to("hub", WAN_A, WAN_HUB, "10.2.0.0/24").ports(&["wan", "lan"]),
            to("a", WAN_HUB, WAN_A, "10.1.0.0/24").and(to("b", WAN_HUB, WAN_B, "10.2.0.0/24")),
            to("hub", WAN_B, WAN_HUB, "10.1.0.0/24").ports(&["wan", "lan"]),
        ]
    }
}
