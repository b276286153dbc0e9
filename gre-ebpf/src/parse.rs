//! From a frame to the IP packet in it that a router may handle.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap},
};
use gre_ebpf_common::{
    counters::Tier,
    outcome::Outcome,
    port::{Flags, Port},
    wire::{
        ethernet::{self, ETHERTYPE_IPV4},
        ipv4::{self, Ipv4Header},
        ipv6::{self, Ipv6Header},
        vlan::{self, TAG_LEN, Tag, VlanKey},
    },
};

use crate::{bridge, packet::Packet, verifier::forget};

/// Interface index to port.
#[map]
static PORTS: Array<Port> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Port and VLAN tags to the VLAN device, as a port.
#[map]
static VLANS: HashMap<VlanKey, Port> = HashMap::with_max_entries(1, 0);

/// The port or tunnel device with this interface index; none where `xgre` has nothing to do.
#[inline(always)]
pub fn port(ifindex: u32) -> Option<&'static Port> {
    PORTS.get(ifindex).filter(|port| port.flags.has(Flags::VALID))
}

/// The port that a frame came in on, if the frame is its bridge's to forward: it is not for the port.
#[inline(always)]
pub fn bridged(packet: &Packet, ifindex: u32) -> Option<&'static Port> {
    let port = port(ifindex).filter(|port| bridge::is_member(port))?;
    let start = packet.read(0)?;
    (!port.mac.is_destination(start)).then_some(port)
}

/// How a frame came in.
pub struct Frame {
    /// The port, or the VLAN device on it.
    pub port: &'static Port,
    /// Of the port itself.
    pub ifindex: u32,
    pub tags: [Tag; 2],
    /// Bytes before the IP header.
    pub header_len: usize,
    /// In memory order.
    pub ethertype: u16,
    /// Of the program that looks at it.
    pub tier: Tier,
}

/// The frame's way in, where it is addressed to a port or a VLAN device on one.
#[inline(always)]
pub fn frame<const ANY: bool>(tier: Tier, packet: &Packet, ifindex: u32) -> Result<Frame, Outcome> {
    let port = port(ifindex).ok_or(Outcome::UnknownPort)?;
    let ethertype = packet.read(ethernet::ETHERTYPE_OFFSET).ok_or(Outcome::NotIp)?;
    let start = packet.read(0).ok_or(Outcome::NotIp)?;
    let header_len = ethernet::HEADER_LEN;
    let mut frame = Frame { port, ifindex, tags: [Tag::NONE; 2], header_len, ethertype, tier };
    if !ANY && ethertype != ETHERTYPE_IPV4 {
        let bridged = bridge::is_member(port) && !port.mac.is_destination(start);
        return Err(if bridged { Outcome::DetourOfFrames } else { Outcome::Detour });
    }
    if vlan::is_tag(ethertype) {
        tagged(packet, &mut frame)?;
    }
    if ANY {
        frame.header_len = forget(frame.header_len, packet.len());
    }
    if !frame.port.mac.is_destination(start) {
        if !ANY && bridge::is_member(frame.port) {
            return Err(Outcome::DetourOfFrames);
        }
        return Err(Outcome::OtherHost);
    }
    Ok(frame)
}

/// Takes up to two tags off, and finds the VLAN device that they name.
#[inline(always)]
fn tagged(packet: &Packet, frame: &mut Frame) -> Result<(), Outcome> {
    for depth in 0..2 {
        if !vlan::is_tag(frame.ethertype) {
            break;
        }
        let [control, inner]: [u16; 2] =
            packet.read(ethernet::HEADER_LEN + depth * TAG_LEN).ok_or(Outcome::NotIp)?;
        frame.tags[depth] = Tag::from_frame(frame.ethertype, control);
        frame.ethertype = inner;
        frame.header_len += TAG_LEN;
    }
    let key = VlanKey::new(frame.ifindex, frame.tags);
    // SAFETY: an entry that is replaced meanwhile is still a port.
    let port = unsafe { VLANS.get(&key) };
    frame.port = port.filter(|port| port.flags.has(Flags::VALID)).ok_or(Outcome::VlanUnknown)?;
    Ok(())
}

/// The IPv4 header of a packet, if it is whole, right and without options.
#[inline(always)]
pub fn plain_ipv4(packet: &Packet, frame: &Frame) -> Option<Ipv4Header> {
    let header: Ipv4Header = packet.read(frame.header_len)?;
    let len = u32::from(header.total_len());
    let right = header.is_plain()
        && header.checksum_is_right()
        && len >= ipv4::HEADER_LEN as u32
        && packet.len() >= frame.header_len as u32 + len;
    right.then_some(header)
}

/// The IPv4 header of a packet, whole and without options.
#[inline(always)]
pub fn ipv4(packet: &Packet, frame: &Frame) -> Result<Ipv4Header, Outcome> {
    let header = ipv4_with_options(packet, frame)?;
    if !header.is_plain() {
        return Err(Outcome::Ipv4Options);
    }
    Ok(header)
}

/// The start of the IPv4 header of a packet that is whole. Where there are options its checksum is
/// left to whoever handles them.
#[inline(always)]
pub fn ipv4_with_options(packet: &Packet, frame: &Frame) -> Result<Ipv4Header, Outcome> {
    let header: Ipv4Header = packet.read(frame.header_len).ok_or(Outcome::Ipv4Malformed)?;
    let len = u32::from(header.total_len());
    let right = if header.is_plain() {
        header.checksum_is_right()
    } else {
        header.version() == 4 && header.header_len() > ipv4::HEADER_LEN
    };
    if !right || len < header.header_len() as u32 || packet.len() < frame.header_len as u32 + len {
        return Err(Outcome::Ipv4Malformed);
    }
    Ok(header)
}

/// The IPv6 header of a packet that is whole.
#[inline(always)]
pub fn ipv6(packet: &Packet, frame: &Frame) -> Result<Ipv6Header, Outcome> {
    let header: Ipv6Header = packet.read(frame.header_len).ok_or(Outcome::Ipv6Malformed)?;
    let len = ipv6::HEADER_LEN as u32 + u32::from(header.payload_len());
    if header.version() != 6 || packet.len() < frame.header_len as u32 + len {
        return Err(Outcome::Ipv6Malformed);
    }
    Ok(header)
}
