//! IPv4 routes as a DIR-24-8 table (Gupta, Lin, McKeown 1998): one entry for each /24, and a block
//! of 256 for each /24 that holds a longer prefix.
//!
//! Map `ROUTES`: blocks of [`BLOCK`] entries. The first [`FIRST_LEVEL_BLOCKS`] are the first level,
//! indexed by the upper 16 bits of the address, then by the next eight; the rest are second-level
//! blocks, indexed by the last eight bits.

/// Entries of a block: 1 KiB, since a BPF array rounds every value up to 8 bytes.
pub const BLOCK: usize = 256;
pub const FIRST_LEVEL_BLOCKS: u32 = 1 << 16;

/// One block, entries as [`Entry::to_word`] makes them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block(pub [u32; BLOCK]);

/// What to do with packets to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// Only the kernel can say.
    Punt,
    /// Encapsulate into the tunnel with this id.
    Tunnel(u32),
    /// Send to the next hop with this id.
    NextHop(u32),
    /// To one of several, as the group with this id says of the packet's flow.
    Group(u32),
}

/// A word of the table, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Entry(Entry),
    /// The second-level block with this number, counted from 0.
    Block(u32),
}

const KIND_SHIFT: u32 = 30;
/// Largest tunnel or block number.
pub const MAX_ID: u32 = (1 << KIND_SHIFT) - 1;
/// In the number of a next hop: it is that of a group.
const GROUP: u32 = 1 << 29;
/// Largest next hop or group number.
pub const MAX_NEXT_HOP: u32 = GROUP - 1;

impl Entry {
    /// An all-zero table punts everything.
    pub const fn to_word(self) -> u32 {
        match self {
            Self::Punt => 0,
            Self::Tunnel(id) => 1 << KIND_SHIFT | id,
            Self::NextHop(id) => 2 << KIND_SHIFT | id,
            Self::Group(id) => 2 << KIND_SHIFT | GROUP | id,
        }
    }
}

impl Slot {
    pub const fn to_word(self) -> u32 {
        match self {
            Self::Entry(entry) => entry.to_word(),
            Self::Block(block) => 3 << KIND_SHIFT | block,
        }
    }

    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        let id = word & MAX_ID;
        match word >> KIND_SHIFT {
            0 => Self::Entry(Entry::Punt),
            1 => Self::Entry(Entry::Tunnel(id)),
            2 if id & GROUP != 0 => Self::Entry(Entry::Group(id & !GROUP)),
            2 => Self::Entry(Entry::NextHop(id)),
            _ => Self::Block(id),
        }
    }
}

/// Looks `address` (memory order) up, reading a word of the table by (block, index). A block that
/// is not there punts.
#[inline(always)]
pub fn lookup(address: u32, word: impl Fn(u32, usize) -> Option<u32>) -> Entry {
    let address = u32::from_be(address);
    let Some(first) = word(address >> 16, (address >> 8 & 0xff) as usize) else {
        return Entry::Punt;
    };
    match Slot::from_word(first) {
        Slot::Entry(entry) => entry,
        Slot::Block(block) => match word(FIRST_LEVEL_BLOCKS + block, (address & 0xff) as usize) {
            Some(second) => match Slot::from_word(second) {
                Slot::Entry(entry) => entry,
                Slot::Block(_) => Entry::Punt,
            },
            None => Entry::Punt,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_decode_to_what_they_encode() {
        for id in [0, 1, 77, MAX_NEXT_HOP, MAX_ID] {
            let small = id % GROUP;
            for entry in
                [Entry::Punt, Entry::Tunnel(id), Entry::NextHop(small), Entry::Group(small)]
            {
                assert_eq!(Slot::from_word(entry.to_word()), Slot::Entry(entry));
            }
            assert_eq!(Slot::from_word(Slot::Block(id).to_word()), Slot::Block(id));
        }
        assert_eq!(Entry::Punt.to_word(), 0);
    }

    #[test]
    fn a_lookup_reads_the_first_level_then_the_block() {
        let address = u32::from_ne_bytes([10, 1, 2, 3]);
        let direct = |block, index| {
            assert_eq!((block, index), (0x0a01, 2));
            Some(Entry::Tunnel(5).to_word())
        };
        assert_eq!(lookup(address, direct), Entry::Tunnel(5));

        let through = |block, index| match (block, index) {
            (0x0a01, 2) => Some(Slot::Block(9).to_word()),
            (65_545, 3) => Some(Entry::NextHop(6).to_word()),
            _ => None,
        };
        assert_eq!(lookup(address, through), Entry::NextHop(6));
        assert_eq!(lookup(address, |_, _| None), Entry::Punt);
    }
}
