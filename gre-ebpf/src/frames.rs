//! Ethernet frames out of tunnels and into them: protocol type 0x6558, the kernel's gretap.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_md,
    },
    helpers::{bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_vlan_pop},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    decapsulate,
    encapsulate::Inner,
    next_hop,
    outcome::{Outcome, Stop},
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, HEADER_LEN},
        ipv4::Ipv4Header,
        ipv6::Ipv6Header,
        vlan::{self, TAG_LEN},
    },
};

use crate::{
    checksum, counters,
    decap::{self, Inside},
    encap, forward,
    header::Header,
    mss,
    packet::{self, Packet},
    parse::Frame,
    sequence::{self, Judged},
    skb,
    tunnels::Received,
    verifier::{OFFSETS, forget, opaque},
};

/// The longest front of a frame: its header with two VLAN tags.
const FRONT: u32 = (HEADER_LEN + 2 * TAG_LEN) as u32;
/// Bytes of the smallest frame (IEEE 802.3, 4A.4.2), without its check sequence.
const SMALLEST: u32 = 60;

/// The Ethernet header in a tunnel's packet.
#[inline(always)]
fn header(packet: &Packet, received: &Received) -> Result<EthernetHeader, Outcome> {
    let header: EthernetHeader = packet
        .read(received.inner_offset)
        .filter(|_| received.inner_len >= HEADER_LEN as u32)
        .ok_or(Outcome::InnerTruncated)?;
    decapsulate::source(header.source())?;
    Ok(header)
}

/// XDP: takes the outer header off, and hands the frame to the tunnel's device.
#[inline(always)]
pub fn out_xdp(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame,
    received: &Received,
    judged: Option<Judged>,
) -> Result<Outcome, Stop> {
    let on = |outcome| Stop::on(received.id, outcome);
    header(packet, received).map_err(on)?;
    // A veth takes no frame that is longer than its MTU; TC has another way in.
    if packet.len() - received.inner_offset as u32 > longest_frame(received.tunnel) {
        return Err(Outcome::TooBig.into());
    }
    let device = forward::next_hop(received.tunnel.device).ok_or(Outcome::TunnelDown)?;
    if !forward::can_redirect(frame.port, device) || !forward::redirect(device) {
        return Err(Outcome::EgressWithoutXdp.into());
    }
    if let Some(changes) = Changes::of(received.tunnel, received.dsfield) {
        amended(xgre_amend_xdp(ctx.ctx, received.inner_offset as u64, changes.0)).map_err(on)?;
    }
    decap::strip(ctx, received.inner_offset as i32)?;
    // Nothing below hands the packet on as it came: it has been changed.
    counters::receive(Tier::Xdp, received.id, 1, received.inner_len);
    sequence::accept(received.id, judged);
    Ok(Outcome::ToDevice)
}

/// Bytes of the longest frame that the tunnel's device takes.
#[inline(always)]
fn longest_frame(tunnel: &Tunnel) -> u32 {
    u32::from(tunnel.mtu) + HEADER_LEN as u32
}

/// TC: takes the outer header off, and hands the frame to the tunnel's device.
#[inline(always)]
pub fn out_tc(ctx: &TcContext, inside: &Inside<'_>) -> Result<Outcome, Stop> {
    let received = inside.received;
    let on = |outcome| Stop::on(received.id, outcome);
    let offset = received.inner_offset as u32;
    // What is left must not be shorter than an IP header, or the helper will not shrink it. One that is
    // marked as encapsulated, as those are that another tunnel on this machine sent, cannot be padded
    // (bpf_skb_change_tail); it may be long enough nevertheless, and else is the daemon's.
    if ctx.len() < offset + SMALLEST {
        // SAFETY: the context is the program's own.
        let _ = unsafe { bpf_skb_change_tail(ctx.skb.skb, offset + SMALLEST, 0) };
    }
    let packet = Packet::of_tc(ctx, offset + FRONT + packet::INNER_HEADERS);
    let header = header(&packet, received).map_err(on)?;
    if let Some(changes) = Changes::of(received.tunnel, received.dsfield) {
        amended(xgre_amend_tc(ctx.skb.skb, u64::from(offset), changes.0)).map_err(on)?;
    }
    decap::shrink(ctx, received, received.inner_offset, header.ethertype())?;
    counters::receive(Tier::Tc, received.id, inside.packets, received.inner_len);
    sequence::accept(received.id, inside.judged);
    Packet::of_tc(ctx, packet::INNER).write(0, header.words()).ok_or(on(Outcome::Aborted))?;
    decap::hand_over(ctx, inside)
}

/// What is changed in the IP packet of a frame: congestion that the outer header tells of, and TCP's
/// segment size. One word, for a function of its own.
#[derive(Clone, Copy)]
struct Changes(u64);

impl Changes {
    /// None where nothing can be to change: of the outer header's ECN bits only the second one says
    /// anything that the inner one's do not (RFC 6040, 4.2).
    #[inline(always)]
    fn of(tunnel: &Tunnel, dsfield: u8) -> Option<Self> {
        let congestion = dsfield & 1;
        let [v4, v6] = tunnel.mss;
        if u16::from(congestion) | v4 | v6 == 0 {
            return None;
        }
        Some(Self(u64::from(dsfield) | u64::from(v4) << 16 | u64::from(v6) << 32))
    }

