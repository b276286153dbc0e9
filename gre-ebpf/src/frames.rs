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
    port::Port,
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, HEADER_LEN},
        ipv4::Ipv4Header,
        ipv6::Ipv6Header,
        vlan::{self, TAG_LEN},
    },
};

use crate::{
    bridge::{self, Seen, Way},
    checksum, counters,
    decap::{self, Inside},
    encap, forward, fragment,
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
    let header = header(packet, received).map_err(on)?;
    let seen = Seen::of_frame(packet, &header, received.inner_offset);
    let len = packet.len() - received.inner_offset as u32;
    if let Ok(Way::Port(id)) = bridge::way(received.tunnel.ifindex, &seen)
        && let Ok(next_hop) =
            bridge::out_of(packet, frame.port, id, len, vlan::is_tag(header.ethertype()))
    {
        if !forward::redirect(next_hop) {
            return Err(Outcome::EgressWithoutXdp.into());
        }
        take_out(ctx, received, judged)?;
        return Ok(Outcome::Decapsulated);
    }
    if received.tunnel.flags.has(Flags::ADOPTED) {
        return Err(Outcome::Adopted.into());
    }
    // A veth takes no frame that is longer than its MTU; TC has another way in.
    if len > longest_frame(received.tunnel) {
        return Err(Outcome::TooBig.into());
    }
    let device = forward::next_hop(received.tunnel.device).ok_or(Outcome::TunnelDown)?;
    forward::can_redirect(packet, frame.port, device)?;
    if !forward::redirect(device) {
        return Err(Outcome::EgressWithoutXdp.into());
    }
    take_out(ctx, received, judged)?;
    Ok(to_device(&header))
}

/// What becomes of a frame that the tunnel's device gets: storms are told apart from what is for one station.
#[inline(always)]
fn to_device(header: &EthernetHeader) -> Outcome {
    let destination = header.destination();
    if destination.is_broadcast() {
        Outcome::BroadcastToDevice
    } else if destination.is_group() {
        Outcome::MulticastToDevice
    } else {
        Outcome::ToDevice
    }
}

/// Takes the outer header off a frame whose redirect is armed, and counts it.
#[inline(always)]
fn take_out(ctx: &XdpContext, received: &Received, judged: Option<Judged>) -> Result<(), Stop> {
    let on = |outcome| Stop::on(received.id, outcome);
    if let Some(changes) = Changes::of(received.tunnel, received.dsfield) {
        let amended = xgre_amend_xdp(ctx.ctx, received.inner_offset as u64, changes.0);
        if let Some(syn) = Syn::of(amended).map_err(on)? {
            mss::clamp_xdp(ctx.ctx, syn.tcp, syn.mss);
        }
    }
    decap::strip::<true>(ctx, received.inner_offset as i32)?;
    // Nothing below hands the packet on as it came: it has been changed.
    counters::receive(Tier::Xdp, received.id, 1, received.inner_len);
    sequence::accept(received.id, judged);
    Ok(())
}

/// XDP: sends a frame that its bridge forwards from a port into a tunnel.
#[inline(always)]
pub fn into_xdp(
    ctx: &XdpContext,
    packet: &Packet,
    port: &Port,
    id: u32,
    header: &EthernetHeader,
) -> Result<Outcome, Stop> {
    let on = |outcome| Stop::on(id, outcome);
    let len = packet.len();
    let (tunnel, next_hop) = encap::ready::<true>(packet, port, id, len - HEADER_LEN as u32)?;
    if len + u32::from(tunnel.overhead) > next_hop.mtu {
        return Err(Outcome::TooBig.into());
    }
    let mut inner = Inner::other(0, len);
    match header.ethertype() {
        ETHERTYPE_IPV4 => summarise::<Ipv4Header>(packet, &mut inner),
        ETHERTYPE_IPV6 => summarise::<Ipv6Header>(packet, &mut inner),
        _ => {}
    }
    let inner = inner.framed(len);
    if !forward::redirect(next_hop) {
        return Err(Outcome::EgressWithoutXdp.into());
    }
    if let Some(changes) = Changes::of(tunnel, 0)
        && let Some(syn) = Syn::of(xgre_amend_xdp(ctx.ctx, 0, changes.0)).map_err(on)?
    {
        mss::clamp_xdp(ctx.ctx, syn.tcp, syn.mss);
    }
    decap::strip::<true>(
        ctx,
        -(i32::from(tunnel.overhead) + encap::header_len::<true>(next_hop) as i32),
    )?;
    // Nothing below hands the packet on as it came: it has been changed.
    encap::before_frame(ctx, id, tunnel, next_hop, &inner)?;
    Ok(Outcome::Encapsulated)
}

