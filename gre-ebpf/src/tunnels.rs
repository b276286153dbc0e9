//! Which tunnel a GRE packet belongs to, and if to none, why not.

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use gre_ebpf_common::{
    demux::{Bucket, Key, Kind},
    outcome::{Outcome, Stop},
    tunnel::{Flags, Tunnel},
    wire::{
        ethernet,
        gre::{self, GreBase},
        ipv4::{self, Ipv4Header},
    },
};

use crate::packet::Packet;

/// Buckets of `DEMUX`, a power of two, less one. Set by the loader and then frozen.
#[unsafe(no_mangle)]
static DEMUX_MASK: Global<u32> = Global::new(0);

#[map]
static DEMUX: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TUNNELS: Array<Tunnel> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where the GRE header starts: only packets without IP options come here.
const GRE_OFFSET: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

/// A packet of one of our tunnels.
pub struct Received {
    pub id: u32,
    pub tunnel: &'static Tunnel,
    pub gre: GreBase,
    /// Bytes before the inner packet, without the Ethernet header.
    pub overhead: usize,
}

/// The record of a tunnel; a miss is an id beyond the map, which no map of ours names.
#[inline(always)]
pub fn get(id: u32) -> Option<&'static Tunnel> {
    TUNNELS.get(id)
}

/// Finds the tunnel of a GRE packet with the given outer header.
///
/// `None` is GRE that does not run between the addresses of any tunnel, whatever it looks like: it
/// may be another's, on its way through.
#[inline(always)]
pub fn receive(packet: &Packet, outer: &Ipv4Header) -> Result<Option<Received>, Stop> {
    if outer.is_fragment() {
        return match between(outer) {
            Some(_) => Err(Outcome::OuterFragment.into()),
            None => Ok(None),
        };
    }
    let refusal = match header(packet, outer) {
        Ok((gre, key)) => match find(outer, key) {
            Some((id, tunnel)) if tunnel.flags.has(Flags::UP) => {
                let overhead = ipv4::HEADER_LEN + gre.header_len();
                return Ok(Some(Received { id, tunnel, gre, overhead }));
            }
            Some(_) => return Err(Outcome::TunnelDown.into()),
            None => None,
        },
        Err(outcome) => Some(outcome),
    };
    let Some((id, tunnel)) = between(outer) else {
        return Ok(None);
    };
    Err(match refusal {
        Some(Outcome::Pptp) => Outcome::Pptp.into(),
        Some(outcome) => Stop::on(id, outcome),
        None => Stop::on(id, near_miss(packet, tunnel)),
    })
}

/// The GRE header that `outer` says is there, and its key in memory order.
#[inline(always)]
fn header(packet: &Packet, outer: &Ipv4Header) -> Result<(GreBase, Option<u32>), Outcome> {
    let room = usize::from(outer.total_len()) - ipv4::HEADER_LEN;
    let gre: GreBase = packet.read(GRE_OFFSET).ok_or(Outcome::GreTruncated)?;
    if room < gre::BASE_LEN {
        return Err(Outcome::GreTruncated);
    }
    gre.validate()?;
    if room < gre.header_len() {
        return Err(Outcome::GreTruncated);
    }
    if !gre.has_key() {
        return Ok((gre, None));
    }
    let key = packet.read(GRE_OFFSET + gre.key_offset()).ok_or(Outcome::GreTruncated)?;
    Ok((gre, Some(key)))
}

/// The tunnel with exactly these addresses and this key.
#[inline(always)]
fn find(outer: &Ipv4Header, key: Option<u32>) -> Option<(u32, &'static Tunnel)> {
    let (local, remote) = (outer.destination(), outer.source());
    search(Key { local, remote, kind: Kind::from_key(key) }, |tunnel| {
        tunnel.accepts(local, remote, key)
    })
}

/// Some tunnel between these addresses, whatever its key.
#[inline(always)]
fn between(outer: &Ipv4Header) -> Option<(u32, &'static Tunnel)> {
    let (local, remote) = (outer.destination(), outer.source());
    search(Key { local, remote, kind: Kind::Pair }, |tunnel| {
        tunnel.local() == local && tunnel.remote() == remote
    })
}

#[inline(always)]
fn search(key: Key, matches: impl Fn(&Tunnel) -> bool) -> Option<(u32, &'static Tunnel)> {
    let location = key.locate(DEMUX_MASK.load());
    for bucket in location.buckets {
        if let Some(id) = location.candidate(DEMUX.get(bucket)?)
            && let Some(tunnel) = TUNNELS.get(id)
            && matches(tunnel)
        {
            return Some((id, tunnel));
        }
    }
    None
}

/// How the key of a packet differs from that of a tunnel between the same addresses.
#[inline(always)]
fn near_miss(packet: &Packet, tunnel: &Tunnel) -> Outcome {
    let sent = packet.read::<GreBase>(GRE_OFFSET).is_some_and(|gre| gre.has_key());
    match (sent, tunnel.flags.has(Flags::KEY)) {
        (true, false) => Outcome::KeyUnexpected,
        (false, true) => Outcome::KeyMissing,
        (true, true) | (false, false) => Outcome::KeyMismatch,
    }
}
