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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub ends: Ends,
    pub kind: Kind,
    /// The interface that the tunnel is bound to; 0 for the one that is found wherever its packets
    /// come in.
    pub link: u32,
}

/// Keys are in memory order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Keyless,
    Keyed(u32),
    /// Any tunnel between the two addresses.
    Pair,
    /// Not a tunnel: the local address is one of this host.
    Address,
}

impl Kind {
    #[inline(always)]
    pub const fn from_key(key: Option<u32>) -> Self {
        match key {
            Some(key) => Self::Keyed(key),
            None => Self::Keyless,
        }
    }

    /// A word in which no two kinds can meet.
    #[inline(always)]
    const fn to_word(self) -> u64 {
        match self {
            Self::Keyless => 0,
            Self::Keyed(key) => 1 << 32 | key as u64,
            Self::Pair => 2 << 32,
            Self::Address => 3 << 32,
        }
    }
}

impl Ends {
    /// Spreads keys that differ in a few low bits, as consecutive addresses do, over all of a word
    /// (multiply and fold; constants of MurmurHash3's finaliser).
    #[inline(always)]
    const fn digest(&self) -> u64 {
        match *self {
            Self::V4 { local, remote } => mix(pair(local, remote)),
            Self::V6 { local: l, remote: r } => {
                // Not where IPv4 addresses of the same words begin.
                let mut hash = mix(pair(l[0], l[1]) ^ 1);
                hash = mix(hash ^ pair(l[2], l[3]));
                hash = mix(hash ^ pair(r[0], r[1]));
                mix(hash ^ pair(r[2], r[3]))
            }
        }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Bucket numbers.
    pub buckets: [u32; 2],
    fingerprint: u32,
}

impl Key {
    /// `mask` is the number of buckets, a power of two, less one.
    #[inline(always)]
    pub const fn locate(&self, mask: u32) -> Location {
        let mut hash = self.ends.digest() ^ self.kind.to_word() ^ (self.link as u64) << 34;
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 29;
        // Never zero, which is an empty slot's.
        let fingerprint = (hash >> 32) as u32 | 1;
        let first = hash as u32 & mask;
        // The second bucket depends on the fingerprint alone beside the first, and differs from it
        // whenever there is more than one bucket.
        let second = first ^ ((fingerprint.wrapping_mul(0x5bd1_e995) | 1) & mask);
        Location { buckets: [first, second], fingerprint }
    }
}

impl Location {
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
        Key { ends: Ends::V4 { local, remote }, kind, link: 0 }
    }

    #[test]
    fn the_two_buckets_of_a_key_differ() {
        for n in 0..10_000u32 {
            let key = key(1, n.to_be(), Kind::Keyless);
            let location = key.locate(1023);
            assert_ne!(location.buckets[0], location.buckets[1]);
            assert!(location.buckets.iter().all(|&bucket| bucket <= 1023));
        }
    }

    #[test]
    fn keyless_key_zero_and_pair_are_three_keys() {
        let slot = |kind| key(1, 2, kind).locate(u32::MAX);
        let all = [slot(Kind::Keyless), slot(Kind::Keyed(0)), slot(Kind::Pair)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }

    /// A hub with a /16 of remotes, or one pair of addresses with as many keys, fills the table
    /// evenly: at a quarter full no pair of buckets overflows.
    #[test]
    fn regular_addresses_and_keys_spread_evenly() {
        let mask = (1u32 << 15) - 1;
        let kinds: [fn(u32) -> Key; 2] = [
            |n| key(7, (0x0a00_0000 + n).to_be(), Kind::Keyless),
            |n| key(7, 9, Kind::Keyed(n.to_be())),
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
            let location = key(n, 2, Kind::Pair).locate(255);
            let mut bucket = Bucket::default();
            assert_eq!(location.candidate(&bucket), None);
            bucket.0[n as usize % SLOTS] = location.slot(n);
            assert_eq!(location.candidate(&bucket), Some(n));
            slots.insert(location.slot(0));
        }
        assert_eq!(slots.len(), 1000, "fingerprints are not spread");
    }
}
