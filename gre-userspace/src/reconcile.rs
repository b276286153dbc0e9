//! What has to be done so that the programs run where they should. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    dataplane::{Attachment, bridges_of_tunnels, devices, is_device, is_vrf, wire},
    model::{Desired, Tunnel, XdpMode},
    observed::{Link, Snapshot, is_link_local},
    rib::Rib,
};

/// Interfaces that the programs are attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attached {
    pub ports: BTreeMap<u32, AttachedPort>,
    /// Devices of tunnels, with their other ends.
    pub devices: BTreeMap<u32, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedPort {
    /// As asked for.
    pub mode: XdpMode,
    /// As it is.
    pub attachment: Attachment,
    /// Why it is no better.
    pub note: Option<String>,
}

/// One step of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AttachPort {
        ifindex: u32,
        name: String,
        mode: XdpMode,
    },
    AttachDevice {
        ifindex: u32,
        name: String,
        peer: u32,
        peer_name: String,
    },
    /// The interface is no port any more, or gone.
    Detach {
        ifindex: u32,
    },
}

/// The steps that lead from what is attached to what should be.
pub fn reconcile(desired: &Desired, snapshot: &Snapshot, attached: &Attached) -> Vec<Change> {
    let ports = ports(desired, snapshot);
    let devices: BTreeMap<u32, _> = devices(desired, snapshot)
        .into_values()
        .map(|device| (device.link.ifindex, device))
        .collect();

    let stale_ports = attached
        .ports
        .keys()
        .copied()
        // What is to run in another mode goes on until it does.
        .filter(|ifindex| !ports.contains_key(ifindex));
    let stale_devices = attached
        .devices
        .iter()
        .filter(|(ifindex, _)| !devices.contains_key(ifindex))
        .flat_map(|(&ifindex, &peer)| [ifindex, peer]);
    let detach = stale_ports.chain(stale_devices).map(|ifindex| Change::Detach { ifindex });

    let attach_ports = ports
        .iter()
        .filter(|(ifindex, (_, mode))| {
            attached.ports.get(ifindex).is_none_or(|port| port.mode != *mode)
        })
        .map(|(&ifindex, (name, mode))| Change::AttachPort {
            ifindex,
            name: name.clone(),
            mode: *mode,
        });
    let attach_devices = devices
        .iter()
        .filter(|(ifindex, _)| !attached.devices.contains_key(ifindex))
        .filter_map(|(ifindex, device)| Some((*ifindex, device, device.peer?)))
        .map(|(ifindex, device, peer)| Change::AttachDevice {
            ifindex,
            name: device.link.name.clone(),
            peer: peer.ifindex,
            peer_name: peer.name.clone(),
        });
    detach.chain(attach_devices).chain(attach_ports).collect()
}

/// The interfaces that should be ports, with their names and modes: those of the config, or else
/// every Ethernet interface that has an address, and those that a bridge joins to a tunnel.
pub fn ports(desired: &Desired, snapshot: &Snapshot) -> BTreeMap<u32, (String, XdpMode)> {
    let is_ours = |link: &Link| {
        let peer = link.link.and_then(|peer| snapshot.links.get(&peer));
        is_device(link) || peer.is_some_and(is_device) || link.tunnel.is_some()
    };
    // Every interface with IPv6 has a link-local address.
    let has_address = |link: &Link| {
        let mut addresses = snapshot.addresses.get(&link.ifindex).into_iter().flatten();
        addresses.any(|address| !is_link_local(address.local.addr()))
    };
    // A VLAN device's frames arrive on another interface.
    let bases: BTreeSet<u32> = snapshot
        .links
        .values()
        .filter(|link| link.vlan.is_some() && has_address(link))
        .filter_map(|link| Some(wire(snapshot, link.ifindex)?.0))
        .collect();
    let bridges = bridges_of_tunnels(desired, snapshot);
    let is_joined = |link: &Link| {
        link.vlan.is_none() && link.master.is_some_and(|master| bridges.contains(&master))
    };
    let mode = |link: &Link| {
        if desired.ports.is_empty() {
            let is_port = has_address(link) || bases.contains(&link.ifindex) || is_joined(link);
            is_port.then_some(XdpMode::Auto)
        } else {
            desired.ports.get(&link.name).copied()
        }
    };
    snapshot
        .links
        .values()
        .filter(|link| !link.loopback && link.mac.is_some() && !is_vrf(link) && !is_ours(link))
        .filter_map(|link| Some((link.ifindex, (link.name.clone(), mode(link)?))))
        .collect()
}

