//! The document's other topology: one LAN over a tunnel of Ethernet, between two bridges.
//!
//! ```text
//!     PC1                 R1                         router                        R2                 PC2
//!  +-------+   +---------------------+      +------------------+      +---------------------+   +-------+
//!  |   eth0|---|lan -+            wan|------|to-r1        to-r2|------|wan            +- lan|---|eth0   |
//!  +-------+   |     br0             |      +------------------+      |             br0     |   +-------+
//!   .20        |gretap1 -+           |                                |           +- gretap1|    .10
//!              +---------------------+                                +---------------------+
//!                          10.56.88.66      10.56.88.1               192.168.22.196
//!                                                   192.168.22.1
//!                      2001:db8:56::66      ::1                ::1    2001:db8:22::196
//! ```
//! PC1 and PC2 are both in 192.168.110.0/24. The gateways have no address there: they bridge, and do not route.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::SOON,
    ipv6,
    namespace::Namespace,
    process::wait_until,
    topology::{R1_WAN, R2_WAN, like_wire, wire},
    traffic::{ping_all, ping_until_answered},
    xgre::{Daemon, xgre},
};

pub const PC1: &str = "192.168.110.20";
pub const PC2: &str = "192.168.110.10";
/// The tunnel's device on both gateways.
pub const TUNNEL: &str = "gretap1";
/// The gateways' ends of a tunnel over IPv4.
pub const OVER_IPV4: [&str; 2] = [R1_WAN, R2_WAN];
/// And of one over IPv6.
pub const OVER_IPV6: [&str; 2] = [ipv6::R1_WAN, ipv6::R2_WAN];

pub struct Lan {
    pub pc1: Namespace,
    pub r1: Namespace,
    pub router: Namespace,
    pub r2: Namespace,
    pub pc2: Namespace,
}

impl Lan {
    /// The wires and the underlay: there is neither tunnel nor bridge, and PC1 and PC2 have no addresses.
    pub fn bare() -> Result<Self> {
        let lan = Self {
            pc1: Namespace::new("pc1")?,
            r1: Namespace::new("r1")?,
            router: Namespace::new("router")?,
            r2: Namespace::new("r2")?,
            pc2: Namespace::new("pc2")?,
        };
        wire((&lan.pc1, "eth0"), (&lan.r1, "lan"))?;
        wire((&lan.r1, "wan"), (&lan.router, "to-r1"))?;
        wire((&lan.router, "to-r2"), (&lan.r2, "wan"))?;
        wire((&lan.r2, "lan"), (&lan.pc2, "eth0"))?;
        for (namespace, device) in
            [(&lan.pc1, "eth0"), (&lan.router, "to-r1"), (&lan.router, "to-r2"), (&lan.pc2, "eth0")]
        {
            like_wire(namespace, device)?;
        }
        for (namespace, device, v4, v6) in [
            (&lan.r1, "wan", R1_WAN, ipv6::R1_WAN),
            (&lan.router, "to-r1", "10.56.88.1", ipv6::ROUTER_TO_R1),
            (&lan.router, "to-r2", "192.168.22.1", ipv6::ROUTER_TO_R2),
            (&lan.r2, "wan", R2_WAN, ipv6::R2_WAN),
        ] {
            ipv6::enable_on(namespace, device)?;
            namespace.ip(&format!("addr add {v4}/24 dev {device}"))?;
            namespace.ip(&format!("addr add {v6}/64 dev {device} nodad"))?;
        }
        for (gateway, v4, v6) in [
            (&lan.r1, "10.56.88.1", ipv6::ROUTER_TO_R1),
            (&lan.r2, "192.168.22.1", ipv6::ROUTER_TO_R2),
        ] {
            gateway.ip(&format!("route add default via {v4}"))?;
            gateway.ip(&format!("route add default via {v6}"))?;
            without_netfilter(gateway)?;
            // Else each bridge reports, now and then, that it listens to other bridges.
            gateway.sysctl("net.ipv4.igmp_link_local_mcast_reports", 0)?;
        }
        lan.router.sysctl("net.ipv4.ip_forward", 1)?;
        lan.router.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        wait_until("the underlay carries a ping", Duration::from_secs(5), || {
            lan.r1.run(&format!("ping -n -c 1 -W 1 {R2_WAN}"))
        })?;
        Ok(lan)
    }

    /// All of it, in the order of the drawing.
    pub fn namespaces(&self) -> [&Namespace; 5] {
        [&self.pc1, &self.r1, &self.router, &self.r2, &self.pc2]
    }

    /// The same, and PC1 and PC2 have their addresses.
    pub fn new() -> Result<Self> {
        let lan = Self::bare()?;
        for (host, address) in [(&lan.pc1, PC1), (&lan.pc2, PC2)] {
            host.ip(&format!("addr add {address}/24 dev eth0"))?;
        }
        Ok(lan)
    }
}

/// The configs of R1 and R2 with a tunnel of Ethernet between these ends, with these lines more.
pub fn both([r1, r2]: [&str; 2], options: &[&str]) -> [Gateway; 2] {
    let to = |local, remote| {
        Gateway::new(local, remote).name(TUNNEL).ethernet().options(options).ports(&["wan", "lan"])
    };
    [to(r1, r2), to(r2, r1)]
}