    #[inline(always)]
    fn dsfield(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    fn mss<H: Header>(self) -> u16 {
        (self.0 >> (16 + 16 * H::MSS_INDEX)) as u16
    }
}

const REFUSED: u32 = 1;

#[inline(always)]
fn amended(result: u32) -> Result<(), Outcome> {
    if result == REFUSED { Err(Outcome::EcnInvalid) } else { Ok(()) }
}

// Functions of their own, which the verifier looks at once: few frames need them.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_amend_xdp(ctx: *mut xdp_md, offset: u64, changes: u64) -> u32 {
    let packet = Packet::of_xdp(&XdpContext::new(ctx));
    amend(&packet, offset, Changes(changes), |tcp, mss| mss::clamp_xdp(ctx, tcp, mss))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_amend_tc(ctx: *mut __sk_buff, offset: u64, changes: u64) -> u32 {
    let packet = Packet::of_tc(&TcContext::new(ctx), 0);
    amend(&packet, offset, Changes(changes), |tcp, mss| mss::clamp_tc(ctx, tcp, mss))
}

/// Changes the IP packet, if there is one, of the frame at `offset`. Says whether it must be dropped.
#[inline(always)]
fn amend(packet: &Packet, offset: u64, changes: Changes, clamp: impl Fn(u32, u16)) -> u32 {
    if offset > OFFSETS as u64 - 64 {
        return 0;
    }
    let offset = forget(offset as usize, packet.len());
    let Some((ethertype, at)) = network_layer(packet, offset) else { return 0 };
    match ethertype {
        ETHERTYPE_IPV4 => amend_ip::<Ipv4Header>(packet, at, changes, clamp),
        ETHERTYPE_IPV6 => amend_ip::<Ipv6Header>(packet, at, changes, clamp),
        _ => 0,
    }
}

/// EtherType, and where its packet is, behind up to two VLAN tags of the frame at `offset`.
#[inline(always)]
fn network_layer(packet: &Packet, offset: usize) -> Option<(u16, usize)> {
    let mut at = offset + HEADER_LEN - 2;
    let mut ethertype: u16 = packet.read(at)?;
    for _ in 0..2 {
        if vlan::is_tag(ethertype) {
            at = forget(at + TAG_LEN, packet.len());
            ethertype = packet.read(at)?;
        }
    }
    Some((ethertype, forget(at + 2, packet.len())))
}

#[inline(always)]
fn amend_ip<H: Header>(
    packet: &Packet,
    at: usize,
    changes: Changes,
    clamp: impl Fn(u32, u16),
) -> u32 {
    let Some(inner) = packet.read::<H>(at) else { return 0 };
    let Ok(changed) = decapsulate::congestion(inner, changes.dsfield()) else { return REFUSED };
    if changed.dsfield() != inner.dsfield() {
        // It has just been read there; but the verifier wants to see it checked again.
        let _ = changed.write_back(packet, forget(opaque(at), packet.len()));
    }
    let mss = mss::limit(packet, changes.mss::<H>(), &inner, at);
    if mss != 0 {
        clamp((at + inner.transport_offset()) as u32, mss);
    }
    0
}

/// The front of a frame that the kernel sent to a tunnel's device: addresses and up to two VLAN tags,
/// which the kernel keeps apart from the frame, or in it. Without padding and aligned, so that copies
/// on the stack are accesses that the verifier takes.
#[repr(C, align(8))]
struct Front {
    addresses: [u32; 3],
    /// Behind the tags, in memory order.
    ethertype: u32,
    /// Each TPID and control information, as they stand in a frame; 0 is none.
    tags: [u32; 2],
}

impl Front {
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.ethertype as u16
    }

    #[inline(always)]
    fn tags_len(&self) -> usize {
        let [outer, inner] = self.tags;
        (if outer != 0 { TAG_LEN } else { 0 }) + (if inner != 0 { TAG_LEN } else { 0 })
    }

    /// Takes the tags out of the frame, so that the kernel sees its network layer behind 14 bytes.
    #[inline(always)]
    fn take(ctx: &TcContext) -> Option<Self> {
        let header = Packet::of_tc(ctx, FRONT).read::<EthernetHeader>(0)?;
        let mut front = Self {
            addresses: header.addresses(),
            ethertype: header.ethertype().into(),
            tags: [0; 2],
        };
        for i in 0..front.tags.len() {
            let skb = skb(ctx);
            front.tags[i] = if skb.vlan_present != 0 {
                words(skb.vlan_proto as u16, (skb.vlan_tci as u16).to_be())
            } else if vlan::is_tag(front.ethertype()) {
                Packet::of_tc(ctx, FRONT).read(HEADER_LEN - 2)?
            } else {
                break;
            };
            // SAFETY: the context is the program's own.
            if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
                return None;
            }
            front.ethertype = Packet::of_tc(ctx, FRONT).read::<u16>(HEADER_LEN - 2)?.into();
        }
        Some(front)
    }

    /// Writes it at `offset`.
    #[inline(always)]
    fn write(&self, packet: &Packet, offset: usize) -> Option<()> {
        packet.write(offset, self.addresses)?;
        let mut at = offset + HEADER_LEN - 2;
        for tag in self.tags {
            if tag != 0 {
                packet.write(at, [tag])?;
                at += TAG_LEN;
            }
        }
        packet.write(at, [self.ethertype()])
    }
}

