//! Into a tunnel: from a port (XDP), or from the tunnel's device (TC).

use core::{num::NonZeroUsize, ptr};

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_redirect, bpf_redirect_neigh, bpf_skb_vlan_push, bpf_xdp_adjust_head},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    encapsulate::{self, Inner},
    event,
    next_hop::{self, NextHop},
    outcome::{Outcome, Stop},
    port::{self, Port},
    route::Entry,
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LEN as ETHERNET_LEN},
        ip::PROTOCOL_TCP,
        ipv4::Ipv4Header,
        ipv6::Ipv6Header,
        vlan::Tag,
    },
};

use crate::{
    checksum, counters, decap, detour, events, forward, fragment, frames,
    header::Header,
    mss, nesting,
    packet::{self, Packet},
    parse::Frame,
    sequence, skb,
    tunnels::{self, Gre},
    verdict,
    verifier::forget,
};

/// The tunnel and the underlay's next hop, if XDP can send `len` bytes that came in on `port` through
/// them: the inner packet, and what may be behind it.
#[inline(always)]
pub fn ready<const ANY: bool>(
    packet: &Packet,
    port: &Port,
    id: u32,
    len: u32,
) -> Result<(&'static Tunnel, &'static NextHop), Outcome> {
    let tunnel = tunnels::get(id).ok_or(Outcome::TunnelDown)?;
    if !ANY && !is_plain(tunnel) {
        return Err(Outcome::Detour);
    }
    if !tunnel.flags.has(Flags::UP) {
        return Err(Outcome::TunnelDown);
    }
    let next_hop = forward::next_hop(tunnel.next_hop).ok_or(Outcome::NextHopUnresolved)?;
    if !next_hop.flags.has(next_hop::Flags::RESOLVED) {
        return Err(Outcome::NextHopUnresolved);
    }
    if !ANY && !next_hop.is_untagged() {
        return Err(Outcome::Detour);
    }
    if len > u32::from(tunnel.mtu) || len + u32::from(tunnel.overhead) > next_hop.mtu {
        return Err(Outcome::TooBig);
    }
    forward::can_redirect(packet, port, next_hop)?;
    if packet.is_in_pieces() && tunnel.flags.has(Flags::CHECKSUM_SENT) {
        return Err(Outcome::InPieces);
    }
    Ok((tunnel, next_hop))
}

/// XDP: sends a packet from a port into the tunnel that its destination is routed to.
#[inline(always)]
pub fn xdp<H: Header, const ANY: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    inner: &H,
    gre: Gre,
) -> Result<Outcome, Stop> {
    let entry = forward::way::<H, ANY>(inner)?;
    let Entry::Tunnel(id) = entry else {
        let is_stray = matches!(gre, Gre::Foreign) && entry == Entry::Punt;
        return Err(if is_stray { Outcome::NoTunnel } else { Outcome::NoTunnelRoute }.into());
    };
    if !H::port_forwards(frame.port.flags) {
        return Err(detour::or::<ANY>(Outcome::ForwardingOff));
    }
    if !inner.is_routable() {
        return Err(detour::or::<ANY>(Outcome::NotUnicast));
    }
    if inner.ttl() <= 1 {
        return Err(detour::or::<ANY>(Outcome::TtlExpiring));
    }
    if inner.has_options() {
        return Err(detour::or::<ANY>(Outcome::Ipv6Extension));
    }
    let (tunnel, next_hop) =
        ready::<ANY>(packet, frame.port, id, packet.len() - frame.header_len as u32)
            .map_err(detour::or::<ANY>)?;
    if ANY {
        nesting::xdp(id, tunnel, inner)?;
    }
    if H::HAS_REVERSE_PATH && !reverse_path(frame, inner) {
        return Err(detour::or::<ANY>(Outcome::ReversePath));
    }
    let mss = mss::limit(packet, mss::of::<H>(tunnel), inner, frame.header_len);
    if !ANY && mss != 0 {
        return Err(Outcome::Detour.into());
    }
    if !forward::redirect(next_hop) {
        return Err(detour::or::<ANY>(Outcome::EgressWithoutXdp));
    }
    let room = i32::from(tunnel.overhead) + header_len::<ANY>(next_hop) as i32;
    // SAFETY: the context is the program's own.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, frame.header_len as i32 - room) } != 0 {
        return Err(detour::or::<ANY>(Outcome::NoHeadroom));
    }
    // Nothing below hands the packet on as it came: it has been changed.
    write::<_, ANY>(ctx, id, tunnel, next_hop, &inner.forwarded(), mss)?;
    Ok(Outcome::Encapsulated)
}

