//! Small worlds for unit tests.

use crate::{
    model::{Address, Desired, Mode, Tunnel},
    observed::{Bridge, BridgePort, FilterChain, FilterFamily, FilterHook, KernelTunnel, Link},
};

pub fn link(ifindex: u32, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
        mtu: 1500,
        up: true,
        loopback: false,
        kind: None,
        link: None,
        vlan: None,
        tunnel: None,
        master: None,
        bridge: None,
        bridge_port: None,
        alias: None,
        xdp: None,
        forwarding: true,
        forwarding6: true,
        rp_filter: 0,
        xdp_features: Some(crate::observed::xdp_features::NDO_XMIT),
    }
}

/// A veth with this alias, and its other end with the next index.
pub fn veth(ifindex: u32, name: &str, alias: &str) -> [Link; 2] {
    let end = |ifindex, name: &str, other| {
        let kind = Some("veth".to_owned());
        Link { kind, link: Some(other), ..link(ifindex, name) }
    };
    let device = Link { alias: Some(alias.to_owned()), ..end(ifindex, name, ifindex + 1) };
    [device, end(ifindex + 1, "peer", ifindex)]
}

/// A bridge as `ip link add` makes it, up, whose frames netfilter does not see.
pub fn bridge(ifindex: u32, name: &str) -> Link {
    let bridge = Bridge {
        ageing_time: 300_000,
        vlan_filtering: false,
        vlan_protocol: 0x8100,
        multiple_spanning_trees: false,
        netfilter: false,
    };
    Link { kind: Some("bridge".to_owned()), bridge: Some(bridge), ..link(ifindex, name) }
}

/// The link as a member of a bridge, which forwards for it.
pub fn member(link: Link, bridge: u32) -> Link {
    let port = BridgePort { forwarding: true, learning: true, special: None };
    Link { master: Some(bridge), bridge_port: Some(port), ..link }
}

pub fn address(local: &str) -> Address {
    Address { local: local.parse().unwrap(), peer: None }
}

/// From 192.0.2.1 to 198.51.100.1.
pub fn tunnel(name: &str) -> Tunnel {
    let (local, remote) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
    Tunnel { ttl: 64, up: true, ..Tunnel::new(name, Mode::Gre, local, remote) }
}

/// The kernel's own device between the same ends, as it tells of it.
pub fn gre(name: &str) -> KernelTunnel {
    let number = name.bytes().last().unwrap_or_default();
    let tunnel = Tunnel { ikey: Some(number.into()), up: false, ..tunnel(name) };
    KernelTunnel { tunnel, beyond: Vec::new(), qdisc: None, filtered: false }
}

pub fn desired<const N: usize>(tunnels: [Tunnel; N]) -> Desired {
    let tunnels = tunnels.into_iter().map(|tunnel| (tunnel.name.clone(), tunnel)).collect();
    Desired { tunnels, ..Desired::default() }
}

/// Chain `c` of table `t`, with one rule.
pub fn filter_chain(family: FilterFamily, hook: FilterHook) -> FilterChain {
    FilterChain {
        family,
        table: "t".to_owned(),
        name: "c".to_owned(),
        hook,
        legacy: false,
        rules: 1,
        drops: false,
        devices: Vec::new(),
    }
}
