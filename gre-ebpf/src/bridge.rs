//! Frames that a bridge forwards: between its ports and the tunnels that are its members, where the
//! kernel's bridge would do no more than send them where their destination is.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, HashMap},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    bridge::{Address, Member, Station, Until},
    next_hop::NextHop,
    outcome::{Outcome, Stop},
    port::{self, Port},
    tunnel::Flags,
    wire::{
        ethernet::{EthernetHeader, HEADER_LEN, Mac},
        vlan::{ETHERTYPE_8021Q, TAG_LEN, is_tag},
    },
};

use crate::{
    encap, forward, frames,
    packet::{self, Packet},
    skb, tunnels,
};

/// Interface index to member.
#[map]
static BRIDGE_MEMBERS: Array<Member> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static FDB: HashMap<Address, Station> = HashMap::with_max_entries(1, 0);

/// One word.
#[map]
static BRIDGES_UNTIL: Array<Until> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The start of a frame, as a bridge sees it.
pub struct Seen {
    source: Mac,
    destination: Mac,
    /// VLAN id of a tag of 802.1Q, host order; 0 without, and where it has priority alone.
    vlan: u16,
    tagged: bool,
}

impl Seen {
    /// Of a frame that has its tags in it.
    #[inline(always)]
    pub fn of_frame(packet: &Packet, header: &EthernetHeader, offset: usize) -> Self {
        let tagged = header.ethertype() == ETHERTYPE_8021Q;
        let control = if tagged { packet.read::<u16>(offset + HEADER_LEN) } else { None };
        Self::new(header, tagged, u16::from_be(control.unwrap_or(0)))
    }

    #[inline(always)]
    fn new(header: &EthernetHeader, tagged: bool, control: u16) -> Self {
        let (source, destination) = (header.source(), header.destination());
        Self { source, destination, vlan: control & 0xfff, tagged }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy)]
pub enum Way {
    /// Out of a port, by this next hop.
    Port(u32),
    Tunnel(u32),
}

/// Where a frame goes that came in on a member; why the kernel's bridge must say so, otherwise.
#[inline(always)]
pub fn way(ingress: u32, seen: &Seen) -> Result<Way, Outcome> {
    look_up(ingress, seen, 0)
}

#[inline(always)]
fn look_up(ingress: u32, seen: &Seen, how: u64) -> Result<Way, Outcome> {
    let tag = how | u64::from(seen.tagged) << 16 | u64::from(seen.vlan);
    let word = xgre_bridge(ingress, seen.source.number(), seen.destination.number(), tag);
    let id = word as u32;
    match word >> 32 {
        TO_PORT => Ok(Way::Port(id)),
        TO_TUNNEL => Ok(Way::Tunnel(id)),
        REFRESH => Err(Outcome::BridgeRefresh),
        DOUBT => Err(Outcome::BridgeDoubt),
        GROUP if seen.destination.is_broadcast() => Err(Outcome::BridgeBroadcast),
        GROUP => Err(Outcome::BridgeMulticast),
        _ => Err(Outcome::BridgeUnknown),
    }
}

/// In the tag of a look-up, above the tag itself: the kernel's bridge sees this frame whatever is found, and so
/// learns where its source is.
const SEEN_BY_BRIDGE: u64 = 1 << 17;

const UNKNOWN: u64 = 0;
const REFRESH: u64 = 1;
const DOUBT: u64 = 2;
const TO_PORT: u64 = 3;
const TO_TUNNEL: u64 = 4;
const GROUP: u64 = 5;

