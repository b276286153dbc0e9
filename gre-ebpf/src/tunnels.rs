//! Which tunnel a GRE packet belongs to, and if to none, why not.

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use gre_ebpf_common::{
    counters::Tier,
    decapsulate,
    demux::{Bucket, Key, Kind, Location},
    outcome::{Outcome, Stop},
    port,
    tunnel::{Addresses6, Ends, Flags, Sought, Tunnel},
    wire::{
        gre::{self, GreBase},
        ipv4::{self, Ipv4Header, PROTOCOL_GRE},
        ipv6::{self, Ipv6Header},
    },
};

use crate::{
    mismatch,
    packet::Packet,
    parse::Frame,
    verifier::{OFFSETS, forget},
};

/// Buckets of `DEMUX`, a power of two, less one. Set by the loader and then frozen.
#[unsafe(no_mangle)]
static DEMUX_MASK: Global<u32> = Global::new(0);

#[map]
static DEMUX: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TUNNELS: Array<Tunnel> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TUNNELS6: Array<Addresses6> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A packet of one of our tunnels.
pub struct Received {
    pub id: u32,
    pub tunnel: &'static Tunnel,
    pub gre: GreBase,
    /// TOS or traffic class of the outer header.
    pub dsfield: u8,
    /// Where the GRE header starts in the frame, and where the inner packet does.
    pub gre_offset: usize,
    pub inner_offset: usize,
    /// Bytes of the packet from the GRE header on, and from the inner packet on.
    pub gre_len: u32,
    pub inner_len: u32,
}

/// What a packet is to the tunnels.
pub enum Gre {
    Ours(Received),
    /// GRE that does not run between the addresses of any tunnel, whatever it looks like: it may be
    /// another's, on its way through.
    Foreign,
    /// Not GRE.
    None,
}

/// The record of a tunnel; a miss is an id beyond the map, which no map of ours names.
#[inline(always)]
pub fn get(id: u32) -> Option<&'static Tunnel> {
    TUNNELS.get(id)
}

/// The addresses of a tunnel over IPv6.
#[inline(always)]
pub fn addresses6(id: u32) -> Option<&'static Addresses6> {
    TUNNELS6.get(id)
}

/// Whether the kernel's own device is the tunnel's.
#[inline(always)]
pub fn is_adopted(id: u32) -> bool {
    get(id).is_some_and(|tunnel| tunnel.flags.has(Flags::ADOPTED))
}

/// Where GRE is in a packet from the underlay.
struct Outer {
    ends: Ends,
    dsfield: u8,
    offset: usize,
    len: u32,
}

impl Outer {
    #[inline(always)]
    fn received(&self, id: u32, tunnel: &'static Tunnel, gre: GreBase) -> Received {
        let header_len = gre.header_len();
        Received {
            id,
            tunnel,
            gre,
            dsfield: self.dsfield,
            gre_offset: self.offset,
            inner_offset: self.offset + header_len,
            gre_len: self.len,
            inner_len: self.len - header_len as u32,
        }
    }
}

/// Finds the tunnel of an IPv4 packet.
#[inline(always)]
pub fn receive4<const ANY: bool>(
    packet: &Packet,
    frame: &Frame,
    ip: &Ipv4Header,
) -> Result<Gre, Stop> {
    if ip.protocol() != PROTOCOL_GRE {
        return Ok(Gre::None);
    }
    let ends = Ends::v4(ip.destination(), ip.source());
    if !ANY {
        return plainest(packet, frame, ip, ends);
    }
    if ip.is_fragment() {
        // Only the first one has the key.
        return hand_up(&ends, Outcome::OuterFragment);
    }
    let header_len = ip.header_len();
    if header_len > ipv4::HEADER_LEN
        && packet.sum_words(frame.header_len, header_len) != Some(0xffff)
    {
        return Err(Outcome::Ipv4Malformed.into());
    }
    let len = u32::from(ip.total_len()) - header_len as u32;
    let offset = frame.header_len + header_len;
    receive(packet, frame, Outer { ends, dsfield: ip.tos(), offset, len })
}