/// What the outer header takes from the IP packet in an untagged frame.
#[inline(always)]
fn summarise<H: Header>(packet: &Packet, inner: &mut Inner) {
    if let Some(header) = packet.read::<H>(HEADER_LEN) {
        *inner = Inner::of(&header, inner.len);
    }
}

/// Bytes of the longest frame that the tunnel's device takes.
#[inline(always)]
pub fn longest_frame(tunnel: &Tunnel) -> u32 {
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
        amend_tc(ctx, offset, changes).map_err(on)?;
    }
    decap::shrink(ctx, received, received.inner_offset, header.ethertype())?;
    counters::receive(Tier::Tc, received.id, inside.packets, received.inner_len);
    sequence::accept(received.id, inside.judged);
    Packet::of_tc(ctx, packet::INNER).write(0, header.words()).ok_or(on(Outcome::Aborted))?;
    decap::hand_over(ctx, inside)?;
    Ok(to_device(&header))
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

/// A TCP header whose segment size is to be lowered.
struct Syn {
    tcp: u32,
    mss: u16,
}

impl Syn {
    /// What a function of its own says in one word.
    #[inline(always)]
    fn of(word: u64) -> Result<Option<Self>, Outcome> {
        match word {
            NOTHING => Ok(None),
            REFUSED => Err(Outcome::EcnInvalid),
            word => Ok(Some(Self { tcp: (word >> 16) as u32, mss: word as u16 })),
        }
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        u64::from(self.tcp) << 16 | u64::from(self.mss)
    }
}

const NOTHING: u64 = 0;
const REFUSED: u64 = u64::MAX;

#[inline(always)]
fn amend_tc(ctx: &TcContext, offset: u32, changes: Changes) -> Result<(), Outcome> {
    let amended = xgre_amend_tc(ctx.skb.skb, u64::from(offset), changes.0);
    if let Some(syn) = Syn::of(amended)? {
        mss::clamp_tc(ctx.skb.skb, syn.tcp, syn.mss);
    }
    Ok(())
}

// Functions of their own, which the verifier looks at once: few frames need them. They call no other,
// since Linux 6.1 adds up the stacks of all that are on the way.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_amend_xdp(ctx: *mut xdp_md, offset: u64, changes: u64) -> u64 {
    amend(&Packet::of_xdp(&XdpContext::new(ctx)), offset, Changes(changes))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_amend_tc(ctx: *mut __sk_buff, offset: u64, changes: u64) -> u64 {
    amend(&Packet::of_tc(&TcContext::new(ctx), 0), offset, Changes(changes))
}