/// A function of its own, which the verifier looks at once. Says two half words: what, and which.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_bridge(ingress: u32, source: u64, destination: u64, tag: u64) -> u64 {
    let Some(member) = BRIDGE_MEMBERS.get(ingress).filter(|member| member.bridge != 0) else {
        return UNKNOWN << 32;
    };
    let (source, destination) = (Mac::from_number(source), Mac::from_number(destination));
    let (tagged, id) = (tag & 1 << 16 != 0, tag as u16);
    let vlan = match (member.filters_vlans(), id) {
        (false, _) => 0,
        (true, 0) => member.pvid,
        (true, id) => id,
    };
    if destination.is_group() {
        return GROUP << 32;
    }
    // The kernel puts the VLAN into a tag that has a priority alone.
    let incomplete = vlan == 0 || tagged && id == 0;
    if member.filters_vlans() && incomplete {
        return UNKNOWN << 32;
    }
    let from = if tag & SEEN_BY_BRIDGE == 0 {
        let from = station(&Address::new(member.bridge, vlan, source));
        if from.is_none() {
            return UNKNOWN << 32;
        }
        from
    } else {
        None
    };
    let Some(to) = station(&Address::new(member.bridge, vlan, destination)) else {
        return UNKNOWN << 32;
    };
    // One that has moved the bridge must learn anew.
    if from.as_ref().is_some_and(|from| from.member != ingress) || to.member == ingress {
        return UNKNOWN << 32;
    }
    // A frame that must get a tag or lose it is the kernel's.
    if member.filters_vlans() && (to.untagged != 0) == tagged {
        return UNKNOWN << 32;
    }
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if now > BRIDGES_UNTIL.get(0).copied().unwrap_or(0) {
        return DOUBT << 32;
    }
    if let Some(from) = from.filter(|from| now >= from.refresh_at) {
        from.refresh_at = now + u64::from(member.refresh) * 1_000_000;
        return REFRESH << 32;
    }
    match to.tunnel() {
        Some(tunnel) => TO_TUNNEL << 32 | u64::from(tunnel),
        None => TO_PORT << 32 | u64::from(to.next_hop),
    }
}

#[inline(always)]
fn station(address: &Address) -> Option<&'static mut Station> {
    // SAFETY: an entry that is replaced meanwhile is still a station, and of two CPUs that write the
    // time at once either may be right.
    FDB.get_ptr_mut(address).and_then(|station| unsafe { station.as_mut() })
}

/// The next hop of a port that takes a frame of `len` bytes, if XDP can send it there.
#[inline(always)]
pub fn out_of(
    packet: &Packet,
    ingress: &Port,
    id: u32,
    len: u32,
    tagged: bool,
) -> Result<&'static NextHop, Outcome> {
    let next_hop = forward::next_hop(id).ok_or(Outcome::BridgeUnknown)?;
    // As the kernel's (is_skb_forwardable).
    let tag = if tagged { TAG_LEN as u32 } else { 0 };
    if len > next_hop.mtu + HEADER_LEN as u32 + tag {
        return Err(Outcome::TooBig);
    }
    forward::can_redirect(packet, ingress, next_hop)?;
    Ok(next_hop)
}

/// XDP: a frame that came in on a port which is a bridge's member, and is not for this host itself.
#[inline(always)]
pub fn xdp(ctx: &XdpContext, packet: &Packet, port: &Port) -> Result<Outcome, Stop> {
    let header: EthernetHeader = packet.read(0).ok_or(Outcome::BridgeUnknown)?;
    let seen = Seen::of_frame(packet, &header, 0);
    match way(port.ifindex, &seen)? {
        Way::Tunnel(id) => frames::into_xdp(ctx, packet, port, id, &header),
        Way::Port(id) => {
            let next_hop = out_of(packet, port, id, packet.len(), is_tag(header.ethertype()))?;
            if !forward::redirect(next_hop) {
                return Err(Outcome::EgressWithoutXdp.into());
            }
            Ok(Outcome::Bridged)
        }
    }
}

/// TC: a frame on its way to the kernel's bridge. The bridge would drop without a word what is longer
/// than the tunnel's device takes; the daemon fragments it, or tells its sender.
#[inline(always)]
pub fn tc(ctx: &TcContext, port: &Port) -> Result<Outcome, Stop> {
    let packet = Packet::of_tc(ctx, packet::INNER);
    let header: EthernetHeader = packet.read(0).ok_or(Outcome::BridgeUnknown)?;
    let skb = skb(ctx);
    let seen = if skb.vlan_present == 0 {
        Seen::of_frame(&packet, &header, 0)
    } else {
        Seen::new(&header, skb.vlan_proto as u16 == ETHERTYPE_8021Q, skb.vlan_tci as u16)
    };
    let Way::Tunnel(id) = look_up(port.ifindex, &seen, SEEN_BY_BRIDGE)? else {
        return Err(Outcome::BridgeUnknown.into());
    };
    let tunnel = tunnels::get(id).ok_or(Outcome::BridgeUnknown)?;
    if tunnel.flags.has(Flags::ADOPTED) {
        return Err(Outcome::Adopted.into());
    }
    if frames::longest(ctx, &packet) <= frames::longest_frame(tunnel) {
        return Err(Outcome::BridgeUnknown.into());
    }
    Err(encap::oversize(ctx, id, frames::tags_beside(ctx)))
}

/// Whether a frame from this port is its bridge's to forward.
#[inline(always)]
pub fn is_member(port: &Port) -> bool {
    port.flags.has(port::Flags::BRIDGED)
}
