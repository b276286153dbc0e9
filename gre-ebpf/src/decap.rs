//! Out of a tunnel: what the inner packet must be, and its way on.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_redirect, bpf_xdp_adjust_head},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    decapsulate::{self, Payload},
    ecn, event,
    next_hop::{self, NextHop},
    outcome::{Outcome, Stop},
    route::Entry,
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4::Ipv4Header,
        ipv6::Ipv6Header,
    },
};

use crate::{
    checksum, counters, detour, encap, events, forward, frames,
    header::Header,
    mismatch, mss, nesting,
    packet::{self, Packet},
    parse::Frame,
    sequence::{self, Judged},
    tunnels::{self, Received},
    verdict,
    verifier::forget,
};

/// What is in a packet that the tunnel takes, and its sequence number. A checksum is checked only
/// where `packets` is one: the kernel has checked those that it merged.
#[inline(always)]
fn accept(
    packet: &Packet,
    received: &Received,
    packets: u32,
    sum: impl FnOnce(usize, u32) -> Option<u16>,
) -> Result<(Payload, Option<Judged>), Outcome> {
    if let Err(outcome) = decapsulate::flags(received.tunnel, received.gre) {
        mismatch::note(received.id, received.gre, received.tunnel.key, outcome);
        return Err(outcome);
    }
    if received.gre.has_checksum()
        && packets == 1
        && sum(received.gre_offset, received.gre_len) != Some(0xffff)
    {
        return Err(Outcome::ChecksumWrong);
    }
    let judged = sequence::judge(packet, received)?;
    match decapsulate::payload(received.tunnel, received.gre, received.inner_len) {
        Ok(payload) => Ok((payload, judged)),
        Err(outcome) => {
            if matches!(outcome, Outcome::Keepalive) {
                sequence::accept(received.id, judged);
            }
            Err(outcome)
        }
    }
}

/// The header of the inner packet, which is whole and may be let out of the tunnel. Without `ANY` it is
/// as it came: the outer one has met no congestion.
#[inline(always)]
fn inner<H: Header, const ANY: bool>(packet: &Packet, received: &Received) -> Result<H, Outcome> {
    let header: H = packet
        .read(received.inner_offset)
        .filter(|_| received.inner_len >= H::HEADER_LEN as u32)
        .ok_or(Outcome::InnerTruncated)?;
    let is_plain = !header.has_options() && ecn::is_untouched(received.dsfield, header.dsfield());
    if !ANY && !is_plain {
        return Err(Outcome::Detour);
    }
    header.inspect(received.inner_len)?;
    if ANY { decapsulate::congestion(header, received.dsfield) } else { Ok(header) }
}

/// Whether a packet from the tunnel that is routed into tunnel `next` goes back to where it came
/// from: into the same tunnel, or out of the same device to the same peer.
#[inline(always)]
fn is_loop<const ANY: bool>(
    packet: &Packet,
    frame: &Frame,
    received: &Received,
    next: u32,
) -> bool {
    if next == received.id {
        return true;
    }
    if !ANY || !received.tunnel.flags.has(Flags::REMOTE_ANY) {
        return false;
    }
    tunnels::get(next).is_some_and(|tunnel| {
        tunnel.ifindex == received.tunnel.ifindex
            && tunnels::came_from(packet, frame.header_len, next)
    })
}