/// Two half words in memory order as one word.
#[inline(always)]
const fn words(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// TC: encapsulates a frame that the kernel sent to a tunnel's device, a GSO packet whole.
#[inline(always)]
pub fn into_tc(ctx: &TcContext, id: u32, tunnel: &'static Tunnel) -> Result<Outcome, Stop> {
    let stop = |outcome| Stop::on(id, outcome);
    let next_hop = encap::underlay(id, tunnel)?;
    let front = Front::take(ctx).ok_or(stop(Outcome::Aborted))?;
    let len = ctx.len() + front.tags_len() as u32;
    let packet = Packet::of_tc(ctx, packet::INNER);
    let (inner, longest) = match front.ethertype() {
        ETHERTYPE_IPV4 => of_ip::<Ipv4Header>(ctx, &packet, len),
        ETHERTYPE_IPV6 => of_ip::<Ipv6Header>(ctx, &packet, len),
        _ => None,
    }
    .unwrap_or((Inner::other(0, len), len));
    // Of a packet behind tags the kernel takes nothing (ip_tunnel_xmit).
    let is_tagged = front.tags[0] != 0;
    let inner = if is_tagged { Inner::other(0, len) } else { inner }.framed(len);
    let front_len = HEADER_LEN + front.tags_len();
    if longest + u32::from(tunnel.overhead) > encap::limit(tunnel, next_hop) {
        return Err(encap::oversize(ctx, id, front.tags));
    }
    if let Some(changes) = Changes::of(tunnel, 0) {
        // Without a DS field nothing is refused.
        xgre_amend_tc(ctx.skb.skb, 0, changes.0);
    }
    let is_ip = matches!(front.ethertype(), ETHERTYPE_IPV4 | ETHERTYPE_IPV6);
    let by_frame = !is_ip || !next_hop.is_untagged();
    if by_frame && !next_hop.flags.has(next_hop::Flags::RESOLVED) {
        // Only the kernel could resolve it, and it takes no frames.
        return Err(encap::other_protocol(ctx, id, front.tags));
    }
    grow(ctx, tunnel, front_len, is_ip).ok_or(stop(Outcome::Aborted))?;
    let packets = decap::packet_count(ctx);
    let identification = counters::transmit(Tier::Tc, id, packets, len);
    let summed = tunnel.flags.has(Flags::CHECKSUM_SENT);
    let packet =
        Packet::of_tc(ctx, if summed { ctx.len() } else { packet::OUTER_AND_INNER + FRONT });
    let written = encap::outer_headers(&packet, id, tunnel, &inner, identification)?;
    front.write(&packet, written.inner).ok_or(stop(Outcome::Aborted))?;
    let sum = |offset, len| checksum::sum_tc(ctx, offset, len);
    encap::finish(&packet, tunnel, &written, len, sum)?;
    encap::send(ctx, id, next_hop, by_frame)
}

/// What the outer header takes from an IP packet in a frame of `len` bytes, and how long the longest
/// frame is that a GSO packet is cut into.
#[inline(always)]
fn of_ip<H: Header>(ctx: &TcContext, packet: &Packet, len: u32) -> Option<(Inner, u32)> {
    let inner: H = packet.read(HEADER_LEN)?;
    let before = len - (ctx.len() - HEADER_LEN as u32);
    let longest = before + encap::longest(ctx, packet, &inner, ctx.len() - HEADER_LEN as u32);
    Some((Inner::of(&inner, len), longest))
}

/// Makes room for the outer headers and the frame's own in front of its network layer. The helper
/// that tells the kernel what the room is for, so that it can cut a GSO packet, takes IP alone.
#[inline(always)]
fn grow(ctx: &TcContext, tunnel: &Tunnel, front_len: usize, is_ip: bool) -> Option<()> {
    let room = i32::from(tunnel.overhead) + front_len as i32;
    if !is_ip {
        // SAFETY: the context is the program's own.
        let grown = unsafe { bpf_skb_change_head(ctx.skb.skb, room as u32, 0) };
        return (grown == 0 && skb(ctx).gso_size == 0).then_some(());
    }
    let version = if tunnel.flags.has(Flags::IPV6) {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    };
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO
        | BPF_F_ADJ_ROOM_ENCAP_L4_GRE
        | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
        | version;
    let flags = u64::from(flags) | (front_len as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
    // As with IP packets, one that is marked as encapsulated already keeps its marks.
    ctx.adjust_room(room, BPF_ADJ_ROOM_MAC, flags)
        .or_else(|_| ctx.adjust_room(room, BPF_ADJ_ROOM_MAC, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)))
        .ok()
}
