//! Out of a tunnel: what the inner packet must be, and its way on.

use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_redirect, bpf_xdp_adjust_head},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    next_hop,
    outcome::{Outcome, Stop},
    port::Port,
    route::Entry,
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet, gre,
        ipv4::{self, Ipv4Header},
    },
};

use crate::{counters, encap, forward, packet::Packet, tunnels::Received, verdict};

/// The header of the inner packet, which is whole and may be let out of the tunnel.
#[inline(always)]
pub fn inner(packet: &Packet, outer: &Ipv4Header, received: &Received) -> Result<Ipv4Header, Stop> {
    inspect(packet, outer, received).map_err(|outcome| Stop::on(received.id, outcome))
}

#[inline(always)]
fn inspect(
    packet: &Packet,
    outer: &Ipv4Header,
    received: &Received,
) -> Result<Ipv4Header, Outcome> {
    if received.gre.has_checksum() {
        return Err(Outcome::ChecksumUnexpected);
    }
    if received.gre.protocol() != gre::PROTOCOL_IPV4 {
        return Err(Outcome::ProtocolUnsupported);
    }
    let room = u32::from(outer.total_len()).wrapping_sub(received.overhead as u32);
    let inner: Ipv4Header = packet
        .read(ethernet::HEADER_LEN + received.overhead)
        .filter(|_| room >= ipv4::HEADER_LEN as u32 && room <= 0xffff)
        .ok_or(Outcome::InnerTruncated)?;
    if inner.version() != 4 || inner.header_len() < ipv4::HEADER_LEN {
        return Err(Outcome::InnerMalformed);
    }
    if u32::from(inner.total_len()) < inner.header_len() as u32 {
        return Err(Outcome::InnerMalformed);
    }
    if u32::from(inner.total_len()) > room {
        return Err(Outcome::InnerTruncated);
    }
    // With options the kernel, which gets the packet, checks the sum over all of the header.
    if inner.is_plain() && !inner.checksum_is_right() {
        return Err(Outcome::InnerChecksum);
    }
    if inner.source_is_martian() {
        return Err(Outcome::InnerMartian);
    }
    Ok(inner)
}

/// Where the inner packet goes.
enum Way {
    /// To the tunnel's device: it is for this host, or only the kernel can forward it.
    Device,
    NextHop(&'static next_hop::NextHop),
    Tunnel(u32, &'static Tunnel, &'static next_hop::NextHop),
}

#[inline(always)]
fn way(port: &Port, packet: &Packet, received: &Received, inner: &Ipv4Header) -> Result<Way, Stop> {
    let entry = forward::route(inner.destination());
    if entry == Entry::Tunnel(received.id) && inner.destination_is_unicast() {
        return Err(Stop::on(received.id, Outcome::Loop));
    }
    let flags = received.tunnel.flags;
    if !flags.has(Flags::FORWARDING)
        || !inner.is_plain()
        || inner.ttl() <= 1
        || !inner.destination_is_unicast()
    {
        return Ok(Way::Device);
    }
    if flags.has(Flags::REVERSE_PATH_STRICT)
        && forward::route(inner.source()) != Entry::Tunnel(received.id)
        || flags.has(Flags::REVERSE_PATH_LOOSE) && forward::route(inner.source()) == Entry::Punt
    {
        return Ok(Way::Device);
    }
    let len = inner_frame_len(packet, received);
    Ok(match entry {
        Entry::Punt => Way::Device,
        Entry::NextHop(id) => match forward::next_hop(id) {
            Some(next_hop)
                if next_hop.flags.has(next_hop::Flags::RESOLVED)
                    && len <= next_hop.mtu
                    && forward::can_redirect(port, next_hop) =>
            {
                Way::NextHop(next_hop)
            }
            _ => Way::Device,
        },
        Entry::Tunnel(id) => match encap::ready(port, id, len) {
            Ok((tunnel, next_hop)) => Way::Tunnel(id, tunnel, next_hop),
            Err(_) => Way::Device,
        },
    })
}

/// Bytes that are left without the outer header, those behind the inner packet included: a device
/// counts them too.
#[inline(always)]
fn inner_frame_len(packet: &Packet, received: &Received) -> u32 {
    packet.len() - (ethernet::HEADER_LEN + received.overhead) as u32
}

/// XDP: takes the outer header off and sends the packet on.
#[inline(always)]
pub fn xdp(
    ctx: &XdpContext,
    port: &Port,
    packet: &Packet,
    outer: &Ipv4Header,
    received: &Received,
) -> Result<Outcome, Stop> {
    let inner = inner(packet, outer, received)?;
    let len = u32::from(inner.total_len());
    match way(port, packet, received, &inner)? {
        Way::Device => {
            // A veth takes no frame that is longer than its MTU; TC has another way in.
            if inner_frame_len(packet, received) > u32::from(received.tunnel.mtu) {
                return Err(Outcome::TooBig.into());
            }
            let device = forward::next_hop(received.tunnel.device).ok_or(Outcome::TunnelDown)?;
            if !forward::can_redirect(port, device) || !forward::redirect(device) {
                return Err(Outcome::EgressWithoutXdp.into());
            }
            strip(ctx, received.overhead as i32)?;
            // Nothing below hands the packet on as it came: it has been changed.
            counters::receive(Tier::Xdp, received.id, 1, len);
            encap::ethernet(&Packet::of_xdp(ctx), device)?;
            Ok(Outcome::ToDevice)
        }
        Way::NextHop(next_hop) => {
            if !forward::redirect(next_hop) {
                return Err(Outcome::EgressWithoutXdp.into());
            }
            strip(ctx, received.overhead as i32)?;
            // Nothing below hands the packet on as it came: it has been changed.
            counters::receive(Tier::Xdp, received.id, 1, len);
            let packet = Packet::of_xdp(ctx);
            encap::ethernet(&packet, next_hop)?;
            encap::ttl(&packet, ethernet::HEADER_LEN, &inner)?;
            Ok(Outcome::Decapsulated)
        }
        Way::Tunnel(id, tunnel, next_hop) => {
            if !forward::redirect(next_hop) {
                return Err(Outcome::EgressWithoutXdp.into());
            }
            let surplus = received.overhead as i32 - i32::from(tunnel.overhead);
            // Mostly both tunnels have a key or neither, and the call is dear.
            if surplus != 0 {
                strip(ctx, surplus)?;
            }
            // Nothing below hands the packet on as it came: it has been changed.
            counters::receive(Tier::Xdp, received.id, 1, len);
            encap::write(&Packet::of_xdp(ctx), id, tunnel, next_hop, &inner)?;
            Ok(Outcome::Transit)
        }
    }
}

/// Moves the start of the packet by `bytes` towards its end. The point of no return: once it
/// succeeds the packet is not the one that came.
#[inline(always)]
fn strip(ctx: &XdpContext, bytes: i32) -> Result<(), Stop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_xdp_adjust_head(ctx.ctx, bytes) } {
        0 => Ok(()),
        _ => Err(Outcome::NoHeadroom.into()),
    }
}