/// What the underlay of a tunnel may be assumed to take where no route tells, in bytes.
const DEFAULT_UNDERLAY_MTU: u32 = 1500;
/// The longest packet of the kernel's tunnels (IP_MAX_MTU less a margin; ip_tunnel.c), in bytes.
const LARGEST_UNDERLAY_MTU: u32 = 65_520;
/// The smallest MTU of a tunnel over IPv4 and over IPv6, in bytes, as in the kernel.
const SMALLEST_MTU: u32 = 68;
const SMALLEST_MTU6: u32 = 1280;

/// The MTU of a tunnel's device where none is configured: the underlay's less the encapsulation, as
/// in the kernel (ip_tunnel_bind_dev).
pub fn default_mtu(tunnel: &Tunnel, snapshot: &Snapshot) -> u32 {
    let link = |name: &String| snapshot.links.values().find(|link| link.name == *name);
    let bound = || tunnel.dev.as_ref().and_then(link).map(|link| link.mtu);
    let underlay =
        underlay_mtu(tunnel.remote, snapshot).or_else(bound).unwrap_or(DEFAULT_UNDERLAY_MTU);
    let smallest = if tunnel.mode.is_over_ipv6() { SMALLEST_MTU6 } else { SMALLEST_MTU };
    underlay.min(LARGEST_UNDERLAY_MTU).saturating_sub(tunnel.overhead()).max(smallest)
}