/// Where the inner packet goes.
enum Way {
    /// To the tunnel's device: it is for this host, or only the kernel can forward it.
    Device,
    NextHop(&'static NextHop),
    Tunnel(u32, &'static Tunnel, &'static NextHop),
}

#[inline(always)]
fn way<H: Header, const ANY: bool>(
    packet: &Packet,
    frame: &Frame,
    received: &Received,
    inner: &H,
) -> Result<Way, Stop> {
    let entry = forward::way::<H, ANY>(inner)?;
    if let Entry::Tunnel(next) = entry
        && inner.destination_is_unicast()
        && is_loop::<ANY>(packet, frame, received, next)
    {
        return Err(detour::or_on::<ANY>(received.id, Outcome::Loop));
    }
    let flags = received.tunnel.flags;
    if !H::tunnel_forwards(flags) || !inner.may_be_forwarded() {
        return Ok(Way::Device);
    }
    if H::HAS_REVERSE_PATH && !reverse_path(flags, received.id, inner) {
        return Ok(Way::Device);
    }
    let len = frame_len(packet, received);
    Ok(match entry {
        Entry::Punt | Entry::Group(_) => Way::Device,
        Entry::NextHop(id) => match forward::next_hop(id) {
            Some(next_hop)
                if next_hop.flags.has(next_hop::Flags::RESOLVED)
                    && len <= next_hop.mtu
                    && forward::can_redirect(packet, frame.port, next_hop).is_ok() =>
            {
                Way::NextHop(next_hop)
            }
            _ => Way::Device,
        },
        Entry::Tunnel(id) => match encap::ready::<ANY>(packet, frame.port, id, len) {
            Ok((tunnel, _)) if ANY && nesting::xdp(id, tunnel, inner).is_err() => Way::Device,
            Ok((tunnel, next_hop)) => Way::Tunnel(id, tunnel, next_hop),
            Err(_) if !ANY => return Err(Outcome::Detour.into()),
            Err(_) => Way::Device,
        },
    })
}

/// Whether rp_filter, where it is on, would let the packet in on the tunnel's device.
#[inline(always)]
fn reverse_path<H: Header>(flags: Flags, id: u32, inner: &H) -> bool {
    if !flags.has(Flags::REVERSE_PATH_STRICT.and(Flags::REVERSE_PATH_LOOSE)) {
        return true;
    }
    match inner.reverse_route() {
        Entry::Tunnel(from) if from == id => true,
        Entry::Punt => false,
        _ => !flags.has(Flags::REVERSE_PATH_STRICT),
    }
}

/// Bytes that are left without the outer header, those behind the inner packet included: a device
/// counts them too.
#[inline(always)]
fn frame_len(packet: &Packet, received: &Received) -> u32 {
    packet.len() - received.inner_offset as u32
}

/// A checksum is over all of a packet, and only the first piece can be read.
#[inline(always)]
fn can_be_summed(packet: &Packet, received: &Received) -> Result<(), Outcome> {
    if packet.is_in_pieces() && received.gre.has_checksum() {
        return Err(Outcome::InPieces);
    }
    Ok(())
}

/// XDP: takes the outer header off and sends the packet on.
#[inline(always)]
pub fn xdp<const ANY: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    received: &Received,
) -> Result<Outcome, Stop> {
    if !ANY {
        return through::<Ipv4Header, ANY>(ctx, packet, frame, received, None);
    }
    can_be_summed(packet, received)?;
    let (payload, judged) =
        accept(packet, received, 1, |offset, len| checksum::sum_xdp(ctx, offset, len))
            .map_err(|outcome| Stop::on(received.id, outcome))?;
    match payload {
        Payload::Ipv4 => through::<Ipv4Header, ANY>(ctx, packet, frame, received, judged),
        Payload::Ipv6 => through::<Ipv6Header, ANY>(ctx, packet, frame, received, judged),
        Payload::Ethernet => Err(Outcome::DetourOfFrames.into()),
        Payload::Other(ethertype) => {
            let ethertype = ethertype.to_be();
            deliver::<ANY>(ctx, packet, frame, received, judged, ethertype, received.inner_len)?;
            Ok(Outcome::ToDevice)
        }
    }
}

