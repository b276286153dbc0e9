//! IPv6 routes as a multibit trie: 16 bits at the first level, then 8 a level, in blocks of the same
//! shape as the IPv4 table's ([`crate::route`]).
//!
//! Map `ROUTES6`: blocks of [`BLOCK`] entries. The first [`FIRST_LEVEL_BLOCKS`] are the first level,
//! indexed by the first 16 bits of the address; the rest are the nodes below, numbered from 0, each
//! indexed by the eight bits of its level.
//!
//! Hosts that are reached directly would each take a chain of nodes. A prefix on a link says
//! [`HOSTS`] instead, and its hosts are in map `HOSTS6`: address to the word of an entry.

use crate::route::{BLOCK, Entry, MAX_NEXT_HOP, Slot};

pub const FIRST_LEVEL_BLOCKS: u32 = 1 << 8;

/// Levels below the first.
pub const LEVELS: usize = 14;

/// The entry of a prefix whose hosts are in `HOSTS6`; those that are not there punt.
pub const HOSTS: Entry = Entry::NextHop(MAX_NEXT_HOP);

/// Map `HOSTS6`: an address, as it stands in a header, to the word of an entry.
pub type Host = [u32; 4];

/// Looks `address` (memory order) up, reading a word of the table by (block, index). A block that
/// is not there punts.
#[inline(always)]
pub fn lookup(address: &[u32; 4], word: impl Fn(u32, usize) -> Option<u32>) -> Entry {
    let bits = |word: usize| u32::from_be(address[word]);
    let mut block = bits(0) >> 24;
    let mut index = (bits(0) >> 16 & 0xff) as usize;
    for level in 0..=LEVELS {
        let Some(found) = word(block, index & (BLOCK - 1)) else { return Entry::Punt };
        match Slot::from_word(found) {
            Slot::Entry(entry) => return entry,
            Slot::Block(node) => block = FIRST_LEVEL_BLOCKS + node,
        }
        let byte = level + 2;
        index = (bits((byte / 4) & 3) >> (24 - byte % 4 * 8)) as usize;
    }
    Entry::Punt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> [u32; 4] {
        let octets = text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        core::array::from_fn(|i| u32::from_ne_bytes(octets[4 * i..][..4].try_into().unwrap()))
    }

    #[test]
    fn a_lookup_walks_down_one_byte_a_level() {
        let host = address("2001:db8:102:304:506:708:90a:b0c");
        let bytes = [0x0d_usize, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let answer = Entry::Tunnel(7);
        for depth in 0..=LEVELS {
            let word = |block: u32, index: usize| {
                let level = if block < FIRST_LEVEL_BLOCKS {
                    assert_eq!((block, index), (0x20, 0x01));
                    0
                } else {
                    let node = (block - FIRST_LEVEL_BLOCKS) as usize;
                    assert_eq!(index, bytes[node], "at node {node}");
                    node + 1
                };
                Some(if level == depth {
                    answer.to_word()
                } else {
                    Slot::Block(level as u32).to_word()
                })
            };
            assert_eq!(lookup(&host, word), answer, "at depth {depth}");
        }
    }

    #[test]
    fn a_trie_without_end_or_with_a_missing_node_punts() {
        let host = address("2001:db8::1");
        assert_eq!(lookup(&host, |_, _| Some(Slot::Block(1).to_word())), Entry::Punt);
        assert_eq!(lookup(&host, |_, _| None), Entry::Punt);
        assert_eq!(Slot::from_word(HOSTS.to_word()), Slot::Entry(HOSTS));
    }
}
