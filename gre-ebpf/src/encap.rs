//! Into a tunnel: from a port (XDP), or from the tunnel's device (TC).

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_FIXED_GSO,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_redirect_neigh, bpf_xdp_adjust_head},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    encapsulate::outer_header,
    next_hop::{self, NextHop},
    outcome::{Outcome, Stop},
    port::{self, Port},
    route::Entry,
    tunnel::{Flags, OUTER_WORDS, Tunnel},
    wire::{
        ethernet::{self, ETHERTYPE_IPV4},
        ipv4::{self, Ipv4Header},
    },
};

use crate::{counters, decap, forward, packet::Packet, tunnels, verdict};

/// The tunnel and the underlay's next hop, if XDP can send `len` bytes that came in on `port` through
/// them: the inner packet, and what may be behind it.
#[inline(always)]
pub fn ready(
    port: &Port,
    id: u32,
    len: u32,
) -> Result<(&'static Tunnel, &'static NextHop), Outcome> {
    let tunnel = tunnels::get(id).ok_or(Outcome::TunnelDown)?;
    if !tunnel.flags.has(Flags::UP) {
        return Err(Outcome::TunnelDown);
    }
    let next_hop = forward::next_hop(tunnel.next_hop).ok_or(Outcome::NextHopUnresolved)?;
    if !next_hop.flags.has(next_hop::Flags::RESOLVED) {
        return Err(Outcome::NextHopUnresolved);
    }
    if len > u32::from(tunnel.mtu) || len + u32::from(tunnel.overhead) > next_hop.mtu {
        return Err(Outcome::TooBig);
    }
    if !forward::can_redirect(port, next_hop) {
        return Err(Outcome::EgressWithoutXdp);
    }
    Ok((tunnel, next_hop))
}

/// XDP: sends a packet from a port into the tunnel that its destination is routed to.
#[inline(always)]
pub fn xdp(
    ctx: &XdpContext,
    port: &Port,
    packet: &Packet,
    inner: &Ipv4Header,
) -> Result<Outcome, Stop> {
    let entry = forward::route(inner.destination());
    let Entry::Tunnel(id) = entry else {
        let is_gre = inner.protocol() == ipv4::PROTOCOL_GRE && entry == Entry::Punt;
        return Err(if is_gre { Outcome::NoTunnel } else { Outcome::NoTunnelRoute }.into());
    };
    if !port.flags.has(port::Flags::FORWARDING) {
        return Err(Outcome::ForwardingOff.into());
    }
    if !inner.destination_is_unicast() || inner.source_is_martian() {
        return Err(Outcome::NotUnicast.into());
    }
    if inner.ttl() <= 1 {
        return Err(Outcome::TtlExpiring.into());
    }
    let (tunnel, next_hop) = ready(port, id, packet.len() - ethernet::HEADER_LEN as u32)?;
    if !reverse_path(ctx, port, inner) {
        return Err(Outcome::ReversePath.into());
    }
    if !forward::redirect(next_hop) {
        return Err(Outcome::EgressWithoutXdp.into());
    }
    // SAFETY: the context is the program's own.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -i32::from(tunnel.overhead)) } != 0 {
        return Err(Outcome::NoHeadroom.into());
    }
    // Nothing below hands the packet on as it came: it has been changed.
    write(&Packet::of_xdp(ctx), id, tunnel, next_hop, inner)?;
    Ok(Outcome::Encapsulated)
}

/// Whether rp_filter, where it is on, would let the packet in on this port.
#[inline(always)]
fn reverse_path(ctx: &XdpContext, port: &Port, inner: &Ipv4Header) -> bool {
    if port.flags.has(port::Flags::REVERSE_PATH_STRICT) {
        return match forward::route(inner.source()) {
            Entry::NextHop(id) => forward::next_hop(id)
                .is_some_and(|next_hop| next_hop.ifindex as usize == ctx.ingress_ifindex()),
            Entry::Tunnel(_) | Entry::Punt => false,
        };
    }
    !port.flags.has(port::Flags::REVERSE_PATH_LOOSE)
        || forward::route(inner.source()) != Entry::Punt
}

/// Writes Ethernet, the outer header and the inner packet's new TTL at the start of `packet`, which
/// has been given room for them, and counts it.
#[inline(always)]
pub fn write(
    packet: &Packet,
    id: u32,
    tunnel: &Tunnel,
    next_hop: &NextHop,
    inner: &Ipv4Header,
) -> Result<(), Stop> {
    let len = u32::from(inner.total_len());
    let identification = counters::transmit(Tier::Xdp, id, 1, len);
    ethernet(packet, next_hop)?;
    // As the tunnel gets it from the kernel: forwarded, so that `ttl inherit` copies the new TTL.
    let mut forwarded = *inner;
    forwarded.words[2] = inner.decremented_ttl();
    let offset = outer(packet, tunnel, outer_header(tunnel, &forwarded, len, identification))?;
    ttl(packet, offset, inner)
}

