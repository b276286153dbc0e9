//! From (local, remote, key) to a tunnel: a hash table of cache-line buckets in a plain array.
//!
//! A slot is a fingerprint and a tunnel id in one 64-bit word, written at once; the tunnel's own
//! record, which the packet needs anyway, confirms the match. Each key has two buckets, so that a
//! look-up reads two cache lines at most. A fuller kernel hash map costs ten times as much.
//!
//! Besides a tunnel's own key the table holds its pair (local, remote), so that a packet with the
//! wrong key is told from a packet that belongs to no tunnel.

use crate::tunnel::Ends;

/// Slots in a bucket.
pub const SLOTS: usize = 8;

/// Map `DEMUX`: bucket number to this.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket(pub [u64; SLOTS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// What is looked up. An address of all zeros is any: a tunnel with such an address is found by it
/// alone.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub ends: Ends,
    pub kind: Kind,
    /// The interface that the tunnel is bound to; 0 for the one that is found wherever its packets
    /// come in.
    pub link: u32,
}

/// What is looked up between two addresses: the tunnel with a key (in the low 32 bits, in memory
/// order) or without one, or something else; of a tunnel for IP, or for Ethernet. A word for the same
/// reason as in [`Ends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u64);

impl Kind {
    pub const KEYLESS: Self = Self(0);
    /// Any tunnel between the two addresses.
    pub const PAIR: Self = Self(2 << 32);
    /// Not a tunnel: the local address is one of this host.
    pub const ADDRESS: Self = Self(3 << 32);

    /// In any other kind: of a tunnel for Ethernet.
    const ETHERNET: u64 = 1 << 36;

    /// The same of a tunnel for Ethernet, or for IP.
    #[inline(always)]
    pub const fn of_ethernet(self, ethernet: bool) -> Self {
        Self(self.0 & !Self::ETHERNET | if ethernet { Self::ETHERNET } else { 0 })
    }

    #[inline(always)]
    pub const fn is_of_ethernet(self) -> bool {
        self.0 & Self::ETHERNET != 0
    }

    #[inline(always)]
    pub const fn is_pair(self) -> bool {
        self.0 & !Self::ETHERNET == Self::PAIR.0
    }

    #[inline(always)]
    pub const fn keyed(key: u32) -> Self {
        Self(1 << 32 | key as u64)
    }

    #[inline(always)]
    pub const fn from_key(key: Option<u32>) -> Self {
        match key {
            Some(key) => Self::keyed(key),
            None => Self::KEYLESS,
        }
    }

    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn has_key(self) -> bool {
        (self.0 & !Self::ETHERNET) >> 32 == 1
    }

    /// Zero where there is none.
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self.0 as u32
    }
}

impl Ends {
    /// Spreads keys that differ in a few low bits, as consecutive addresses do, over all of a word
    /// (multiply and fold; constants of MurmurHash3's finaliser).
    #[inline(always)]
    const fn digest(&self) -> u64 {
        let Self { local: l, remote: r, .. } = *self;
        if !self.is_v6() {
            return mix(pair(l[0], r[0]));
        }
        // Not where IPv4 addresses of the same words begin.
        let mut hash = mix(pair(l[0], l[1]) ^ 1);
        hash = mix(hash ^ pair(l[2], l[3]));
        hash = mix(hash ^ pair(r[0], r[1]));
        mix(hash ^ pair(r[2], r[3]))
    }
}

#[inline(always)]
const fn pair(a: u32, b: u32) -> u64 {
    (a as u64) << 32 | b as u64
}