/// A whole packet with IPv4 inside and at most a key, of a tunnel with both addresses given.
#[inline(always)]
fn plainest(packet: &Packet, frame: &Frame, ip: &Ipv4Header, ends: Ends) -> Result<Gre, Stop> {
    let detour = Err(Outcome::Detour.into());
    let offset = frame.header_len + ipv4::HEADER_LEN;
    let len = u32::from(ip.total_len()) - ipv4::HEADER_LEN as u32;
    if ip.is_fragment() || frame.port.flags.has(port::Flags::TUNNEL_BOUND) {
        return detour;
    }
    let (gre, kind) = match packet.read(offset) {
        Some(KEYLESS) => (KEYLESS, Kind::KEYLESS),
        Some(KEYED) => match packet.read(offset + gre::BASE_LEN) {
            Some(key) => (KEYED, Kind::keyed(key)),
            None => return detour,
        },
        Some(FRAME | KEYED_FRAME) => return Err(Outcome::DetourOfFrames.into()),
        _ => return detour,
    };
    if len < gre.header_len() as u32 {
        return detour;
    }
    let key = Key { ends, kind, link: 0 };
    match search::<false>(&key) {
        Some((id, tunnel)) => {
            let outer = Outer { ends, dsfield: ip.tos(), offset, len };
            Ok(Gre::Ours(outer.received(id, tunnel, gre)))
        }
        None => detour,
    }
}

/// The headers of plain packets.
const KEYLESS: GreBase = GreBase::new(0, gre::PROTOCOL_IPV4);
const KEYED: GreBase = GreBase::new(gre::KEY, gre::PROTOCOL_IPV4);
const FRAME: GreBase = GreBase::new(0, gre::PROTOCOL_ETHERNET);
const KEYED_FRAME: GreBase = GreBase::new(gre::KEY, gre::PROTOCOL_ETHERNET);

/// Extension headers in front of GRE that are skipped; Linux sends one.
const EXTENSIONS: usize = 3;

/// Finds the tunnel of an IPv6 packet.
#[inline(always)]
pub fn receive6(packet: &Packet, frame: &Frame, ip: &Ipv6Header) -> Result<Gre, Stop> {
    let mut next_header = ip.next_header();
    let mut offset = frame.header_len + ipv6::HEADER_LEN;
    let mut len = u32::from(ip.payload_len());
    for _ in 0..EXTENSIONS {
        let options = next_header == ipv6::NEXT_HEADER_DESTINATION_OPTIONS
            || next_header == ipv6::NEXT_HEADER_HOP_BY_HOP;
        if !options {
            break;
        }
        // What does not fit is for the destination to judge: a router only passes it on.
        let Some([next, length]) = packet.read::<[u8; 2]>(offset) else { return Ok(Gre::None) };
        let extension_len = ipv6::extension_len(length);
        if len < extension_len as u32 {
            return Ok(Gre::None);
        }
        next_header = next;
        offset += extension_len;
        len -= extension_len as u32;
    }
    let ends = Ends::v6(ip.destination(), ip.source());
    if offset > OFFSETS - gre::MAX_LEN {
        return match next_header {
            PROTOCOL_GRE => hand_up(&ends, Outcome::Ipv6Extension),
            _ => Ok(Gre::None),
        };
    }
    let offset = forget(offset, packet.len());
    match next_header {
        PROTOCOL_GRE => {
            receive(packet, frame, Outer { ends, dsfield: ip.traffic_class(), offset, len })
        }
        ipv6::NEXT_HEADER_FRAGMENT => {
            let [protocol, _]: [u8; 2] = packet.read(offset).ok_or(Outcome::Ipv6Malformed)?;
            match protocol {
                // Linux has its encapsulation limit in the part that it fragments. What else there may
                // be behind options, cut up, between a tunnel's addresses is not told apart.
                PROTOCOL_GRE | ipv6::NEXT_HEADER_DESTINATION_OPTIONS => {
                    hand_up(&ends, Outcome::OuterFragment)
                }
                _ => Ok(Gre::None),
            }
        }
        _ => Ok(Gre::None),
    }
}

/// Some tunnel that packets between these addresses may belong to, in memory order; none if there is
/// none.
#[inline(always)]
pub fn between4(local: u32, remote: u32) -> Option<u32> {
    let id = of_either_kind(&Ends::v4(local, remote));
    (id != NONE).then_some(id)
}

/// A packet whose GRE header cannot be read here, if it runs between the addresses of a tunnel.
#[inline(always)]
fn hand_up(ends: &Ends, outcome: Outcome) -> Result<Gre, Stop> {
    match of_either_kind(ends) {
        NONE => Ok(Gre::Foreign),
        id => Err(Stop::on(id, outcome)),
    }
}

/// Some tunnel for packets between these addresses, of IP or, if there is none, of Ethernet.
#[inline(always)]
fn of_either_kind(ends: &Ends) -> u32 {
    let for_ip = levels(ends, Kind::PAIR, 0);
    if for_ip != NONE { for_ip } else { levels(ends, Kind::PAIR.of_ethernet(true), 0) }
}

