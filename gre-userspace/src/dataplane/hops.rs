//! Next hops: where packets leave, and with which Ethernet header.

use std::net::IpAddr;

use gre_ebpf_common::{
    next_hop::{self, NextHop},
    wire::vlan::Tag,
};

use super::{Attachment, Compiler};
use crate::observed::{Link, Snapshot, xdp_features};

/// A neighbour on a link, as a route names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    pub ifindex: u32,
    pub ip: IpAddr,
    /// The route's own MTU (RTAX_MTU), in bytes.
    pub mtu: Option<u32>,
}

/// What a next hop id stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HopKey {
    Neighbour(Hop),
    /// The same for tunnels whose packets must go through the kernel: to XDP it is never resolved.
    ByKernel(Hop),
    /// The way to a tunnel's own device.
    Device(String),
    /// The way out of a port, by interface index, for frames that keep their addresses.
    Port(u32),
}

impl Compiler<'_> {
    /// The id of a neighbour, whose record is made if it is new. Without a MAC address the record
    /// still names the interface, which is all that tier 2 needs.
    pub(super) fn neighbour(&mut self, hop: Hop) -> u32 {
        self.next_hop(HopKey::Neighbour(hop), hop, true)
    }

    /// The same, for tier 2 and 3 only.
    pub(super) fn by_kernel(&mut self, hop: Hop) -> u32 {
        self.next_hop(HopKey::ByKernel(hop), hop, false)
    }

    fn next_hop(&mut self, key: HopKey, hop: Hop, for_xdp: bool) -> u32 {
        let id = self.allocated.next_hops.get(&key) + 1;
        let Some(link) = self.snapshot.links.get(&hop.ifindex) else { return id };
        let mtu = hop.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let destination = self.macs.get(&(hop.ifindex, hop.ip)).copied();
        let base = wire(self.snapshot, hop.ifindex)
            .and_then(|(base, tags)| Some((self.snapshot.links.get(&base)?, tags)));
        let record = match (destination, link.mac, base) {
            (Some(destination), Some(source), Some((base, tags))) => {
                let attachment = self.ports.get(&base.ifindex).copied();
                let ready = for_xdp && link.up && base.up && !self.is_tunnel(hop.ifindex);
                let flags = redirects(base, attachment).with(next_hop::Flags::RESOLVED, ready);
                self.plane.tx_ports.insert(base.ifindex);
                NextHop { tags, ..NextHop::new(destination, source, base.ifindex, mtu, flags) }
            }
            _ => NextHop::new([0; 6], [0; 6], hop.ifindex, mtu, next_hop::Flags::default()),
        };
        self.plane.next_hops.insert(id, record);
        id
    }

    /// The id of the way out of a port for frames that keep their addresses.
    pub(super) fn port_hop(&mut self, port: &Link) -> u32 {
        let id = self.allocated.next_hops.get(&HopKey::Port(port.ifindex)) + 1;
        let attachment = self.ports.get(&port.ifindex).copied();
        let flags = redirects(port, attachment).with(next_hop::Flags::RESOLVED, true);
        let record = NextHop::new([0; 6], [0; 6], port.ifindex, port.mtu, flags);
        self.plane.next_hops.insert(id, record);
        self.plane.tx_ports.insert(port.ifindex);
        id
    }

    /// The id of the way to a tunnel's device: out of its peer, addressed to it.
    pub(super) fn device(&mut self, name: &str, device: &Link, peer: &Link) -> u32 {
        let id = self.allocated.next_hops.get(&HopKey::Device(name.to_owned())) + 1;
        let mac = |link: &Link| link.mac.unwrap_or_default();
        let flags = redirects(peer, None)
            .with(next_hop::Flags::RESOLVED, true)
            // Where the kernel does not say: GRO is on at the device, since we turned it on.
            .with(next_hop::Flags::NATIVE_REDIRECT, is_unsure(peer));
        let record = NextHop::new(mac(device), mac(peer), peer.ifindex, 65_535, flags);
        self.plane.next_hops.insert(id, record);
        self.plane.tx_ports.insert(peer.ifindex);
        id
    }
}

/// The interface that a link's frames are sent on, and the tags they have there, outer first: itself
/// and none, unless it is a VLAN device. `None` where there are more than two tags.
pub fn wire(snapshot: &Snapshot, ifindex: u32) -> Option<(u32, [Tag; 2])> {
    let mut tags = [Tag::NONE; 2];
    let mut link = snapshot.links.get(&ifindex)?;
    while let Some(vlan) = link.vlan {
        if tags[1] != Tag::NONE {
            return None;
        }
        tags = [Tag::new(vlan.protocol, vlan.id), tags[0]];
        link = snapshot.links.get(&link.link?)?;
    }
    Some((link.ifindex, tags))
}

/// What can be redirected out of a device with this attachment. Kernels that do not say of frames in
/// several buffers redirect none (before 6.3).
fn redirects(link: &Link, attachment: Option<Attachment>) -> next_hop::Flags {
    let in_pieces = link.xdp_features.is_some_and(|bits| bits & xdp_features::NDO_XMIT_SG != 0);
    next_hop::Flags::default()
        .with(next_hop::Flags::NATIVE_REDIRECT, can_redirect(link, attachment))
        .with(next_hop::Flags::REDIRECT_IN_PIECES, in_pieces)
}

/// Whether frames that XDP received natively can be redirected out of the device, which is a port
/// with this attachment or none.
///
/// Where the kernel does not say, it is taken for granted, except on bonds and on veth. There it depends on the
/// other end: there only a port that XDP runs on natively, which then the config asks for in so many
/// words (see [`is_unsure`]), is trusted.
pub fn can_redirect(link: &Link, attachment: Option<Attachment>) -> bool {
    match link.xdp_features {
        Some(features) => features & xdp_features::NDO_XMIT != 0,
        None if is_of_several(link) => false,
        None => !is_unsure(link) || attachment == Some(Attachment::Native),
    }
}

/// A bond or a team. Native XDP sees its frames as come in on a member, which is not a port; generic XDP after
/// the kernel has taken their VLAN tags out, and so as of no VLAN. Whether it can send depends on its members.
pub fn is_of_several(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("bond" | "team"))
}

/// A veth on a kernel before 6.3, which has no family "netdev" to say whether the other end receives
/// what is redirected to it. What it does not receive is lost, and counted nowhere: `xdp = "auto"` is
/// then generic, which can send anywhere.
pub fn is_unsure(link: &Link) -> bool {
    link.xdp_features.is_none() && link.kind.as_deref() == Some("veth")
}

/// What to do where [`can_redirect`] says no.
pub fn no_redirect(link: &Link) -> &'static str {
    match link.kind.as_deref() {
        Some("veth") => "turn GRO on at the other end of this veth (`ethtool -K PEER gro on`)",
        _ => "its driver cannot transmit redirected frames (ndo_xdp_xmit)",
    }
}