#[inline(always)]
const fn mix(hash: u64) -> u64 {
    (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// Where a key's slot may be, and its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Bucket numbers.
    pub buckets: [u32; 2],
    fingerprint: u32,
}

impl Key {
    /// `mask` is the number of buckets, a power of two, less one.
    #[inline(always)]
    pub const fn locate(&self, mask: u32) -> Location {
        Location::of(self.hash(), mask)
    }

    #[inline(always)]
    pub const fn hash(&self) -> u64 {
        let mut hash = self.ends.digest() ^ self.kind.0 ^ (self.link as u64) << 34;
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 29
    }
}

impl Location {
    /// Of a key with this hash.
    #[inline(always)]
    pub const fn of(hash: u64, mask: u32) -> Self {
        // Never zero, which is an empty slot's.
        let fingerprint = (hash >> 32) as u32 | 1;
        let first = hash as u32 & mask;
        // The second bucket depends on the fingerprint alone beside the first, and differs from it
        // whenever there is more than one bucket.
        let second = first ^ ((fingerprint.wrapping_mul(0x5bd1_e995) | 1) & mask);
        Self { buckets: [first, second], fingerprint }
    }

    /// The slot's word for this tunnel.
    pub const fn slot(&self, tunnel: u32) -> u64 {
        (self.fingerprint as u64) << 32 | (tunnel + 1) as u64
    }

    /// The tunnel that may be this key's in one of its buckets: a bucket holds a fingerprint once.
    #[inline(always)]
    pub const fn candidate(&self, bucket: &Bucket) -> Option<u32> {
        let mut slot = 0;
        while slot < SLOTS {
            if self.is_in(bucket.0[slot]) {
                return Some((bucket.0[slot] as u32).wrapping_sub(1));
            }
            slot += 1;
        }
        None
    }

    /// Whether a slot's word has this key's fingerprint.
    #[inline(always)]
    pub const fn is_in(&self, slot: u64) -> bool {
        (slot >> 32) as u32 == self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(local: u32, remote: u32, kind: Kind) -> Key {
        Key { ends: Ends::v4(local, remote), kind, link: 0 }
    }

    #[test]
    fn the_two_buckets_of_a_key_differ() {
        for n in 0..10_000u32 {
            let key = key(1, n.to_be(), Kind::KEYLESS);
            let location = key.locate(1023);
            assert_ne!(location.buckets[0], location.buckets[1]);
            assert!(location.buckets.iter().all(|&bucket| bucket <= 1023));
        }
    }

    #[test]
    fn keyless_key_zero_and_pair_are_three_keys_for_ip_and_three_for_ethernet() {
        let slot = |kind| key(1, 2, kind).locate(u32::MAX);
        let kinds = [Kind::KEYLESS, Kind::keyed(0), Kind::PAIR];
        let all = kinds.iter().flat_map(|kind| [kind.of_ethernet(false), kind.of_ethernet(true)]);
        assert_eq!(all.map(slot).collect::<HashSet<_>>().len(), 6);
    }

    #[test]
    fn a_kind_is_the_same_for_ethernet() {
        for kind in [Kind::KEYLESS, Kind::keyed(7), Kind::PAIR] {
            let ethernet = kind.of_ethernet(true);
            assert!(ethernet.is_of_ethernet() && !kind.is_of_ethernet());
            assert_eq!(ethernet.has_key(), kind.has_key());
            assert_eq!(ethernet.is_pair(), kind.is_pair());
            assert_eq!((ethernet.key(), ethernet.of_ethernet(false)), (kind.key(), kind));
        }
    }

    /// A hub with a /16 of remotes, or one pair of addresses with as many keys, fills the table
    /// evenly: at a quarter full no pair of buckets overflows.
    #[test]
    fn regular_addresses_and_keys_spread_evenly() {
        let mask = (1u32 << 15) - 1;
        let kinds: [fn(u32) -> Key; 2] = [
            |n| key(7, (0x0a00_0000 + n).to_be(), Kind::KEYLESS),
            |n| key(7, 9, Kind::keyed(n.to_be())),
        ];
        for key in kinds {
            let mut filled = vec![0u8; mask as usize + 1];
            for n in 0..65_536 {
                let [a, b] = key(n).locate(mask).buckets.map(|bucket| bucket as usize);
                let emptier = if filled[a] <= filled[b] { a } else { b };
                filled[emptier] += 1;
            }
            assert!(filled.iter().all(|&slots| slots as usize <= SLOTS));
        }
    }

    #[test]
    fn a_bucket_gives_back_its_tunnel_and_an_empty_one_nothing() {
        let mut slots = HashSet::new();
        for n in 0..1000u32 {
            let location = key(n, 2, Kind::PAIR).locate(255);
            let mut bucket = Bucket::default();
            assert_eq!(location.candidate(&bucket), None);
            bucket.0[n as usize % SLOTS] = location.slot(n);
            assert_eq!(location.candidate(&bucket), Some(n));
            slots.insert(location.slot(0));
        }
        assert_eq!(slots.len(), 1000, "fingerprints are not spread");
    }
}
