//! Routes with several next hops: each flow takes one of them, and more flows the one with the higher weight.
//!
//! As the kernel's default (`fib_multipath_hash_policy = 0`) a flow is what goes from one address to another. Which
//! of the next hops it takes is not what the kernel would choose, whose hash has a secret of its own.

/// Next hops of a group, each as often as its weight is of all weights.
pub const SLOTS: usize = 64;

/// Map `GROUPS`: group id to where flows go, by their hash: words as [`Entry::to_word`] makes them. All zero punts.
///
/// [`Entry::to_word`]: crate::route::Entry::to_word
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(pub [u32; SLOTS]);

impl Default for Group {
    fn default() -> Self {
        Self([0; SLOTS])
    }
}

impl Group {
    /// Of words and their weights, of which at least one must not be 0. As in the kernel's
    /// hash-threshold (RFC 2992) each next hop has one range of hashes.
    pub fn new(members: &[(u32, u16)]) -> Self {
        let total: usize = members.iter().map(|&(_, weight)| usize::from(weight)).sum();
        let mut slots = [0; SLOTS];
        let (mut start, mut sum) = (0, 0);
        for &(word, weight) in members {
            sum += usize::from(weight);
            let end = (sum * SLOTS + total / 2) / total;
            slots[start..end].fill(word);
            start = end;
        }
        Self(slots)
    }

    /// The word for a flow.
    #[inline(always)]
    pub fn member(&self, hash: u32) -> u32 {
        self.0[hash as usize % SLOTS]
    }
}

/// The hash of a flow between two addresses, in memory order. Gateways that are behind each other need
/// different seeds: the second would see flows of a few hashes only.
#[inline(always)]
pub fn hash4(seed: u32, source: u32, destination: u32) -> u32 {
    mix(mix(seed ^ source) ^ destination)
}

/// The same for IPv6; `label` is the word with the flow label, which the kernel takes in as well.
#[inline(always)]
pub fn hash6(seed: u32, label: u32, source: &[u32; 4], destination: &[u32; 4]) -> u32 {
    let [a, b, c, d] = *source;
    let [e, f, g, h] = *destination;
    let folded =
        mix(mix(seed ^ label) ^ a ^ b.rotate_left(7) ^ c.rotate_left(14) ^ d.rotate_left(21));
    mix(folded ^ e ^ f.rotate_left(7) ^ g.rotate_left(14) ^ h.rotate_left(21))
}

/// Each bit of the result depends on each of `word` (the finalizer of MurmurHash3).
#[inline(always)]
const fn mix(word: u32) -> u32 {
    let word = (word ^ word >> 16).wrapping_mul(0x85eb_ca6b);
    let word = (word ^ word >> 13).wrapping_mul(0xc2b2_ae35);
    word ^ word >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(members: &[(u32, u16)]) -> Vec<usize> {
        let group = Group::new(members);
        let of = |&(word, _): &(u32, u16)| group.0.iter().filter(|slot| **slot == word).count();
        members.iter().map(of).collect()
    }

    #[test]
    fn next_hops_have_slots_by_their_weights() {
        assert_eq!(shares(&[(7, 1)]), vec![64]);
        assert_eq!(shares(&[(7, 1), (8, 1)]), vec![32, 32]);
        assert_eq!(shares(&[(7, 3), (8, 1)]), vec![48, 16]);
        assert_eq!(shares(&[(7, 1), (8, 1), (9, 1)]), vec![21, 22, 21]);
        assert_eq!(shares(&[(7, 0), (8, 256)]), vec![0, 64]);
        assert_eq!(shares(&[(7, 256), (8, 1)]), vec![64, 0], "less than half a slot");
    }

    #[test]
    fn flows_spread_evenly_and_otherwise_with_another_seed() {
        let hash = |seed, host: u32| {
            hash4(seed, u32::from_ne_bytes([10, 0, 0, 1]), (0xc0a8_0000 + host).to_be())
        };
        let hash_6 = |seed, host: u32| hash6(seed, 0x60, &[1, 2, 3, 4], &[5, 6, 7, host.to_be()]);
        for hash in [&hash as &dyn Fn(u32, u32) -> u32, &hash_6] {
            let mut slots = [[0_u32; SLOTS]; 2];
            for host in 0..64_000 {
                for (seed, slots) in (1..).zip(&mut slots) {
                    slots[hash(seed, host) as usize % SLOTS] += 1;
                }
            }
            // Each is a thousand, give or take five standard deviations.
            assert!(
                slots.as_flattened().iter().all(|count| (840..1160).contains(count)),
                "{slots:?}"
            );
            let same = (0..64_000).filter(|&host| hash(1, host) % 2 == hash(2, host) % 2).count();
            assert!((31_000..33_000).contains(&same), "{same}");
        }
    }
}