/// Whether rp_filter, where it is on, would let the packet in on this port.
#[inline(always)]
fn reverse_path<H: Header>(frame: &Frame, inner: &H) -> bool {
    const FILTERS: port::Flags =
        port::Flags::REVERSE_PATH_STRICT.with(port::Flags::REVERSE_PATH_LOOSE, true);
    if !frame.port.flags.has(FILTERS) {
        return true;
    }
    if frame.port.flags.has(port::Flags::REVERSE_PATH_STRICT) {
        return match inner.reverse_route() {
            Entry::NextHop(id) => forward::next_hop(id).is_some_and(|next_hop| {
                next_hop.ifindex == frame.ifindex && next_hop.tags == frame.tags
            }),
            Entry::Tunnel(_) | Entry::Group(_) | Entry::Punt => false,
        };
    }
    inner.reverse_route() != Entry::Punt
}

/// Writes Ethernet, the outer header and `inner`, as the tunnel gets it from the kernel: forwarded,
/// so that `ttl inherit` copies the new TTL, and its segment size lowered to `mss` if that is not 0.
/// The packet has been given room for them. Counts it.
#[inline(always)]
pub fn write<H: Header, const ANY: bool>(
    ctx: &XdpContext,
    id: u32,
    tunnel: &Tunnel,
    next_hop: &NextHop,
    inner: &H,
    mss: u16,
) -> Result<(), Stop> {
    let packet = Packet::of_xdp(ctx);
    let len = inner.total_len();
    let identification = counters::transmit(Tier::Xdp, id, 1, len);
    let summary = Inner::of(inner, len);
    if !ANY {
        untagged(&packet, next_hop, ETHERTYPE_IPV4)?;
        return plainest(&packet, tunnel, &summary, inner, identification);
    }
    let start = ethernet(&packet, next_hop, outer_ethertype(tunnel))?;
    let header = outer(&packet, forget(start, packet.len()), id, tunnel, &summary, identification)?;
    inner.write_back(&packet, header.inner).ok_or(Outcome::Aborted)?;
    decap::clamp(ctx, inner, header.inner, mss);
    // The packet may have been changed behind the verifier's back.
    let sum = |offset, len| checksum::sum_xdp(ctx, offset, len);
    finish(&Packet::of_xdp(ctx), tunnel, &header, len, sum)
}

/// Writes what is in front of a frame, as [`write`] does in front of a packet.
#[inline(always)]
pub fn before_frame(
    ctx: &XdpContext,
    id: u32,
    tunnel: &Tunnel,
    next_hop: &NextHop,
    inner: &Inner,
) -> Result<(), Stop> {
    let packet = Packet::of_xdp(ctx);
    let identification = counters::transmit(Tier::Xdp, id, 1, inner.len);
    let start = ethernet(&packet, next_hop, outer_ethertype(tunnel))?;
    let header = outer(&packet, forget(start, packet.len()), id, tunnel, inner, identification)?;
    let sum = |offset, len| checksum::sum_xdp(ctx, offset, len);
    finish(&packet, tunnel, &header, inner.len, sum)
}