/// XDP: takes the outer header off a frame and sends it on.
#[inline(always)]
pub fn frame(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    received: &Received,
) -> Result<Outcome, Stop> {
    can_be_summed(packet, received)?;
    let sum = |offset, len| checksum::sum_xdp(ctx, offset, len);
    let accepted = accept(packet, received, 1, sum);
    match accepted.map_err(|outcome| Stop::on(received.id, outcome))? {
        (Payload::Ethernet, judged) => frames::out_xdp(ctx, packet, frame, received, judged),
        _ => Err(Outcome::Detour.into()),
    }
}

#[inline(always)]
fn through<H: Header, const ANY: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    received: &Received,
    judged: Option<Judged>,
) -> Result<Outcome, Stop> {
    let inner: H = inner::<H, ANY>(packet, received)
        .map_err(|outcome| detour::or_on::<ANY>(received.id, outcome))?;
    let len = inner.total_len();
    let mss = mss::limit(packet, mss::of::<H>(received.tunnel), &inner, received.inner_offset);
    if !ANY && mss != 0 {
        return Err(Outcome::Detour.into());
    }
    // Nothing between the two: Linux 6.1 forgets which way it is, and so that there is a tunnel.
    match way::<_, ANY>(packet, frame, received, &inner)? {
        Way::Device => {
            let packet = deliver::<ANY>(ctx, packet, frame, received, judged, H::ETHERTYPE, len)?;
            if ANY {
                inner.write_back(&packet, ethernet::HEADER_LEN).ok_or(Outcome::Aborted)?;
            }
            clamp(ctx, &inner, ethernet::HEADER_LEN, mss);
            Ok(Outcome::ToDevice)
        }
        Way::NextHop(next_hop) => {
            if !ANY && !next_hop.is_untagged() {
                return Err(Outcome::Detour.into());
            }
            if !forward::redirect(next_hop) {
                return Err(detour::or::<ANY>(Outcome::EgressWithoutXdp));
            }
            strip::<ANY>(
                ctx,
                received.inner_offset as i32 - encap::header_len::<ANY>(next_hop) as i32,
            )?;
            // Nothing below hands the packet on as it came: it has been changed.
            counters::receive(Tier::Xdp, received.id, 1, len);
            sequence::accept(received.id, judged);
            let packet = Packet::of_xdp(ctx);
            let inner = inner.forwarded();
            if ANY {
                let offset = encap::ethernet(&packet, next_hop, H::ETHERTYPE)?;
                let offset = forget(offset, packet.len());
                inner.write_back(&packet, offset).ok_or(Outcome::Aborted)?;
                clamp(ctx, &inner, offset, mss);
            } else {
                encap::untagged(&packet, next_hop, H::ETHERTYPE)?;
                inner.write_ttl(&packet, ethernet::HEADER_LEN).ok_or(Outcome::Aborted)?;
            }
            Ok(Outcome::Decapsulated)
        }
        Way::Tunnel(id, tunnel, next_hop) => {
            let onward = mss::limit(packet, mss::of::<H>(tunnel), &inner, received.inner_offset);
            if !ANY && onward != 0 {
                return Err(Outcome::Detour.into());
            }
            if !forward::redirect(next_hop) {
                return Err(detour::or::<ANY>(Outcome::EgressWithoutXdp));
            }
            let before = encap::header_len::<ANY>(next_hop) as i32 + i32::from(tunnel.overhead);
            let surplus = received.inner_offset as i32 - before;
            // Mostly both tunnels have the same options, and the call is dear.
            if surplus != 0 {
                strip::<ANY>(ctx, surplus)?;
            }
            // Nothing below hands the packet on as it came: it has been changed.
            counters::receive(Tier::Xdp, received.id, 1, len);
            sequence::accept(received.id, judged);
            let mss = if mss == 0 || onward != 0 && onward < mss { onward } else { mss };
            encap::write::<_, ANY>(ctx, id, tunnel, next_hop, &inner.forwarded(), mss)?;
            Ok(Outcome::Transit)
        }
    }
}

