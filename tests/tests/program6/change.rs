//! Changes of the world, for the tables.

use std::net::IpAddr;

use gre_ebpf_common::{
    demux::{Key, Kind},
    next_hop::{self, NextHop},
    port::{self, Port},
    route::Entry,
    tunnel::{self, Addresses6, Tunnel},
    wire::vlan::{Tag, VlanKey},
};
use gre_userspace::dataplane::DataPlane;

use crate::world::{Spec, both, ends, words};

/// Routes the prefix around `address`.
pub fn route(plane: &mut DataPlane, address: IpAddr, len: u8, entry: Entry) {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            plane.routes.insert((u32::from(address) & mask, len), entry);
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            plane.routes6.insert((u128::from(address) & mask, len), entry);
        }
    }
}

/// A host on a link whose prefix says `HOSTS`.
pub fn host6(plane: &mut DataPlane, address: IpAddr, entry: Entry) {
    let IpAddr::V6(address) = address else { panic!("{address} is not IPv6") };
    plane.hosts6.insert(address.into(), entry.to_word());
}

pub fn tunnel(plane: &mut DataPlane, spec: Spec) -> &mut Tunnel {
    plane.tunnels.get_mut(&spec.id).expect("the world has the tunnel")
}

pub fn tunnel_flag(plane: &mut DataPlane, spec: Spec, flag: tunnel::Flags, on: bool) {
    let flags = &mut tunnel(plane, spec).flags;
    *flags = tunnel::Flags(flags.0 & !flag.0).with(flag, on);
}

pub fn next_hop(plane: &mut DataPlane, id: u32) -> &mut NextHop {
    plane.next_hops.get_mut(&id).expect("the world has the next hop")
}

/// The next hop is on a VLAN of these tags.
pub fn tag(plane: &mut DataPlane, id: u32, tags: &[(u16, u16)]) {
    next_hop(plane, id).tags = in_record(tags);
}

/// TPID and VLAN id, as the maps have them.
fn in_record(tags: &[(u16, u16)]) -> [Tag; 2] {
    let mut found = [Tag::NONE; 2];
    for (slot, &(tpid, id)) in found.iter_mut().zip(tags) {
        *slot = Tag::new(tpid, id);
    }
    found
}

/// Frames with these tags on a port are those of a VLAN device, which has the port's MAC address.
pub fn vlan(plane: &mut DataPlane, port: u32, tags: &[(u16, u16)], mac: [u8; 6], device: u32) {
    vlan_with(plane, port, tags, Port::new(mac, both(), device));
}

pub fn vlan_with(plane: &mut DataPlane, port: u32, tags: &[(u16, u16)], device: Port) {
    plane.vlans.insert(VlanKey::new(port, in_record(tags)), device);
}

pub fn port_flag(plane: &mut DataPlane, ifindex: u32, flag: port::Flags, on: bool) {
    let port = plane.ports.get_mut(&ifindex).expect("the world has the port");
    port.flags = port::Flags(port.flags.0 & !flag.0).with(flag, on);
}

pub fn unresolved(plane: &mut DataPlane, id: u32) {
    next_hop(plane, id).flags = next_hop::Flags::NATIVE_REDIRECT;
}

/// The tunnel is found by other addresses, of which any may be any; those that it sends with stay.
pub fn ends_are(plane: &mut DataPlane, spec: Spec, local: IpAddr, remote: IpAddr) {
    plane.demux.retain(|_, &mut id| id != spec.id);
    for kind in [spec.kind(), Kind::PAIR] {
        plane.demux.insert(Key { ends: ends(local, remote), kind, link: 0 }, spec.id);
    }
    tunnel_flag(plane, spec, tunnel::Flags::LOCAL_ANY, local.is_unspecified());
    tunnel_flag(plane, spec, tunnel::Flags::REMOTE_ANY, remote.is_unspecified());
    match (local, remote) {
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let addresses = Addresses6 { local: words(local), remote: words(remote) };
            plane.addresses6.insert(spec.id, addresses);
        }
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let record = tunnel(plane, spec);
            record.outer[3] = u32::from_ne_bytes(local.octets());
            record.outer[4] = u32::from_ne_bytes(remote.octets());
        }
        _ => panic!("{local} and {remote} are of different versions"),
    }
}

/// An address of the gateway's own.
pub fn own(plane: &mut DataPlane, address: IpAddr, any: IpAddr) {
    plane.demux.insert(Key { ends: ends(address, any), kind: Kind::ADDRESS, link: 0 }, 0);
}