#[inline(always)]
fn outer_ethertype(tunnel: &Tunnel) -> u16 {
    if tunnel.flags.has(Flags::IPV6) { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
}

/// Options whose words in the header are other ones in each packet.
const PER_PACKET: Flags = Flags::CHECKSUM_SENT.and(Flags::SEQUENCE_SENT);

/// Whether the tunnel is up, and packets are sent over IPv4 without options but a key.
#[inline(always)]
pub fn is_plain(tunnel: &Tunnel) -> bool {
    tunnel.flags.only(PER_PACKET.and(Flags::IPV6).and(Flags::UP)).0 == Flags::UP.0
}

/// Writes the headers of a plain tunnel in front of an inner packet that is as it came, its TTL apart.
#[inline(always)]
fn plainest<H: Header>(
    packet: &Packet,
    tunnel: &Tunnel,
    summary: &Inner,
    inner: &H,
    identification: u16,
) -> Result<(), Stop> {
    let start = ETHERNET_LEN;
    let [a, b, c, d, e] = encapsulate::ipv4(tunnel, summary, identification);
    let gre = encapsulate::gre(tunnel, summary.protocol).0;
    let offset = if tunnel.gre.has_key() {
        let words = [a, b, c, d, e, gre, tunnel.sent_key];
        packet.write(start, words).ok_or(Outcome::Aborted)?;
        start + 28
    } else {
        packet.write(start, [a, b, c, d, e, gre]).ok_or(Outcome::Aborted)?;
        start + 24
    };
    inner.write_ttl(packet, offset).ok_or(Outcome::Aborted.into())
}

/// Where the parts of an encapsulated packet start.
pub struct Written {
    gre: usize,
    pub inner: usize,
}

/// Writes the outer IP and GRE header at `start`, the checksum apart.
#[inline(always)]
fn outer(
    packet: &Packet,
    start: usize,
    id: u32,
    tunnel: &Tunnel,
    inner: &Inner,
    identification: u16,
) -> Result<Written, Stop> {
    let gre = if tunnel.flags.has(Flags::IPV6) {
        let gre = outer6(packet, start, id, inner).ok_or(Outcome::Aborted)?.get();
        forget(gre, packet.len())
    } else {
        let words = encapsulate::ipv4(tunnel, inner, identification);
        packet.write(start, words).ok_or(Outcome::Aborted)?;
        forget(start + 20, packet.len())
    };
    let base = encapsulate::gre(tunnel, inner.protocol).0;
    if tunnel.flags.only(PER_PACKET).0 != 0 {
        packet.write(gre, [base]).ok_or(Outcome::Aborted)?;
        let inner = options(packet, gre + 4, id).ok_or(Outcome::Aborted)?.get();
        return Ok(Written { gre, inner: forget(inner, packet.len()) });
    }
    if tunnel.gre.has_key() {
        packet.write(gre, [base, tunnel.sent_key]).ok_or(Outcome::Aborted)?;
        Ok(Written { gre, inner: forget(gre + 8, packet.len()) })
    } else {
        packet.write(gre, [base]).ok_or(Outcome::Aborted)?;
        Ok(Written { gre, inner: forget(gre + 4, packet.len()) })
    }
}

/// Writes the outer IPv6 header at `start`. Returns where the GRE header comes; none where it does
/// not fit.
#[inline(never)]
fn outer6(packet: &Packet, start: usize, id: u32, inner: &Inner) -> Option<NonZeroUsize> {
    let (tunnel, addresses) = (tunnels::get(id)?, tunnels::addresses6(id)?);
    packet.write(start, encapsulate::ipv6(tunnel, addresses, inner))?;
    let Some(options) = encapsulate::encapsulation_limit(tunnel, inner) else {
        return NonZeroUsize::new(start + 40);
    };
    packet.write(start + 40, options)?;
    NonZeroUsize::new(start + 48)
}

/// Writes what is behind the first word of the GRE header, the checksum as zero. Returns where the
/// inner packet comes. Not inlined: most tunnels have at most a key.
#[inline(never)]
fn options(packet: &Packet, start: usize, id: u32) -> Option<NonZeroUsize> {
    let tunnel = tunnels::get(id)?;
    let mut offset = start;
    if tunnel.flags.has(Flags::CHECKSUM_SENT) {
        packet.write(offset, [0u32])?;
        offset += 4;
    }
    if tunnel.gre.has_key() {
        packet.write(offset, [tunnel.sent_key])?;
        offset += 4;
    }
    if tunnel.flags.has(Flags::SEQUENCE_SENT) {
        packet.write(offset, [sequence::next(id)?.to_be()])?;
        offset += 4;
    }
    NonZeroUsize::new(offset)
}

/// Writes the GRE checksum, where there is one, now that everything else is in place.
#[inline(always)]
pub fn finish(
    packet: &Packet,
    tunnel: &Tunnel,
    header: &Written,
    len: u32,
    sum: impl FnOnce(usize, u32) -> Option<u16>,
) -> Result<(), Stop> {
    if !tunnel.flags.has(Flags::CHECKSUM_SENT) {
        return Ok(());
    }
    let len = (header.inner - header.gre) as u32 + len;
    let sum = sum(header.gre, len).ok_or(Outcome::Aborted)?;
    packet.write(header.gre + 4, [!sum]).ok_or(Outcome::Aborted)?;
    Ok(())
}

/// Bytes of the Ethernet header of a packet to `next_hop`; without `ANY` it has no tags.
#[inline(always)]
pub fn header_len<const ANY: bool>(next_hop: &NextHop) -> usize {
    if ANY { next_hop.frame_header_len() } else { ETHERNET_LEN }
}

/// Writes the Ethernet header of a packet to `next_hop`, which is on no VLAN.
#[inline(always)]
pub fn untagged(packet: &Packet, next_hop: &NextHop, ethertype: u16) -> Result<(), Stop> {
    packet.write(12, [ethertype]).ok_or(Outcome::Aborted)?;
    packet.write(0, next_hop.ethernet).ok_or(Outcome::Aborted)?;
    Ok(())
}

/// Writes the Ethernet header of a packet to `next_hop`, VLAN tags included. Returns where the IP
/// header comes.
#[inline(always)]
pub fn ethernet(packet: &Packet, next_hop: &NextHop, ethertype: u16) -> Result<usize, Stop> {
    let [outer, inner] = next_hop.tags;
    let mut offset = 12;
    if outer.0 != 0 {
        packet.write(offset, [outer.0]).ok_or(Outcome::Aborted)?;
        offset += 4;
        if inner.0 != 0 {
            packet.write(offset, [inner.0]).ok_or(Outcome::Aborted)?;
            offset += 4;
        }
    }
    packet.write(offset, [ethertype]).ok_or(Outcome::Aborted)?;
    packet.write(0, next_hop.ethernet).ok_or(Outcome::Aborted)?;
    Ok(offset + 2)
}

/// TC: encapsulates what the kernel sent to a tunnel's device, a GSO packet whole.
#[inline(always)]
pub fn tc(ctx: &TcContext, device: &Port) -> Result<Outcome, Stop> {
    let id = device.tunnel();
    let tunnel = tunnels::get(id).ok_or(Outcome::TunnelDown)?;
    if tunnel.flags.has(Flags::NESTED) {
        return Err(Stop::on(id, Outcome::Nested));
    }
    // Each packet of a GSO packet would get the same number, and the same checksum.
    if tunnel.flags.only(PER_PACKET).0 != 0 && !device.flags.has(port::Flags::PEER) {
        return Err(Outcome::DeviceFinishes.into());
    }
    if tunnel.flags.has(Flags::ETHERNET) {
        return frames::into_tc(ctx, device, id, tunnel);
    }
    match skb(ctx).protocol as u16 {
        ETHERTYPE_IPV4 => into::<Ipv4Header>(ctx, device, id, tunnel),
        ETHERTYPE_IPV6 => into::<Ipv6Header>(ctx, device, id, tunnel),
        _ => Err(other_protocol(ctx, id, NO_TAGS)),
    }
}

/// What the programs cannot encapsulate the daemon does, with the tags that the kernel has taken out.
#[inline(always)]
pub fn other_protocol(ctx: &TcContext, id: u32, tags: [u32; 2]) -> Stop {
    if events::send_tagged(ctx, event::Kind::OtherProtocol, id, ctx.len(), tags) {
        return Outcome::Unwrapping.into();
    }
    Stop::on(id, Outcome::TunnelProtocol)
}

const NO_TAGS: [u32; 2] = [0; 2];

/// The underlay's next hop of a tunnel.
#[inline(always)]
pub fn underlay(id: u32, tunnel: &Tunnel) -> Result<&'static NextHop, Stop> {
    let next_hop = forward::next_hop(tunnel.next_hop)
        .filter(|next_hop| next_hop.ifindex != 0)
        .ok_or(Stop::on(id, Outcome::NoRoute))?;
    if next_hop.ifindex == tunnel.ifindex {
        return Err(Stop::on(id, Outcome::TunnelLoop));
    }
    Ok(next_hop)
}