#[inline(always)]
fn receive(packet: &Packet, frame: &Frame, outer: Outer) -> Result<Gre, Stop> {
    // Looked up they would find tunnels whose addresses are any.
    if outer.ends.any_local() || outer.ends.any_remote() {
        return Ok(Gre::Foreign);
    }
    let refusal = match header(packet, &outer) {
        Ok((gre, key)) => match find(frame, outer.ends, gre, key) {
            Some((id, tunnel)) => {
                let received = outer.received(id, tunnel, gre);
                return Ok(Gre::Ours(Received {
                    gre_offset: forget(received.gre_offset, packet.len()),
                    inner_offset: forget(received.inner_offset, packet.len()),
                    ..received
                }));
            }
            None => Err((gre, key)),
        },
        Err(outcome) => Ok(outcome),
    };
    match refusal {
        Ok(outcome) => refuse(&outer.ends, outcome),
        Err((gre, key)) => explain(frame.tier, &outer, gre, key.unwrap_or(0)),
    }
}

/// A packet that is no good, if it runs between the addresses of a tunnel.
#[inline(always)]
fn refuse(ends: &Ends, outcome: Outcome) -> Result<Gre, Stop> {
    let for_ip = between(ends, false);
    let id = if for_ip != NONE { for_ip } else { between(ends, true) };
    if id == NONE { Ok(Gre::Foreign) } else { Err(Stop::on(id, outcome)) }
}

/// Some tunnel between exactly these addresses, for IP or for Ethernet, whatever its key.
#[inline(always)]
fn between(ends: &Ends, ethernet: bool) -> u32 {
    let pair = Kind::PAIR.of_ethernet(ethernet).to_word();
    if ends.is_v6() {
        look_up6(ends, Level::Exact, Kind::from_word(pair), 0)
    } else {
        xgre_look_up4(ends.local[0], ends.remote[0], pair, 0)
    }
}

/// A packet that no tunnel between its addresses takes, if there is a tunnel between them: none has
/// its key, or none is for what is in it.
#[inline(always)]
fn explain(tier: Tier, outer: &Outer, gre: GreBase, key: u32) -> Result<Gre, Stop> {
    let ethernet = is_ethernet(gre);
    let own = between(&outer.ends, ethernet);
    let id = if own != NONE { own } else { between(&outer.ends, !ethernet) };
    let Some(tunnel) = get(id) else { return Ok(Gre::Foreign) };
    if !tunnel.flags.has(Flags::UP) {
        return Err(Stop::on(id, Outcome::TunnelDown));
    }
    if own == NONE && tunnel.key == key && tunnel.flags.has(Flags::KEY) == gre.has_key() {
        let room = outer.len - gre.header_len() as u32;
        let outcome = decapsulate::payload(tunnel, gre, room).err();
        return Err(Stop::on(id, outcome.unwrap_or(Outcome::NotEthernet)));
    }
    let outcome = near_miss(gre, tunnel);
    // What XDP leaves to the kernel TC sees again.
    if !(matches!(tier, Tier::Tc) && tunnel.flags.has(Flags::ADOPTED)) {
        mismatch::note(id, gre, key, outcome);
    }
    Err(Stop::on(id, outcome))
}

/// The GRE header that `outer` says is there, and its key in memory order.
#[inline(always)]
fn header(packet: &Packet, outer: &Outer) -> Result<(GreBase, Option<u32>), Outcome> {
    let gre: GreBase = packet.read(outer.offset).ok_or(Outcome::GreTruncated)?;
    if outer.len < gre::BASE_LEN as u32 {
        return Err(Outcome::GreTruncated);
    }
    gre.validate()?;
    if outer.len < gre.header_len() as u32 {
        return Err(Outcome::GreTruncated);
    }
    if !gre.has_key() {
        return Ok((gre, None));
    }
    let key = packet.read(outer.offset + gre.key_offset()).ok_or(Outcome::GreTruncated)?;
    Ok((gre, Some(key)))
}

/// The tunnel that takes packets between these addresses with this key, as the kernel looks for it
/// (ip_tunnel_lookup, ip6gre_tunnel_lookup): one bound to the interface first, then any.
#[inline(always)]
fn find(
    frame: &Frame,
    ends: Ends,
    gre: GreBase,
    key: Option<u32>,
) -> Option<(u32, &'static Tunnel)> {
    // With both addresses given, IPv4 tells a key of zero from none; IPv6 does not.
    let kind = Kind::from_key(key.filter(|&key| key != 0 || !ends.is_v6()));
    let kind = kind.of_ethernet(is_ethernet(gre));
    let bound = frame.port.flags.has(port::Flags::TUNNEL_BOUND);
    let link = if bound { frame.port.ifindex } else { 0 };
    let id = levels(&ends, kind, link);
    let tunnel = get(id)?;
    // Where the remote address is any, the kernel has not looked at the source yet.
    if tunnel.flags.has(Flags::REMOTE_ANY) && !ends.remote_is_unicast() {
        return None;
    }
    Some((id, tunnel))
}