/// Hands the inner packet, `len` bytes long, to the tunnel's device. Returns the packet as it is now.
#[inline(always)]
fn deliver<const ANY: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    received: &Received,
    judged: Option<Judged>,
    ethertype: u16,
    len: u32,
) -> Result<Packet, Stop> {
    if received.tunnel.flags.has(Flags::ADOPTED) {
        return Err(Outcome::Adopted.into());
    }
    // A veth takes no frame that is longer than its MTU; TC has another way in.
    if frame_len(packet, received) > u32::from(received.tunnel.mtu) {
        return Err(detour::or::<ANY>(Outcome::TooBig));
    }
    let device =
        forward::next_hop(received.tunnel.device).ok_or(detour::or::<ANY>(Outcome::TunnelDown))?;
    forward::can_redirect(packet, frame.port, device).map_err(detour::or::<ANY>)?;
    if !forward::redirect(device) {
        return Err(detour::or::<ANY>(Outcome::EgressWithoutXdp));
    }
    strip::<ANY>(ctx, received.inner_offset as i32 - ethernet::HEADER_LEN as i32)?;
    // Nothing below hands the packet on as it came: it has been changed.
    counters::receive(Tier::Xdp, received.id, 1, len);
    sequence::accept(received.id, judged);
    let packet = Packet::of_xdp(ctx);
    encap::untagged(&packet, device, ethertype)?;
    Ok(packet)
}

#[inline(always)]
pub fn clamp<H: Header>(ctx: &XdpContext, inner: &H, offset: usize, mss: u16) {
    if mss != 0 {
        mss::clamp_xdp(ctx.ctx, (offset + inner.transport_offset()) as u32, mss);
    }
}

