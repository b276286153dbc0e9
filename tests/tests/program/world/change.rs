//! Changes of the world, for the tables.

use gre_ebpf_common::{
    next_hop::{self, NextHop},
    port,
    tunnel::{self, Tunnel},
};
use gre_userspace::dataplane::DataPlane;

use super::Spec;

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

pub fn port_flags(plane: &mut DataPlane, ifindex: u32, flags: &[port::Flags]) {
    let port = plane.ports.get_mut(&ifindex).expect("the world has the port");
    port.flags = flags.iter().fold(port::Flags::VALID, |all, &flag| all.with(flag, true));
}

pub fn unresolved(plane: &mut DataPlane, id: u32) {
    next_hop(plane, id).flags = next_hop::Flags::NATIVE_REDIRECT;
}

/// Its driver has no ndo_xdp_xmit.
pub fn without_native_redirect(plane: &mut DataPlane, id: u32) {
    next_hop(plane, id).flags = next_hop::Flags::RESOLVED;
}