#[inline(always)]
fn into<H: Header>(
    ctx: &TcContext,
    device: &Port,
    id: u32,
    tunnel: &'static Tunnel,
) -> Result<Outcome, Stop> {
    let packet = Packet::of_tc(ctx, packet::INNER);
    let inner: H = packet.read(ETHERNET_LEN).ok_or(Stop::on(id, Outcome::TunnelProtocol))?;
    let (id, tunnel) = leg(id, tunnel, &inner)?;
    let limit = nesting::tc(ctx, id, tunnel, &inner)?;
    let overhead = encapsulate::overhead(tunnel, limit);
    let stop = |outcome| Stop::on(id, outcome);
    let next_hop = underlay(id, tunnel)?;
    let len = ctx.len() - ETHERNET_LEN as u32;
    let outer_len = longest(ctx, &packet, &inner, len) + u32::from(overhead);
    let in_two = in_two(ctx, device, id, tunnel, next_hop, outer_len, NO_TAGS)?;
    let mss = mss::limit(&packet, mss::of::<H>(tunnel), &inner, ETHERNET_LEN);
    if mss != 0 {
        let tcp = ETHERNET_LEN + inner.transport_offset();
        mss::clamp_tc(ctx.skb.skb, tcp as u32, mss);
    }

    let overhead = i32::from(overhead);
    let version = if tunnel.flags.has(Flags::IPV6) {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    };
    ctx.adjust_room(overhead, BPF_ADJ_ROOM_MAC, ADJUST_ROOM | u64::from(version))
        .or_else(|_| ctx.adjust_room(overhead, BPF_ADJ_ROOM_MAC, ADJUST_ROOM_AGAIN))
        .map_err(|_| stop(Outcome::Aborted))?;
    let packets = decap::packet_count(ctx);
    let identification = counters::transmit(Tier::Tc, id, packets, len);
    let identification = if in_two { fragment::identification() } else { identification };
    let summed = tunnel.flags.has(Flags::CHECKSUM_SENT);
    let packet = Packet::of_tc(ctx, if summed { ctx.len() } else { packet::OUTER_AND_INNER });
    let summary = Inner { limit, ..Inner::of(&inner, len) };
    let header = outer_headers(&packet, id, tunnel, &summary, identification)?;
    let sum = |offset, len| checksum::sum_tc(ctx, offset, len);
    finish(&packet, tunnel, &header, len, sum)?;
    if in_two {
        return send_in_two(ctx, id, tunnel, next_hop);
    }
    send(ctx, id, next_hop, !next_hop.is_untagged())
}