/// Packets in a buffer: GRO merges several, and TCP leaves cutting to the device.
#[inline(always)]
pub fn packet_count(ctx: &TcContext) -> u32 {
    // SAFETY: the context is the program's own.
    unsafe { (*ctx.skb.skb).gso_segs }.max(1)
}

/// TC: takes the outer header off and sends the packet to the tunnel's device, where the kernel
/// routes it.
#[inline(always)]
pub fn tc(
    ctx: &TcContext,
    packet: &Packet,
    outer: &Ipv4Header,
    received: &Received,
) -> Result<Outcome, Stop> {
    let inner = inner(packet, outer, received)?;
    if forward::route(inner.destination()) == Entry::Tunnel(received.id)
        && inner.destination_is_unicast()
    {
        return Err(Stop::on(received.id, Outcome::Loop));
    }
    let device = forward::next_hop(received.tunnel.device).ok_or(Outcome::TunnelDown)?;
    let packets = packet_count(ctx);
    let left = ctx.len() - ethernet::HEADER_LEN as u32 - received.overhead as u32;
    // A segment's size is not changed by taking the outer header off.
    ctx.adjust_room(
        -(received.overhead as i32),
        BPF_ADJ_ROOM_MAC,
        u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
    )
    .map_err(|_| Stop::on(received.id, Outcome::Aborted))?;
    // Ethernet's padding, of which `left` may have some, is no part of the packet; where the kernel
    // has merged packets it has also added up their lengths.
    counters::receive(Tier::Tc, received.id, packets, u32::from(inner.total_len()));
    encap::ethernet(&Packet::of_tc(ctx), device)?;
    // Out of the peer, so that the device's own counters see it; but an MTU is for what is sent, and
    // a peer may send more than the device may.
    let too_big = packets == 1 && left > u32::from(received.tunnel.mtu);
    let (ifindex, flags) = if too_big {
        (received.tunnel.ifindex, u64::from(BPF_F_INGRESS))
    } else {
        (device.ifindex, 0)
    };
    // SAFETY: the helper has no precondition.
    let action = unsafe { bpf_redirect(ifindex, flags) };
    if !verdict::tc_redirects(action) {
        return Err(Stop::on(received.id, Outcome::Aborted));
    }
    Ok(Outcome::ToDevice)
}
