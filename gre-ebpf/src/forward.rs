//! Where a packet goes next, and the redirect there.
//!
//! Like all arrays here these are filled through mappings: a million routes take milliseconds.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMap, HashMap},
};
use gre_ebpf_common::{
    group::Group,
    next_hop::{Flags, NextHop},
    outcome::Outcome,
    port::{self, Port},
    route::{self, Block, Entry, Slot},
    route6,
};

use crate::{header::Header, packet::Packet, verdict};

#[map]
static ROUTES: Array<Block> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static GROUPS: Array<Group> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Of the hash of flows. Set by the loader and then frozen.
#[unsafe(no_mangle)]
static HASH_SEED: Global<u32> = Global::new(0);

/// Interface index to itself: redirects through a device map leave in bulk.
#[map]
static TX_PORTS: DevMap = DevMap::with_max_entries(1, 0);

/// Blocks of the IPv6 trie.
#[map]
static ROUTES6: Array<Block> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Hosts on links, to the word of their entry.
#[map]
static HOSTS6: HashMap<route6::Host, u32> = HashMap::with_max_entries(1, 0);

/// Where a packet goes: of several next hops the one of its flow, which the program for plain packets leaves to
/// the other.
#[inline(always)]
pub fn way<H: Header, const ANY: bool>(inner: &H) -> Result<Entry, Outcome> {
    match inner.route() {
        Entry::Group(_) if !ANY => Err(Outcome::Detour),
        Entry::Group(id) => {
            let group = GROUPS.get(id).ok_or(Outcome::NoTunnelRoute)?;
            match Slot::from_word(group.member(inner.flow(HASH_SEED.load()))) {
                Slot::Entry(entry) => Ok(entry),
                Slot::Block(_) => Ok(Entry::Punt),
            }
        }
        entry => Ok(entry),
    }
}

/// The route of an IPv4 destination, in memory order.
#[inline(always)]
pub fn route4(destination: u32) -> Entry {
    route::lookup(destination, |block, index| {
        let block = ROUTES.get(block)?;
        Some(block.0[index & (route::BLOCK - 1)])
    })
}

/// The route of an IPv6 destination.
#[inline(always)]
pub fn route6(destination: &[u32; 4]) -> Entry {
    let [a, b, c, d] = *destination;
    let word = xgre_walk6(pair(a, b), pair(c, d));
    match Slot::from_word(word) {
        Slot::Entry(entry) => entry,
        Slot::Block(_) => Entry::Punt,
    }
}

/// Two words of an address, the first one low.
#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The word of a route. A function of its own, which the verifier looks at once: it walks, and its
/// callers are many.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_walk6(first: u64, second: u64) -> u32 {
    let destination = [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32];
    let entry = route6::lookup(&destination, |block, index| {
        let block = ROUTES6.get(block)?;
        Some(block.0[index & (route::BLOCK - 1)])
    });
    if entry != route6::HOSTS {
        return entry.to_word();
    }
    // SAFETY: an entry that is replaced meanwhile is still a word.
    unsafe { HOSTS6.get(&destination) }.copied().unwrap_or(Entry::Punt.to_word())
}

/// A next hop; a miss is an id beyond the map, which no map of ours names.
#[inline(always)]
pub fn next_hop(id: u32) -> Option<&'static NextHop> {
    NEXT_HOPS.get(id)
}

/// Whether a packet that XDP received on `ingress` can be redirected out of the next hop's interface.
#[inline(always)]
pub fn can_redirect(packet: &Packet, ingress: &Port, next_hop: &NextHop) -> Result<(), Outcome> {
    if !next_hop.flags.has(Flags::NATIVE_REDIRECT) && !ingress.flags.has(port::Flags::GENERIC) {
        return Err(Outcome::EgressWithoutXdp);
    }
    // What a device cannot send is lost, and counted nowhere.
    if packet.is_in_pieces() && !next_hop.flags.has(Flags::REDIRECT_IN_PIECES) {
        return Err(Outcome::InPieces);
    }
    Ok(())
}

/// Arms a redirect out of the interface; the packet is untouched whatever the answer.
#[inline(always)]
pub fn redirect(next_hop: &NextHop) -> bool {
    verdict::xdp_redirects(TX_PORTS.redirect(next_hop.ifindex, 0).unwrap_or_else(|action| action))
}
