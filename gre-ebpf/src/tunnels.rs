//! Which tunnel a GRE packet belongs to, and if to none, why not.

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use gre_ebpf_common::{
    demux::{Bucket, Key, Kind},
    outcome::{Outcome, Stop},
    port,
    tunnel::{Addresses6, Ends, Flags, Tunnel},
    wire::{
        gre::{self, GreBase},
        ipv4::{self, Ipv4Header, PROTOCOL_GRE},
        ipv6::{self, Ipv6Header},
    },
};

use crate::{
    checksum, mismatch,
    packet::Packet,
    parse::Frame,
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
    /// Whose packet it is: the tunnel's remote, were it not any.
    pub ends: Ends,
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

/// Where GRE is in a packet from the underlay.
struct Outer {
    ends: Ends,
    dsfield: u8,
    offset: usize,
    len: u32,
}

/// Finds the tunnel of an IPv4 packet.
#[inline(always)]
pub fn receive4(packet: &Packet, frame: &Frame, ip: &Ipv4Header) -> Result<Gre, Stop> {
    if ip.protocol() != PROTOCOL_GRE {
        return Ok(Gre::None);
    }
    let ends = Ends::V4 { local: ip.destination(), remote: ip.source() };
    if ip.is_fragment() {
        return fragment(ends);
    }
    let header_len = ip.header_len();
    if header_len > ipv4::HEADER_LEN
        && checksum::sum(packet, frame.header_len, header_len as u32) != Some(0xffff)
    {
        return Err(Outcome::Ipv4Malformed.into());
    }
    let len = u32::from(ip.total_len()) - header_len as u32;
    let offset = frame.header_len + header_len;
    receive(packet, frame, Outer { ends, dsfield: ip.tos(), offset, len })
}

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
        let [next, length]: [u8; 2] = packet.read(offset).ok_or(Outcome::Ipv6Malformed)?;
        let extension_len = ipv6::extension_len(length);
        if len < extension_len as u32 {
            return Err(Outcome::Ipv6Malformed.into());
        }
        next_header = next;
        offset += extension_len;
        len -= extension_len as u32;
    }
    let ends = Ends::V6 { local: ip.destination(), remote: ip.source() };
    match next_header {
        PROTOCOL_GRE => {
            receive(packet, frame, Outer { ends, dsfield: ip.traffic_class(), offset, len })
        }
        ipv6::NEXT_HEADER_FRAGMENT => {
            let [protocol, _]: [u8; 2] = packet.read(offset).ok_or(Outcome::Ipv6Malformed)?;
            if protocol == PROTOCOL_GRE { fragment(ends) } else { Ok(Gre::None) }
        }
        _ => Ok(Gre::None),
    }
}

#[inline(always)]
fn fragment(ends: Ends) -> Result<Gre, Stop> {
    // Only the first fragment has the key.
    match any_level(&Key { ends, kind: Kind::Pair, link: 0 }) {
        NONE => Ok(Gre::Foreign),
        id => Err(Stop::on(id, Outcome::OuterFragment)),
    }
}

#[inline(always)]
fn receive(packet: &Packet, frame: &Frame, outer: Outer) -> Result<Gre, Stop> {
    let refusal = match header(packet, &outer) {
        Ok((gre, key)) => match find(frame, outer.ends, key) {
            Some((id, tunnel)) => {
                let header_len = gre.header_len();
                return Ok(Gre::Ours(Received {
                    id,
                    tunnel,
                    gre,
                    dsfield: outer.dsfield,
                    gre_offset: outer.offset,
                    inner_offset: outer.offset + header_len,
                    gre_len: outer.len,
                    inner_len: outer.len - header_len as u32,
                    ends: outer.ends,
                }));
            }
            None => Err((gre, key)),
        },
        Err(outcome) => Ok(outcome),
    };
    match refusal {
        Ok(outcome) => refuse(&outer.ends, outcome),
        Err((gre, key)) => explain(&outer.ends, gre, key.unwrap_or(0)),
    }
}

/// A packet that is no good, if it runs between the addresses of a tunnel.
#[inline(always)]
fn refuse(ends: &Ends, outcome: Outcome) -> Result<Gre, Stop> {
    match look_up(&Key { ends: *ends, kind: Kind::Pair, link: 0 }, Level::Exact, 0) {
        NONE => Ok(Gre::Foreign),
        id => Err(Stop::on(id, outcome)),
    }
}