#[inline(always)]
fn is_ethernet(gre: GreBase) -> bool {
    gre.protocol() == gre::PROTOCOL_ETHERNET
}

/// An id of no tunnel.
const NONE: u32 = u32::MAX;

/// What of a key is looked up.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Level {
    /// All of it.
    Exact,
    /// A tunnel whose local address is any.
    Remote,
    /// A tunnel whose remote address is any.
    Local,
    /// A tunnel with neither address.
    Neither,
}

impl Level {
    #[inline(always)]
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Exact,
            1 => Self::Remote,
            2 => Self::Local,
            _ => Self::Neither,
        }
    }

    /// What is left of the two addresses.
    #[inline(always)]
    fn masks(self) -> (u32, u32) {
        match self {
            Self::Exact => (u32::MAX, u32::MAX),
            Self::Remote => (0, u32::MAX),
            Self::Local => (u32::MAX, 0),
            Self::Neither => (0, 0),
        }
    }
}

/// The tunnel at the first level of the kernel's order that has one, first of those bound to the
/// interface `link`.
#[inline(always)]
fn levels(ends: &Ends, kind: Kind, link: u32) -> u32 {
    if ends.is_v6() {
        xgre_levels6(ends, kind.to_word(), link)
    } else {
        xgre_levels4(ends.local[0], ends.remote[0], kind.to_word(), link)
    }
}