/// Whether a packet that is `len` bytes long outside is sent in two outer fragments; not at all, where
/// the path takes it.
#[inline(always)]
pub fn in_two(
    ctx: &TcContext,
    device: &Port,
    id: u32,
    tunnel: &Tunnel,
    next_hop: &NextHop,
    len: u32,
    tags: [u32; 2],
) -> Result<bool, Stop> {
    let limit = path_mtu(tunnel, next_hop);
    if len <= limit {
        return Ok(false);
    }
    let is_tagged = tags[0] != 0;
    if is_tagged || !fragment::is_for_two(tunnel, next_hop, len, limit) {
        return Err(oversize(ctx, id, tags));
    }
    // A checksum that is left to the device must be there before its packet is cut.
    if !device.flags.has(port::Flags::PEER) {
        return Err(Outcome::DeviceFinishes.into());
    }
    if skb(ctx).gso_size != 0 {
        return Err(oversize(ctx, id, tags));
    }
    Ok(true)
}

/// Sends an encapsulated packet that the path does not take in one piece.
#[inline(always)]
pub fn send_in_two(
    ctx: &TcContext,
    id: u32,
    tunnel: &Tunnel,
    next_hop: &NextHop,
) -> Result<Outcome, Stop> {
    let aborted = Stop::on(id, Outcome::Aborted);
    if !fragment::send_first(ctx, tunnel.next_hop, path_mtu(tunnel, next_hop)) {
        return Err(aborted);
    }
    // SAFETY: the helper has no precondition.
    if !verdict::tc_redirects(unsafe { bpf_redirect(next_hop.ifindex, 0) }) {
        return Err(aborted);
    }
    Ok(Outcome::Fragmented)
}

/// Writes the Ethernet header of an encapsulated packet, addresses apart, its outer IP and GRE header.
#[inline(always)]
pub fn outer_headers(
    packet: &Packet,
    id: u32,
    tunnel: &Tunnel,
    inner: &Inner,
    identification: u16,
) -> Result<Written, Stop> {
    let aborted = Stop::on(id, Outcome::Aborted);
    // A unicast destination: the kernel refuses to redirect what carries a multicast MAC.
    packet.write(0, [0u16; 3]).ok_or(aborted)?;
    packet.write(12, [outer_ethertype(tunnel)]).ok_or(aborted)?;
    outer(packet, ETHERNET_LEN, id, tunnel, inner, identification)
}

