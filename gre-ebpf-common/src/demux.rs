//! From (local, remote, key) to a tunnel: a hash table of cache-line buckets in a plain array.
//!
//! A slot is a fingerprint and a tunnel id in one 64-bit word, written at once; the tunnel's own
//! record, which the packet needs anyway, confirms the match. Each key has two buckets, so that a
//! look-up reads two cache lines at most. A fuller kernel hash map costs ten times as much.
//!
//! Besides a tunnel's own key the table holds its pair (local, remote), so that a packet with the
//! wrong key is told from a packet that belongs to no tunnel.

/// Slots in a bucket.
pub const SLOTS: usize = 8;

/// Map `DEMUX`: bucket number to this.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket(pub [u64; SLOTS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// What is looked up. Addresses and key are in memory order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub local: u32,
    pub remote: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Keyless,
    Keyed(u32),
    /// Any tunnel between the two addresses.
    Pair,
}

impl Kind {
    #[inline(always)]
    pub const fn from_key(key: Option<u32>) -> Self {
        match key {
            Some(key) => Self::Keyed(key),
            None => Self::Keyless,
        }
    }

    /// A word in which the three kinds cannot meet.
    #[inline(always)]
    const fn to_word(self) -> u64 {
        match self {
            Self::Keyless => 0,
            Self::Keyed(key) => 1 << 32 | key as u64,
            Self::Pair => 2 << 32,
        }
    }
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
        // Two rounds of multiply and fold (constants: MurmurHash3's finaliser) spread keys that
        // differ in a few low bits, as consecutive addresses do, over the whole table.
        let mut hash = (self.local as u64) << 32 | self.remote as u64;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= self.kind.to_word();
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

    #[test]
    fn the_two_buckets_of_a_key_differ() {
        for n in 0..10_000u32 {
            let key = Key { local: 1, remote: n.to_be(), kind: Kind::Keyless };
            let location = key.locate(1023);
            assert_ne!(location.buckets[0], location.buckets[1]);
            assert!(location.buckets.iter().all(|&bucket| bucket <= 1023));
        }
    }

    #[test]
    fn keyless_key_zero_and_pair_are_three_keys() {
        let slot = |kind| Key { local: 1, remote: 2, kind }.locate(u32::MAX);
        let all = [slot(Kind::Keyless), slot(Kind::Keyed(0)), slot(Kind::Pair)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }

    /// A hub with a /16 of remotes, or one pair of addresses with as many keys, fills the table
    /// evenly: at a quarter full no pair of buckets overflows.
    #[test]
    fn regular_addresses_and_keys_spread_evenly() {
        let mask = (1u32 << 15) - 1;
        let kinds: [fn(u32) -> Key; 2] = [
            |n| Key { local: 7, remote: (0x0a00_0000 + n).to_be(), kind: Kind::Keyless },
            |n| Key { local: 7, remote: 9, kind: Kind::Keyed(n.to_be()) },
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
            let location = Key { local: n, remote: 2, kind: Kind::Pair }.locate(255);
            let mut bucket = Bucket::default();
            assert_eq!(location.candidate(&bucket), None);
            bucket.0[n as usize % SLOTS] = location.slot(n);
            assert_eq!(location.candidate(&bucket), Some(n));
            slots.insert(location.slot(0));
        }
        assert_eq!(slots.len(), 1000, "fingerprints are not spread");
    }
}