/// Moves the start of the packet by `bytes` towards its end. The point of no return: once it
/// succeeds the packet is not the one that came.
#[inline(always)]
pub fn strip<const ANY: bool>(ctx: &XdpContext, bytes: i32) -> Result<(), Stop> {
    // SAFETY: the context is the program's own.
    match unsafe { bpf_xdp_adjust_head(ctx.ctx, bytes) } {
        0 => Ok(()),
        _ => Err(detour::or::<ANY>(Outcome::NoHeadroom)),
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
pub fn tc(ctx: &TcContext, frame: &Frame, received: &Received) -> Result<Outcome, Stop> {
    let packets = packet_count(ctx);
    let summed = received.gre.has_checksum() && packets == 1;
    // Options may have moved the inner header behind what has been brought together.
    let wanted =
        if summed { ctx.len() } else { received.inner_offset as u32 + packet::INNER_HEADERS };
    let packet = Packet::of_tc(ctx, wanted);
    let (payload, judged) =
        accept(&packet, received, packets, |offset, len| checksum::sum_tc(ctx, offset, len))
            .map_err(|outcome| Stop::on(received.id, outcome))?;
    let inside = Inside { frame, received, judged, packets };
    match payload {
        Payload::Ipv4 => into_device::<Ipv4Header>(ctx, &packet, &inside),
        Payload::Ipv6 => into_device::<Ipv6Header>(ctx, &packet, &inside),
        Payload::Ethernet => frames::out_tc(ctx, &inside),
        Payload::Other(ethertype) => {
            lift(ctx, &inside, ethertype.to_be(), received.inner_len)?;
            hand_over(ctx, &inside)
        }
    }
}

/// A packet that TC takes out of its tunnel.
pub struct Inside<'a> {
    pub frame: &'a Frame,
    pub received: &'a Received,
    pub judged: Option<Judged>,
    pub packets: u32,
}

#[inline(always)]
fn into_device<H: Header>(
    ctx: &TcContext,
    packet: &Packet,
    inside: &Inside<'_>,
) -> Result<Outcome, Stop> {
    let received = inside.received;
    let inner: H =
        inner::<H, true>(packet, received).map_err(|outcome| Stop::on(received.id, outcome))?;
    if let Entry::Tunnel(next) = inner.route()
        && inner.destination_is_unicast()
        && is_loop::<true>(packet, inside.frame, received, next)
    {
        return Err(Stop::on(received.id, Outcome::Loop));
    }
    let mss = mss::limit(packet, mss::of::<H>(received.tunnel), &inner, received.inner_offset);
    // Ethernet's padding is no part of the packet; where the kernel has merged packets it has also
    // added up their lengths.
    lift(ctx, inside, H::ETHERTYPE, inner.total_len())?;
    inner
        .write_back(&Packet::of_tc(ctx, packet::INNER), ethernet::HEADER_LEN)
        .ok_or(Stop::on(received.id, Outcome::Aborted))?;
    if mss != 0 {
        let tcp = ethernet::HEADER_LEN + inner.transport_offset();
        mss::clamp_tc(ctx.skb.skb, tcp as u32, mss);
    }
    hand_over(ctx, inside)
}

/// Takes the outer header off, addresses the frame to the tunnel's device and counts it, `len` bytes
/// long inside.
#[inline(always)]
fn lift(ctx: &TcContext, inside: &Inside<'_>, ethertype: u16, len: u32) -> Result<(), Stop> {
    let received = inside.received;
    let device = forward::next_hop(received.tunnel.device).ok_or(Outcome::TunnelDown)?;
    shrink(ctx, received, received.inner_offset - ethernet::HEADER_LEN, ethertype)?;
    counters::receive(Tier::Tc, received.id, inside.packets, len);
    sequence::accept(received.id, inside.judged);
    encap::ethernet(&Packet::of_tc(ctx, packet::INNER), device, ethertype)?;
    Ok(())
}

/// Takes out `bytes` behind the Ethernet header; what comes then has an EtherType. What the helper
/// cannot shrink is left to the daemon.
#[inline(always)]
pub fn shrink(
    ctx: &TcContext,
    received: &Received,
    bytes: usize,
    ethertype: u16,
) -> Result<(), Stop> {
    // A segment's size is not changed by taking the outer header off.
    let fixed = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    let bytes = bytes as i32;
    let shrink = |flags| ctx.adjust_room(-bytes, BPF_ADJ_ROOM_MAC, fixed | flags);
    let is_v6 = received.tunnel.flags.has(Flags::IPV6);
    // Tells the kernel that the version changes (Linux 6.3). Without it, it takes no inner packet
    // that is shorter than a header of the outer version.
    let shrunk = match ethertype {
        ETHERTYPE_IPV4 if is_v6 => shrink(u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV4)),
        ETHERTYPE_IPV6 if !is_v6 => shrink(u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6)),
        _ => shrink(0),
    };
    if shrunk.or_else(|_| shrink(0)).is_ok() {
        return Ok(());
    }
    Err(if events::send(ctx, event::Kind::OuterOptions, received.id, ctx.len()) {
        Outcome::Unwrapping.into()
    } else {
        Stop::on(received.id, Outcome::Aborted)
    })
}

/// Out of the peer, so that the device's own counters see it; but an MTU is for what is sent, and a
/// peer may send more than the device may.
#[inline(always)]
pub fn hand_over(ctx: &TcContext, inside: &Inside<'_>) -> Result<Outcome, Stop> {
    let Inside { received, packets, .. } = inside;
    let aborted = Stop::on(received.id, Outcome::Aborted);
    let device = forward::next_hop(received.tunnel.device).ok_or(aborted)?;
    let left = ctx.len() - ethernet::HEADER_LEN as u32;
    let too_big = *packets == 1 && left > u32::from(received.tunnel.mtu);
    let (ifindex, flags) = if too_big {
        (received.tunnel.ifindex, u64::from(BPF_F_INGRESS))
    } else {
        (device.ifindex, 0)
    };
    // SAFETY: the helper has no precondition.
    let action = unsafe { bpf_redirect(ifindex, flags) };
    if !verdict::tc_redirects(action) {
        return Err(aborted);
    }
    Ok(Outcome::ToDevice)
}