/// Sends an encapsulated packet to its next hop: as a frame whose addresses the record has, or as the
/// kernel finds them.
#[inline(always)]
pub fn send(ctx: &TcContext, id: u32, next_hop: &NextHop, by_frame: bool) -> Result<Outcome, Stop> {
    let aborted = Stop::on(id, Outcome::Aborted);
    let action = if by_frame {
        send_frame(ctx, next_hop).ok_or(aborted)?
    } else {
        // SAFETY: no parameters are passed, so the helper looks the next hop up itself.
        unsafe { bpf_redirect_neigh(next_hop.ifindex, ptr::null_mut(), 0, 0) }
    };
    if !verdict::tc_redirects(action) {
        return Err(aborted);
    }
    Ok(Outcome::Encapsulated)
}

/// Sends a frame out of the port that its tags, if any, are seen on. The neighbours of a VLAN are
/// its own device's, which the record does not name; but one with tags has the MAC addresses.
#[inline(always)]
fn send_frame(ctx: &TcContext, next_hop: &NextHop) -> Option<i64> {
    Packet::of_tc(ctx, ETHERNET_LEN as u32).write(0, next_hop.ethernet)?;
    let [outer, inner] = next_hop.tags;
    for tag in [inner, outer] {
        if tag != Tag::NONE {
            let [tpid, id] = [tag.tpid(), tag.id()];
            // SAFETY: the context is the program's own.
            if unsafe { bpf_skb_vlan_push(ctx.skb.skb, tpid, id) } != 0 {
                return None;
            }
        }
    }
    // SAFETY: the helper has no precondition.
    Some(unsafe { bpf_redirect(next_hop.ifindex, 0) })
}

/// Of a tunnel with many remotes, the leg towards the one that the packet is routed to.
#[inline(always)]
fn leg<H: Header>(
    id: u32,
    tunnel: &'static Tunnel,
    inner: &H,
) -> Result<(u32, &'static Tunnel), Stop> {
    if !tunnel.flags.has(Flags::REMOTE_ANY) {
        return Ok((id, tunnel));
    }
    if let Ok(Entry::Tunnel(leg)) = forward::way::<H, true>(inner)
        && let Some(found) = tunnels::get(leg)
        && found.ifindex == tunnel.ifindex
        && leg != id
    {
        return Ok((leg, found));
    }
    Err(Stop::on(id, Outcome::NoRoute))
}

/// Bytes of the longest packet that a GSO packet is cut into; the kernel has seen to it that its
/// transport header can be read.
#[inline(always)]
pub fn longest<H: Header>(ctx: &TcContext, packet: &Packet, inner: &H, len: u32) -> u32 {
    let size = skb(ctx).gso_size;
    if size == 0 {
        return len;
    }
    let transport = inner.transport_offset();
    let header_len = if inner.protocol() == PROTOCOL_TCP {
        let at = ETHERNET_LEN + transport + 12;
        usize::from(packet.read::<u8>(at).unwrap_or(0x50) >> 4) * 4
    } else {
        8
    };
    transport as u32 + header_len as u32 + size
}

/// The longest outer packet that can be sent in one piece.
#[inline(always)]
pub fn path_mtu(tunnel: &Tunnel, next_hop: &NextHop) -> u32 {
    match u32::from(tunnel.path_mtu) {
        0 => next_hop.mtu,
        path => path.min(next_hop.mtu),
    }
}

/// What is too long the daemon fragments or answers.
#[inline(always)]
pub fn oversize(ctx: &TcContext, id: u32, tags: [u32; 2]) -> Stop {
    let len = if skb(ctx).gso_size == 0 { ctx.len() } else { events::QUOTED.min(ctx.len()) };
    if events::send_tagged(ctx, event::Kind::Oversize, id, len, tags) {
        return Outcome::Oversize.into();
    }
    Stop::on(id, Outcome::TooBigForUnderlay)
}

/// A packet that TC took out of a tunnel, or that GRO merged inside one, is still marked as
/// encapsulated, and the kernel will not mark it again (EALREADY). The marks are those that it needs:
/// the inner packet has not moved.
const ADJUST_ROOM_AGAIN: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;

/// Tells the kernel what is put in front, so that it can segment a GSO packet behind it.
const ADJUST_ROOM: u64 = (BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
