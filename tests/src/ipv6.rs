//! IPv6 for the document's topology, LANs and underlay, beside its IPv4.
//!
//! ```text
//!  PC1 ---------- R1 =============== router =============== R2 ----- switch ----- PC2
//!  150::10   150::1  56::66      56::1    22::1      22::196  110::70             110::10
//! ```
//! All are in 2001:db8::/32, all prefixes are /64. PC2's default gateway is R2 itself.

use anyhow::Result;

use crate::{
    config::Gateway,
    namespace::Namespace,
    topology::{self, Lab, R1_TUNNEL, R2_TUNNEL},
};

pub const PC1: &str = "2001:db8:150::10";
pub const PC2: &str = "2001:db8:110::10";
pub const R1_LAN: &str = "2001:db8:150::1";
pub const R1_WAN: &str = "2001:db8:56::66";
pub const R2_LAN: &str = "2001:db8:110::70";
pub const R2_WAN: &str = "2001:db8:22::196";
pub const ROUTER_TO_R1: &str = "2001:db8:56::1";
pub const ROUTER_TO_R2: &str = "2001:db8:22::1";
pub const TUNNEL_OF_R1: &str = "2001:db8:168::2";
pub const TUNNEL_OF_R2: &str = "2001:db8:168::1";
/// What R1 routes into the tunnel.
pub const FAR_LAN_OF_R1: &str = "2001:db8:110::/64";
/// What R2 routes into the tunnel.
pub const FAR_LAN_OF_R2: &str = "2001:db8:150::/64";

impl Lab {
    /// The topology with IPv6 beside IPv4.
    pub fn with_ipv6() -> Result<Self> {
        let lab = Self::new()?;
        for namespace in lab.namespaces() {
            enable(namespace)?;
        }
        let routers = [&lab.r1, &lab.router, &lab.r2];
        for router in routers {
            for scope in ["all", "default"] {
                router.sysctl(&format!("net.ipv6.conf.{scope}.forwarding"), 1)?;
            }
        }
        for (namespace, device, address) in [
            (&lab.pc1, "eth0", PC1),
            (&lab.r1, "lan", R1_LAN),
            (&lab.r1, "wan", R1_WAN),
            (&lab.router, "to-r1", ROUTER_TO_R1),
            (&lab.router, "to-r2", ROUTER_TO_R2),
            (&lab.r2, "wan", R2_WAN),
            (&lab.r2, "lan", R2_LAN),
            (&lab.pc2, "eth0", PC2),
        ] {
            namespace.ip(&format!("addr add {address}/64 dev {device} nodad"))?;
        }
        for (namespace, gateway) in [
            (&lab.pc1, R1_LAN),
            (&lab.r1, ROUTER_TO_R1),
            (&lab.r2, ROUTER_TO_R2),
            (&lab.pc2, R2_LAN),
        ] {
            namespace.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(lab)
    }
}

/// On all devices, those to come included.
pub fn enable(namespace: &Namespace) -> Result<()> {
    enable_on(namespace, "default")?;
    enable_on(namespace, "all")
}

/// Without what would make the first seconds differ from those that follow.
pub fn enable_on(namespace: &Namespace, device: &str) -> Result<()> {
    for (key, value) in [
        ("accept_dad", 0),
        ("router_solicitations", 0),
        ("accept_ra", 0),
        // Reports of multicast groups are over soon, and counted as what they are until then.
        ("mldv2_unsolicited_report_interval", 10),
        ("disable_ipv6", 0),
    ] {
        namespace.sysctl(&format!("net.ipv6.conf.{device}.{key}"), value)?;
    }
    Ok(())
}

/// R1 and R2 with a tunnel between these ends that carries both protocols.
pub fn both([r1, r2]: [&str; 2]) -> [Gateway; 2] {
    [
        Gateway::new(r1, r2)
            .address(R1_TUNNEL, R2_TUNNEL)
            .address(TUNNEL_OF_R1, TUNNEL_OF_R2)
            .routes(&[topology::FAR_LAN_OF_R1, FAR_LAN_OF_R1]),
        Gateway::new(r2, r1)
            .address(R2_TUNNEL, R1_TUNNEL)
            .address(TUNNEL_OF_R2, TUNNEL_OF_R1)
            .routes(&[topology::FAR_LAN_OF_R2, FAR_LAN_OF_R2]),
    ]
}