/// A packet with a key that no tunnel between its addresses has, if there is a tunnel between them.
#[inline(always)]
fn explain(ends: &Ends, gre: GreBase, key: u32) -> Result<Gre, Stop> {
    let id = look_up(&Key { ends: *ends, kind: Kind::Pair, link: 0 }, Level::Exact, 0);
    let Some(tunnel) = get(id) else { return Ok(Gre::Foreign) };
    if !tunnel.flags.has(Flags::UP) {
        return Err(Stop::on(id, Outcome::TunnelDown));
    }
    let outcome = near_miss(gre, tunnel);
    mismatch::note(id, gre, key, outcome);
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
fn find(frame: &Frame, ends: Ends, key: Option<u32>) -> Option<(u32, &'static Tunnel)> {
    let kind = match (ends, key) {
        // With both addresses given, IPv4 tells a key of zero from none; IPv6 does not.
        (Ends::V6 { .. }, Some(0)) => Kind::Keyless,
        _ => Kind::from_key(key),
    };
    let bound = frame.port.flags.has(port::Flags::TUNNEL_BOUND);
    if !bound && matches!(ends, Ends::V4 { .. }) {
        // What most packets come to is inlined.
        let found = search(&Key { ends, kind, link: 0 });
        if found.is_some() {
            return found;
        }
    }
    let link = if bound { frame.port.ifindex } else { 0 };
    let id = any_level(&Key { ends, kind, link });
    Some((id, get(id)?))
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
    /// Not a tunnel: whether the local address is one of this host.
    Address,
}

/// The tunnel at the first level of the kernel's order that has one. First those bound to the
/// interface of `key`. Not inlined: it is long.
#[inline(never)]
fn any_level(key: &Key) -> u32 {
    let links = if key.link == 0 { [0, 0] } else { [key.link, 0] };
    for link in links {
        for level in [Level::Exact, Level::Remote, Level::Local, Level::Neither] {
            let id = look_up(key, level, link);
            let any_local = matches!(level, Level::Remote | Level::Neither);
            // Where the local address is any, packets for other hosts are not the tunnel's.
            if id != NONE && (!any_local || look_up(key, Level::Address, 0) != NONE) {
                return id;
            }
        }
    }
    NONE
}

/// The id of the tunnel at one level. Not inlined, but [`search`] is, where most packets come by.
#[inline(never)]
fn look_up(key: &Key, level: Level, link: u32) -> u32 {
    let (local, remote) = match level {
        Level::Exact => (u32::MAX, u32::MAX),
        Level::Remote => (0, u32::MAX),
        Level::Local | Level::Address => (u32::MAX, 0),
        Level::Neither => (0, 0),
    };
    let ends = match key.ends {
        Ends::V4 { local: l, remote: r } => Ends::V4 { local: l & local, remote: r & remote },
        Ends::V6 { local: l, remote: r } => {
            Ends::V6 { local: l.map(|word| word & local), remote: r.map(|word| word & remote) }
        }
    };
    let kind = match (level, key.kind) {
        (Level::Address, _) => return if is_local(&ends) { 0 } else { NONE },
        // With neither address known the kernel compares the numbers alone.
        (Level::Neither, Kind::Keyed(0)) => Kind::Keyless,
        (_, kind) => kind,
    };
    search(&Key { ends, kind, link }).map_or(NONE, |(id, _)| id)
}

/// Whether the local end is an address of this host.
#[inline(always)]
fn is_local(ends: &Ends) -> bool {
    let location = Key { ends: *ends, kind: Kind::Address, link: 0 }.locate(DEMUX_MASK.load());
    location.buckets.into_iter().any(|bucket| {
        DEMUX.get(bucket).is_some_and(|bucket| location.candidate(bucket).is_some())
    })
}

#[inline(always)]
fn search(key: &Key) -> Option<(u32, &'static Tunnel)> {
    let location = key.locate(DEMUX_MASK.load());
    for bucket in location.buckets {
        if let Some(id) = location.candidate(DEMUX.get(bucket)?)
            && let Some(tunnel) = TUNNELS.get(id)
            && tunnel.is_found_by(key)
            && ends_match(id, tunnel, &key.ends)
        {
            return Some((id, tunnel));
        }
    }
    None
}

/// Whether a tunnel has these addresses; those that are any are not compared.
#[inline(always)]
fn ends_match(id: u32, tunnel: &Tunnel, ends: &Ends) -> bool {
    match ends {
        Ends::V4 { local, remote } => {
            let (own, peer) = tunnel.addresses4();
            (*local == 0 || *local == own) && (*remote == 0 || *remote == peer)
        }
        Ends::V6 { local, remote } => TUNNELS6.get(id).is_some_and(|found| {
            (is_any(local) || is_same(local, &found.local))
                && (is_any(remote) || is_same(remote, &found.remote))
        }),
    }
}

#[inline(always)]
pub fn is_same(a: &[u32; 4], b: &[u32; 4]) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
}

#[inline(always)]
fn is_any(a: &[u32; 4]) -> bool {
    a[0] | a[1] | a[2] | a[3] == 0
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