/// A machine may have bridges' frames pass by netfilter (br_netfilter), which fragments and drops them.
pub fn without_netfilter(gateway: &Namespace) -> Result<()> {
    for key in ["iptables", "ip6tables", "arptables"] {
        if Path::new("/proc/sys/net/bridge").exists() {
            gateway.sysctl(&format!("net.bridge.bridge-nf-call-{key}"), 0)?;
        }
    }
    Ok(())
}

/// Makes the bridge `br0` of the tunnel's device and the LAN's.
pub fn bridge(gateway: &Namespace) -> Result<()> {
    gateway.ip("link add br0 type bridge")?;
    for port in [TUNNEL, "lan"] {
        gateway.ip(&format!("link set {port} master br0"))?;
    }
    gateway.ip("link set br0 up").map(drop)
}

/// The same with the document's words, the tunnel included, `eth0` being `lan` here; returns the commands.
pub fn by_the_document(gateway: &Namespace, local: &str, remote: &str) -> Result<Vec<String>> {
    let tunnel =
        format!("link add gretap1 type gretap remote {remote} local {local} ttl 255 nopmtudisc");
    xgre(gateway, &tunnel)?;
    let mut commands = vec![format!("xgre {tunnel}")];
    for line in [
        "ip link set dev gretap1 up",
        "brctl addbr br0",
        "brctl addif br0 gretap1",
        "brctl addif br0 lan",
        "ip link set br0 up",
    ] {
        gateway.run(line)?;
        commands.push(line.into());
    }
    Ok(commands)
}

/// A daemon on each gateway.
pub struct Bridged {
    pub r1: Daemon,
    pub r2: Daemon,
    pub lan: Lan,
}

/// What a tunnel has carried, in whichever tier: frames, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    pub rx: u64,
    pub tx: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub drops: u64,
}

impl Carried {
    /// As many frames of this length each way.
    pub fn both_ways(frames: u64, len: u64) -> Self {
        let bytes = frames * len;
        Self { rx: frames, tx: frames, rx_bytes: bytes, tx_bytes: bytes, drops: 0 }
    }

    /// So many pings of the default size and their answers, 14 bytes longer each than its IP packet.
    pub fn pings(count: u64) -> Self {
        Self::both_ways(count, 98)
    }
}

impl From<Packets> for Carried {
    fn from(packets: Packets) -> Self {
        let Packets { rx_bytes, tx_bytes, drops, .. } = packets;
        Self { rx: packets.rx(), tx: packets.tx(), rx_bytes, tx_bytes, drops }
    }
}

impl Bridged {
    /// Both daemons with these configs, and XDP in this mode on every port. There are no bridges.
    pub fn start(lan: Lan, xdp: Xdp, configs: [Gateway; 2]) -> Result<Self> {
        let [r1, r2] = configs.map(|config| config.xdp(xdp));
        Ok(Self { r1: Daemon::start(&lan.r1, &r1)?, r2: Daemon::start(&lan.r2, &r2)?, lan })
    }

    /// One LAN over a tunnel between these ends, with these lines in the configs.
    pub fn joined(xdp: Xdp, ends: [&str; 2], options: &[&str]) -> Result<Self> {
        let bridged = Self::start(Lan::new()?, xdp, both(ends, options))?;
        bridged.bridge()?;
        bridged.settle()?;
        Ok(bridged)
    }

    /// Makes both bridges.
    pub fn bridge(&self) -> Result<()> {
        self.gateways().into_iter().try_for_each(bridge)
    }

    /// R1 and R2.
    pub fn gateways(&self) -> [&Namespace; 2] {
        [&self.lan.r1, &self.lan.r2]
    }

    /// Waits until PC1 and PC2 know each other, and nothing but their pings is in the tunnel.
    pub fn settle(&self) -> Result<()> {
        let Lan { pc1, pc2, .. } = &self.lan;
        ping_until_answered(pc1, PC2, SOON)?;
        ping_until_answered(pc2, PC1, SOON)?;
        // Else the kernels ask again in a while whether the other is still there, and that counts.
        for (host, address) in [(pc1, PC2), (pc2, PC1)] {
            let mac = neighbour(host, address)?;
            host.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"))?;
        }
        wait_until("pings alone are in the tunnel", SOON, || {
            let found = self.during(|| ping_all(pc1, PC2, 2))?;
            ensure!(found == [Carried::pings(2); 2], "{found:?}");
            Ok(())
        })
    }

    /// What R1 and R2 have carried while something was done.
    pub fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<[Carried; 2]> {
        let read = || -> Result<_> { Ok([self.r1.packets(TUNNEL)?, self.r2.packets(TUNNEL)?]) };
        let before = read()?;
        work()?;
        let after = read()?;
        Ok([(after[0] - before[0]).into(), (after[1] - before[1]).into()])
    }
}

/// The hardware address of a neighbour, as a host has learned it.
pub fn neighbour(host: &Namespace, address: &str) -> Result<String> {
    let text = host.ip(&format!("neigh show {address} dev eth0"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
    let found = words.nth(1).map(str::to_owned);
    found.with_context(|| format!("{address} is not resolved: {text}"))
}