/// Writes an outer header behind the Ethernet header. Returns where the inner packet starts: one of
/// two constants, from which the verifier sees that it lies in the packet.
#[inline(always)]
fn outer(packet: &Packet, tunnel: &Tunnel, words: [u32; OUTER_WORDS]) -> Result<usize, Stop> {
    let [a, b, c, d, e, gre, key] = words;
    let offset = ethernet::HEADER_LEN;
    if tunnel.flags.has(Flags::KEY) {
        packet.write(offset, [a, b, c, d, e, gre, key]).ok_or(Outcome::Aborted)?;
        Ok(offset + 28)
    } else {
        packet.write(offset, [a, b, c, d, e, gre]).ok_or(Outcome::Aborted)?;
        Ok(offset + 24)
    }
}

/// Writes the Ethernet header of a packet to `next_hop`.
#[inline(always)]
pub fn ethernet(packet: &Packet, next_hop: &NextHop) -> Result<(), Stop> {
    packet.write(12, [ETHERTYPE_IPV4]).ok_or(Outcome::Aborted)?;
    packet.write(0, next_hop.ethernet).ok_or(Outcome::Aborted)?;
    Ok(())
}

/// Writes the decremented TTL into the IPv4 header at `offset`, which reads `header`.
#[inline(always)]
pub fn ttl(packet: &Packet, offset: usize, header: &Ipv4Header) -> Result<(), Stop> {
    packet.write(offset + 8, [header.decremented_ttl()]).ok_or(Outcome::Aborted)?;
    Ok(())
}

/// TC: encapsulates what the kernel sent to the device of tunnel `id`, a GSO packet whole.
#[inline(always)]
pub fn tc(ctx: &TcContext, id: u32) -> Result<Outcome, Stop> {
    let stop = |outcome| Stop::on(id, outcome);
    let tunnel = tunnels::get(id).ok_or(Outcome::TunnelDown)?;
    let next_hop = forward::next_hop(tunnel.next_hop)
        .filter(|next_hop| next_hop.ifindex != 0)
        .ok_or(stop(Outcome::NoRoute))?;
    // SAFETY: the context is the program's own.
    let skb = unsafe { &*ctx.skb.skb };
    if next_hop.ifindex == skb.ifindex {
        return Err(stop(Outcome::TunnelLoop));
    }
    if skb.protocol != u32::from(ETHERTYPE_IPV4) {
        return Err(stop(Outcome::TunnelProtocol));
    }
    let inner: Ipv4Header =
        Packet::of_tc(ctx).read(ethernet::HEADER_LEN).ok_or(stop(Outcome::TunnelProtocol))?;
    let len = ctx.len() - ethernet::HEADER_LEN as u32;
    // The kernel cuts a GSO packet to the device's MTU, so that its segments are no longer than that.
    let packets = decap::packet_count(ctx);
    let longest = if packets > 1 { u32::from(tunnel.mtu) } else { len };
    if longest + u32::from(tunnel.overhead) > next_hop.mtu {
        return Err(stop(Outcome::TooBigForUnderlay));
    }

    let overhead = i32::from(tunnel.overhead);
    ctx.adjust_room(overhead, BPF_ADJ_ROOM_MAC, ADJUST_ROOM)
        .or_else(|_| ctx.adjust_room(overhead, BPF_ADJ_ROOM_MAC, ADJUST_ROOM_AGAIN))
        .map_err(|_| stop(Outcome::Aborted))?;
    let identification = counters::transmit(Tier::Tc, id, packets, len);
    let packet = Packet::of_tc(ctx);
    // A unicast destination: the kernel refuses to redirect what carries a multicast MAC.
    packet.write(0, [0u16; 3]).ok_or(stop(Outcome::Aborted))?;
    outer(&packet, tunnel, outer_header(tunnel, &inner, len, identification))?;
    // SAFETY: no parameters are passed, so the helper looks the next hop up itself.
    let action = unsafe { bpf_redirect_neigh(next_hop.ifindex, ptr::null_mut(), 0, 0) };
    if !verdict::tc_redirects(action) {
        return Err(stop(Outcome::Aborted));
    }
    Ok(Outcome::Encapsulated)
}

/// A packet that TC took out of a tunnel, or that GRO merged inside one, is still marked as
/// encapsulated, and the kernel will not mark it again (EALREADY). The marks are those that it needs:
/// the inner packet has not moved.
const ADJUST_ROOM_AGAIN: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;

/// Tells the kernel what is put in front, so that it can segment a GSO packet behind it.
const ADJUST_ROOM: u64 =
    (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