fn underlay_mtu(remote: IpAddr, snapshot: &Snapshot) -> Option<u32> {
    let via = Rib::new(snapshot).via(remote)?;
    let link = snapshot.links.get(&via.ifindex)?;
    // A route into the tunnel itself says nothing about the underlay.
    (!is_device(link)).then(|| via.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Mode,
        observed::{Route, RouteTarget, Vlan},
        testing::{address, bridge, desired, link, member, tunnel, veth},
    };

    /// lo, a port with an address, one without, a tunnel's device and its peer.
    fn snapshot() -> Snapshot {
        let mut lo = link(1, "lo");
        lo.loopback = true;
        let [device, peer] = veth(4, "tunnel0", "xgre tunnel mode gre");
        let links = [lo, link(2, "eth0"), link(3, "eth1"), device, peer];
        let addresses = [1, 2, 4].map(|ifindex| (ifindex, vec![address("192.0.2.1/24")]));
        Snapshot {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            addresses: addresses.into(),
            ..Snapshot::default()
        }
    }

    fn names(desired: &Desired, snapshot: &Snapshot) -> Vec<String> {
        ports(desired, snapshot).into_values().map(|(name, _)| name).collect()
    }

    #[test]
    fn ports_are_the_ethernet_interfaces_with_an_address_and_no_device_of_a_tunnel() {
        assert_eq!(names(&desired([tunnel("tunnel0")]), &snapshot()), ["eth0"]);
        assert_eq!(names(&Desired::default(), &snapshot()), ["eth0"], "nor of a forgotten tunnel");
    }

    #[test]
    fn a_vrf_is_no_port_for_what_it_has_came_in_on_a_member() {
        let mut with_vrf = snapshot();
        with_vrf.links.get_mut(&2).unwrap().kind = Some("vrf".to_owned());
        assert!(names(&Desired::default(), &with_vrf).is_empty());
    }

    #[test]
    fn what_a_bridge_joins_to_a_tunnel_of_ethernet_is_a_port() {
        let mut joined = snapshot();
        joined.links.insert(10, bridge(10, "br0"));
        for ifindex in [3, 4] {
            let link = joined.links[&ifindex].clone();
            joined.links.insert(ifindex, member(link, 10));
        }
        let of_mode = |mode| desired([Tunnel { mode, ..tunnel("tunnel0") }]);
        assert_eq!(names(&of_mode(Mode::Gretap), &joined), ["eth0", "eth1"]);
        assert_eq!(names(&of_mode(Mode::Gre), &joined), ["eth0"], "it carries no frames");

        let mut asked = of_mode(Mode::Gretap);
        asked.ports.insert("eth0".to_owned(), XdpMode::Auto);
        assert_eq!(names(&asked, &joined), ["eth0"], "the config names others");

        let vlan = Some(Vlan { id: 7, protocol: 0x8100 });
        joined.links.get_mut(&3).unwrap().vlan = vlan;
        assert_eq!(names(&of_mode(Mode::Gretap), &joined), ["eth0"], "frames arrive below it");
    }

    #[test]
    fn configured_ports_are_the_only_ones_and_need_no_address() {
        let mut desired = desired([]);
        desired.ports.insert("eth1".to_owned(), XdpMode::Generic);
        assert_eq!(names(&desired, &snapshot()), ["eth1"]);
    }

    #[test]
    fn steps_lead_to_the_wanted_state_and_then_there_are_none() {
        let desired = desired([tunnel("tunnel0")]);
        let mut attached = Attached::default();
        let steps = reconcile(&desired, &snapshot(), &attached);
        assert_eq!(
            steps,
            [
                Change::AttachDevice {
                    ifindex: 4,
                    name: "tunnel0".to_owned(),
                    peer: 5,
                    peer_name: "peer".to_owned(),
                },
                Change::AttachPort { ifindex: 2, name: "eth0".to_owned(), mode: XdpMode::Auto },
            ]
        );
        let attachment = Attachment::Native;
        let port = AttachedPort { mode: XdpMode::Auto, attachment, note: None };
        attached.ports.insert(2, port);
        attached.devices.insert(4, 5);
        assert_eq!(reconcile(&desired, &snapshot(), &attached), []);

        let mut otherwise = desired.clone();
        otherwise.ports.insert("eth0".to_owned(), XdpMode::Off);
        let again = Change::AttachPort { ifindex: 2, name: "eth0".to_owned(), mode: XdpMode::Off };
        assert_eq!(reconcile(&otherwise, &snapshot(), &attached), [again], "TC goes on meanwhile");

        let mut without = snapshot();
        without.links.remove(&4);
        without.addresses.remove(&2);
        assert_eq!(
            reconcile(&desired, &without, &attached),
            [2, 4, 5].map(|ifindex| Change::Detach { ifindex })
        );
    }

    #[test]
    fn the_default_mtu_is_the_underlays_less_the_encapsulation() {
        let mut snapshot = snapshot();
        let mut keyed = tunnel("tunnel0");
        keyed.okey = Some(1);
        assert_eq!(default_mtu(&tunnel("tunnel0"), &snapshot), 1476, "no route: 1500 is assumed");
        snapshot.links.get_mut(&2).unwrap().mtu = 9000;
        snapshot.routes = vec![Route {
            table: 254,
            destination: "0.0.0.0/0".parse().unwrap(),
            tos: 0,
            metric: 0,
            target: RouteTarget::Unicast { ifindex: 2, gateway: None, prefsrc: None, mtu: None },
        }];
        assert_eq!(default_mtu(&tunnel("tunnel0"), &snapshot), 8976);
        assert_eq!(default_mtu(&keyed, &snapshot), 8972);
        snapshot.routes[0].target =
            RouteTarget::Unicast { ifindex: 4, gateway: None, prefsrc: None, mtu: None };
        assert_eq!(default_mtu(&keyed, &snapshot), 1472, "a route into a tunnel says nothing");
    }
}