/// Changes the IP packet, if there is one, of the frame at `offset`. Says whether it must be dropped,
/// and where TCP is to be changed yet.
#[inline(always)]
fn amend(packet: &Packet, offset: u64, changes: Changes) -> u64 {
    if offset > OFFSETS as u64 - 64 {
        return NOTHING;
    }
    let offset = forget(offset as usize, packet.len());
    let Some((ethertype, at)) = network_layer(packet, offset) else { return NOTHING };
    match ethertype {
        ETHERTYPE_IPV4 => amend_ip::<Ipv4Header>(packet, at, changes),
        ETHERTYPE_IPV6 => amend_ip::<Ipv6Header>(packet, at, changes),
        _ => NOTHING,
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
fn amend_ip<H: Header>(packet: &Packet, at: usize, changes: Changes) -> u64 {
    let Some(inner) = packet.read::<H>(at) else { return NOTHING };
    let Ok(changed) = decapsulate::congestion(inner, changes.dsfield()) else { return REFUSED };
    if changed.dsfield() != inner.dsfield() {
        // It has just been read there; but the verifier wants to see it checked again.
        let _ = changed.write_back(packet, forget(opaque(at), packet.len()));
    }
    let mss = mss::limit(packet, changes.mss::<H>(), &inner, at);
    if mss == 0 {
        return NOTHING;
    }
    Syn { tcp: (at + inner.transport_offset()) as u32, mss }.word()
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

/// Whether a frame has more tags than [`Front`] takes, 0 or 1: the kernel, which moves each next one beside
/// the frame, would send the third outside. Such are the frames of whom a bridge gives a VLAN to, and who
/// have two tags of their own. A function of its own, so that none of its tests are taken for later ones.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_has_more_tags(ctx: *mut __sk_buff) -> u64 {
    let ctx = &TcContext::new(ctx);
    let packet = Packet::of_tc(ctx, FRONT + TAG_LEN as u32);
    let is_tag = |depth| {
        let ethertype = packet.read::<u16>(HEADER_LEN - 2 + depth * TAG_LEN);
        ethertype.is_some_and(vlan::is_tag)
    };
    u64::from(is_tag(0) && is_tag(1) && (skb(ctx).vlan_present != 0 || is_tag(2)))
}

/// Two half words in memory order as one word.
#[inline(always)]
const fn words(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The tag that the kernel keeps beside a frame, as [`Front::tags`] has it.
#[inline(always)]
pub fn tags_beside(ctx: &TcContext) -> [u32; 2] {
    let skb = skb(ctx);
    let tag = words(skb.vlan_proto as u16, (skb.vlan_tci as u16).to_be());
    [if skb.vlan_present != 0 { tag } else { 0 }, 0]
}

/// Bytes of the longest frame that is sent for this one, a tag beside it left out.
#[inline(always)]
pub fn longest(ctx: &TcContext, packet: &Packet) -> u32 {
    let mut inner = Inner::other(0, ctx.len());
    match packet.read::<u16>(HEADER_LEN - 2) {
        Some(ETHERTYPE_IPV4) => of_ip::<Ipv4Header>(ctx, packet, ctx.len(), &mut inner),
        Some(ETHERTYPE_IPV6) => of_ip::<Ipv6Header>(ctx, packet, ctx.len(), &mut inner),
        _ => ctx.len(),
    }
}

/// TC: encapsulates a frame that the kernel sent to a tunnel's device, a GSO packet whole.
#[inline(always)]
pub fn into_tc(
    ctx: &TcContext,
    device: &Port,
    id: u32,
    tunnel: &'static Tunnel,
) -> Result<Outcome, Stop> {
    let stop = |outcome| Stop::on(id, outcome);
    let next_hop = encap::underlay(id, tunnel)?;
    if xgre_has_more_tags(ctx.skb.skb) != 0 {
        return Err(encap::other_protocol(ctx, id, tags_beside(ctx)));
    }
    let front = Front::take(ctx).ok_or(stop(Outcome::Aborted))?;
    let len = ctx.len() + front.tags_len() as u32;
    let packet = Packet::of_tc(ctx, packet::INNER);
    let mut inner = Inner::other(0, len);
    let longest = match front.ethertype() {
        ETHERTYPE_IPV4 => of_ip::<Ipv4Header>(ctx, &packet, len, &mut inner),
        ETHERTYPE_IPV6 => of_ip::<Ipv6Header>(ctx, &packet, len, &mut inner),
        _ => len,
    };
    // Of a packet behind tags the kernel takes nothing (ip_tunnel_xmit).
    let is_tagged = front.tags[0] != 0;
    let inner = if is_tagged { Inner::other(0, len) } else { inner }.framed(len);
    let front_len = HEADER_LEN + front.tags_len();
    let outer_len = longest + u32::from(tunnel.overhead);
    let in_two = encap::in_two(ctx, device, id, tunnel, next_hop, outer_len, front.tags)?;
    // What is cut outside may be cut, whatever the packet in the frame asks for itself.
    let inner = Inner { dont_fragment: inner.dont_fragment && !in_two, ..inner };
    if let Some(changes) = Changes::of(tunnel, 0) {
        amend_tc(ctx, 0, changes).map_err(stop)?;
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
    let identification = if in_two { fragment::identification() } else { identification };
    let summed = tunnel.flags.has(Flags::CHECKSUM_SENT);
    let packet =
        Packet::of_tc(ctx, if summed { ctx.len() } else { packet::OUTER_AND_INNER + FRONT });
    let written = encap::outer_headers(&packet, id, tunnel, &inner, identification)?;
    front.write(&packet, written.inner).ok_or(stop(Outcome::Aborted))?;
    let sum = |offset, len| checksum::sum_tc(ctx, offset, len);
    encap::finish(&packet, tunnel, &written, len, sum)?;
    if in_two {
        return encap::send_in_two(ctx, id, tunnel, next_hop);
    }
    encap::send(ctx, id, next_hop, by_frame)
}

/// Bytes of the longest frame that a GSO packet, a frame of `len` bytes, is cut into; and what the outer
/// header takes from the IP packet in it.
#[inline(always)]
fn of_ip<H: Header>(ctx: &TcContext, packet: &Packet, len: u32, inner: &mut Inner) -> u32 {
    let Some(header) = packet.read::<H>(HEADER_LEN) else { return len };
    *inner = Inner::of(&header, len);
    let packet_len = ctx.len() - HEADER_LEN as u32;
    len - packet_len + encap::longest(ctx, packet, &header, packet_len)
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