// Functions of their own, which the verifier looks at once: they are long, and most packets have been
// found by `plainest`. Of an address that is handed over it does not know that it is none of nothing.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_levels4(local: u32, remote: u32, kind: u64, link: u32) -> u32 {
    let look_up = |level: Level, kind: Kind, link| {
        let (l, r) = level.masks();
        xgre_look_up4(local & l, remote & r, kind.to_word(), link)
    };
    first_level(Kind::from_word(kind), link, look_up, || xgre_is_own4(local) != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_levels6(ends: *const Ends, kind: u64, link: u32) -> u32 {
    if ends.is_null() {
        return NONE;
    }
    let look_up = |level, kind, link| look_up6(ends, level, kind, link);
    first_level(Kind::from_word(kind), link, look_up, || xgre_is_own6(ends) != 0)
}

#[inline(always)]
fn first_level(
    kind: Kind,
    link: u32,
    look_up: impl Fn(Level, Kind, u32) -> u32,
    is_own: impl Fn() -> bool,
) -> u32 {
    let links = if link == 0 { [0, 0] } else { [link, 0] };
    for link in links {
        for level in [Level::Exact, Level::Remote, Level::Local, Level::Neither] {
            let kind = match level {
                // With neither address known the kernel compares the numbers alone.
                Level::Neither if kind.has_key() && kind.key() == 0 => {
                    Kind::KEYLESS.of_ethernet(kind.is_of_ethernet())
                }
                _ => kind,
            };
            let id = look_up(level, kind, link);
            let any_local = matches!(level, Level::Remote | Level::Neither);
            // Where the local address is any, packets for other hosts are not the tunnel's.
            if id != NONE && (!any_local || is_own()) {
                return id;
            }
        }
    }
    NONE
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_look_up4(local: u32, remote: u32, kind: u64, link: u32) -> u32 {
    look_up(&Key { ends: Ends::v4(local, remote), kind: Kind::from_word(kind), link })
}

/// Three functions, since one would need more stack than Linux 6.1 has to spare at this depth.
#[inline(always)]
fn look_up6(ends: *const Ends, level: Level, kind: Kind, link: u32) -> u32 {
    let (level, kind) = (level as u32, kind.to_word());
    let ids = xgre_candidates(xgre_hash6(ends, level, kind, link));
    for id in [ids as u32, (ids >> 32) as u32] {
        if id != NONE && xgre_is6(id, ends, level, kind) != 0 {
            return id;
        }
    }
    NONE
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_hash6(ends: *const Ends, level: u32, kind: u64, link: u32) -> u64 {
    // SAFETY: all callers hand a reference over.
    let Some(ends) = (unsafe { ends.as_ref() }) else { return 0 };
    let ends = masked(ends, Level::from_number(level).masks());
    Key { ends, kind: Kind::from_word(kind), link }.hash()
}

/// The tunnels that may be the one of a key with this hash, from both of its buckets.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_candidates(hash: u64) -> u64 {
    let location = Location::of(hash, DEMUX_MASK.load());
    let [first, second] = location.buckets.map(|bucket| {
        let found = DEMUX.get(bucket).and_then(|bucket| location.candidate(bucket));
        found.unwrap_or(NONE)
    });
    u64::from(second) << 32 | u64::from(first)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_is6(id: u32, ends: *const Ends, level: u32, kind: u64) -> u32 {
    // SAFETY: all callers hand a reference over.
    let (Some(ends), Some(tunnel)) = (unsafe { ends.as_ref() }, get(id)) else { return 0 };
    let ends = masked(ends, Level::from_number(level).masks());
    let key = Key { ends, kind: Kind::from_word(kind), link: 0 };
    fits::<true>(id, tunnel, &key).into()
}

/// What is left of two IPv6 addresses.
#[inline(always)]
fn masked(ends: &Ends, (l, r): (u32, u32)) -> Ends {
    Ends::v6(ends.local.map(|word| word & l), ends.remote.map(|word| word & r))
}

#[inline(always)]
fn look_up(key: &Key) -> u32 {
    search::<true>(key).map_or(NONE, |(id, _)| id)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_is_own4(local: u32) -> u32 {
    is_own(&Ends::v4(local, 0)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_is_own6(ends: *const Ends) -> u32 {
    // SAFETY: all callers hand a reference over.
    let Some(ends) = (unsafe { ends.as_ref() }) else { return 0 };
    is_own(&Ends::v6(ends.local, [0; 4])).into()
}

/// Whether the local address is one of this host. There is no record to confirm it: the fingerprint has
/// to do.
#[inline(always)]
fn is_own(ends: &Ends) -> bool {
    let location = Key { ends: *ends, kind: Kind::ADDRESS, link: 0 }.locate(DEMUX_MASK.load());
    location
        .buckets
        .into_iter()
        .any(|bucket| DEMUX.get(bucket).is_some_and(|bucket| location.candidate(bucket).is_some()))
}

/// The tunnel of this key; without `ANY` only a plain one.
#[inline(always)]
fn search<const ANY: bool>(key: &Key) -> Option<(u32, &'static Tunnel)> {
    let location = key.locate(DEMUX_MASK.load());
    for bucket in location.buckets {
        if let Some(id) = location.candidate(DEMUX.get(bucket)?)
            && let Some(tunnel) = TUNNELS.get(id)
            && fits::<ANY>(id, tunnel, key)
        {
            return Some((id, tunnel));
        }
    }
    None
}

#[inline(always)]
fn fits<const ANY: bool>(id: u32, tunnel: &Tunnel, key: &Key) -> bool {
    if ANY {
        tunnel.is(&Sought::by(key)) && ends_match(id, tunnel, &key.ends)
    } else {
        tunnel.is_plain_and_found_by(key)
    }
}

/// Whether a tunnel has these addresses; those that are any are not compared.
#[inline(always)]
fn ends_match(id: u32, tunnel: &Tunnel, ends: &Ends) -> bool {
    if !ends.is_v6() {
        let (local, remote) = tunnel.addresses4();
        return (ends.local[0] == 0 || ends.local[0] == local)
            && (ends.remote[0] == 0 || ends.remote[0] == remote);
    }
    TUNNELS6.get(id).is_some_and(|found| {
        (ends.any_local() || is_same(&ends.local, &found.local))
            && (ends.any_remote() || is_same(&ends.remote, &found.remote))
    })
}

/// Whether a tunnel's packet, whose IP header is at `offset`, came from the remote of tunnel `id`.
/// Not inlined: it is for tunnels with many remotes.
#[inline(never)]
pub fn came_from(packet: &Packet, offset: usize, id: u32) -> bool {
    let Some(tunnel) = get(id) else { return false };
    if !tunnel.flags.has(Flags::IPV6) {
        return packet.read(offset + 12) == Some(tunnel.addresses4().1);
    }
    let source = packet.read::<[u32; 4]>(offset + 8);
    source.zip(TUNNELS6.get(id)).is_some_and(|(source, found)| is_same(&source, &found.remote))
}

#[inline(always)]
pub fn is_same(a: &[u32; 4], b: &[u32; 4]) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

/// How the key of a packet differs from that of a tunnel between the same addresses.
#[inline(always)]
fn near_miss(sent: GreBase, tunnel: &Tunnel) -> Outcome {
    match (sent.has_key(), tunnel.flags.has(Flags::KEY)) {
        (true, false) => Outcome::KeyUnexpected,
        (false, true) => Outcome::KeyMissing,
        (true, true) | (false, false) => Outcome::KeyMismatch,
    }
}
