//! The DIR-24-8 route table behind map `ROUTES`, kept equal to a set of prefixes.
//!
//! Packets are looked up while the table changes, so every word goes from its old value to its new
//! one in a single store, and a block is filled before it is linked. A block that is taken out is
//! reused last, long after the programs that may still read it have ended.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

use gre_ebpf_common::route::{BLOCK, Entry, FIRST_LEVEL_BLOCKS, Slot};

use super::mapping::Mapping;

/// Start address in host order, and prefix length.
pub type Prefix = (u32, u8);
/// What each prefix says; longer ones win.
pub type Prefixes = BTreeMap<Prefix, Entry>;

pub struct RouteTable {
    table: Mapping,
    /// What the table says; none while an earlier daemon's routes are in it.
    prefixes: Option<Prefixes>,
    /// Second-level blocks not in use, the longest unused first.
    free: VecDeque<u32>,
    /// First-level slots of /24s that hold longer prefixes and for which no block was left.
    starved: BTreeSet<usize>,
}

/// Blocks of the whole map with this many second-level blocks.
pub const fn blocks(second_level: u32) -> u32 {
    FIRST_LEVEL_BLOCKS + second_level
}

/// Above this share of changed prefixes one pass over the whole table is cheaper.
const FEW: usize = 512;

impl RouteTable {
    /// Takes over a table with `second_level` blocks, and what an earlier daemon left in it: it
    /// stays until it is replaced.
    pub fn new(table: Mapping, second_level: u32) -> Self {
        let linked: BTreeSet<u32> = table.words32()[..FIRST_LEVEL_BLOCKS as usize * BLOCK]
            .iter()
            .filter_map(|word| match Slot::from_word(word.load(Ordering::Relaxed)) {
                Slot::Block(block) => Some(block),
                Slot::Entry(_) => None,
            })
            .collect();
        Self {
            table,
            prefixes: None,
            free: (0..second_level).filter(|block| !linked.contains(block)).collect(),
            starved: BTreeSet::new(),
        }
    }

    /// /24s that punt because all second-level blocks are in use.
    pub fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Makes the table say what `prefixes` say. No address ever reads a value that neither the old
    /// nor the new set gives it.
    pub fn replace(&mut self, prefixes: Prefixes) {
        let changed = self.prefixes.as_ref().map(|old| differences(old, &prefixes));
        match changed.filter(|changed| changed.len() <= FEW) {
            Some(changed) => {
                for (start, len) in changed {
                    self.render(&prefixes, start & !0xff, end(start, len) | 0xff);
                }
            }
            None => self.render(&prefixes, 0, u32::MAX),
        }
        // Blocks may have become free since these went without.
        for slot in self.starved.clone() {
            self.render(&prefixes, (slot as u32) << 8, (slot as u32) << 8 | 0xff);
        }
        self.prefixes = Some(prefixes);
    }

    /// Writes the words of the addresses `from..=to`, which are whole /24s.
    fn render(&mut self, prefixes: &Prefixes, from: u32, to: u32) {
        let mut slot = SlotWriter { table: self, pending: Vec::with_capacity(BLOCK) };
        for (first, last, entry) in intervals(prefixes, from, to) {
            slot.write(first, last, entry);
        }
    }

    /// Makes one /24 say the same for all its addresses.
    fn store_uniform(&mut self, slot: usize, entry: Entry) {
        self.starved.remove(&slot);
        let word = &self.table.words32()[slot];
        let old = word.load(Ordering::Relaxed);
        if old == entry.to_word() {
            return;
        }
        word.store(entry.to_word(), Ordering::Release);
        if let Slot::Block(block) = Slot::from_word(old) {
            self.free.push_back(block);
        }
    }

    /// Makes one /24 say `entries`, one for each address.
    fn store_block(&mut self, slot: usize, entries: &[Entry]) {
        let words = self.table.words32();
        let linked = match Slot::from_word(words[slot].load(Ordering::Relaxed)) {
            Slot::Block(block) => Some(block),
            Slot::Entry(_) => None,
        };
        let Some(block) = linked.or_else(|| self.free.pop_front()) else {
            self.store_uniform(slot, Entry::Punt);
            self.starved.insert(slot);
            return;
        };
        let start = (FIRST_LEVEL_BLOCKS + block) as usize * BLOCK;
        for (word, entry) in words[start..start + BLOCK].iter().zip(entries) {
            word.store(entry.to_word(), Ordering::Release);
        }
        words[slot].store(Slot::Block(block).to_word(), Ordering::Release);
        self.starved.remove(&slot);
    }
}

/// Turns intervals, which come in ascending order, into /24s.
struct SlotWriter<'a> {
    table: &'a mut RouteTable,
    /// Entries of the /24 that is only partly known.
    pending: Vec<Entry>,
}

impl SlotWriter<'_> {
    fn write(&mut self, first: u32, last: u32, entry: Entry) {
        let mut address = u64::from(first);
        let end = u64::from(last) + 1;
        while address < end {
            let slot = (address >> 8) as usize;
            let boundary = (slot as u64 + 1) << 8;
            if self.pending.is_empty() && boundary <= end && address & 0xff == 0 {
                self.table.store_uniform(slot, entry);
            } else {
                let known = (boundary.min(end) - address) as usize;
                self.pending.resize(self.pending.len() + known, entry);
                if self.pending.len() == BLOCK {
                    self.finish(slot);
                }
            }
            address = boundary.min(end);
        }
    }

    fn finish(&mut self, slot: usize) {
        if self.pending.iter().all(|entry| *entry == self.pending[0]) {
            self.table.store_uniform(slot, self.pending[0]);
        } else {
            self.table.store_block(slot, &self.pending);
        }
        self.pending.clear();
    }
}

/// The last address of a prefix.
fn end(start: u32, len: u8) -> u32 {
    start | u32::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// Prefixes that one set has and the other has not, or has with another entry.
pub(super) fn differences<P: Ord + Copy>(
    old: &BTreeMap<P, Entry>,
    new: &BTreeMap<P, Entry>,
) -> Vec<P> {
    let gone_or_changed =
        old.iter().filter(|(prefix, entry)| new.get(prefix) != Some(entry)).map(|(p, _)| *p);
    let added = new.keys().filter(|prefix| !old.contains_key(prefix)).copied();
    gone_or_changed.chain(added).collect()
}

/// The addresses `from..=to` as disjoint ascending intervals, each with the entry of the longest
/// prefix that covers it.
fn intervals(prefixes: &Prefixes, from: u32, to: u32) -> Vec<(u32, u32, Entry)> {
    let mut result = Vec::new();
    let mut emit = |first: u64, last: u64, entry| {
        if first <= last {
            result.push((first as u32, last as u32, entry));
        }
    };
    // The prefixes around the current position, the longest last: their ends and entries.
    let mut around = vec![(u64::from(to), covering(prefixes, from, to))];
    let mut position = u64::from(from);
    let inside =
        prefixes.range((from, 0)..=(to, 32)).filter(|&(&(start, len), _)| end(start, len) <= to);
    for (&(start, len), &entry) in inside {
        let start = u64::from(start);
        while let Some(&(last, outer)) = around.last()
            && last < start
        {
            emit(position, last, outer);
            position = position.max(last + 1);
            around.pop();
        }
        if let Some(&(_, outer)) = around.last()
            && position < start
        {
            emit(position, start - 1, outer);
            position = start;
        }
        around.push((u64::from(end(start as u32, len)), entry));
    }
    while let Some((last, entry)) = around.pop() {
        emit(position, last, entry);
        position = position.max(last + 1);
    }
    result
}

/// The entry of the longest prefix that covers all of `from..=to` and more.
fn covering(prefixes: &Prefixes, from: u32, to: u32) -> Entry {
    (0..=32u8)
        .rev()
        .map(|len| (from & !end(0, len), len))
        .filter(|&(start, len)| start < from || end(start, len) > to)
        .filter(|&(start, len)| end(start, len) >= to)
        .find_map(|prefix| prefixes.get(&prefix).copied())
        .unwrap_or(Entry::Punt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gre_ebpf_common::route;
    use proptest::prelude::*;

    fn table(second_level: u32) -> RouteTable {
        let bytes = blocks(second_level) as usize * BLOCK * 4;
        RouteTable::new(Mapping::anonymous(bytes).unwrap(), second_level)
    }

    fn lookup(table: &RouteTable, address: u32) -> Entry {
        let words = table.table.words32();
        route::lookup(address.to_be(), |block, index| {
            words.get(block as usize * BLOCK + index).map(|word| word.load(Ordering::Relaxed))
        })
    }

    /// Scans all prefixes for the longest that covers the address.
    fn naive(prefixes: &Prefixes, address: u32) -> Entry {
        prefixes
            .iter()
            .filter(|&(&(start, len), _)| start <= address && address <= end(start, len))
            .max_by_key(|&(&(_, len), _)| len)
            .map_or(Entry::Punt, |(_, &entry)| entry)
    }

    /// Prefixes crowded into few addresses, so that they overlap at every length.
    fn crowded() -> impl Strategy<Value = Prefixes> {
        let prefix = (any::<u32>(), 8u8..=32).prop_map(|(bits, len)| {
            let address = 0x0a00_0000 | bits & 0x0003_03ff;
            (address & !end(0, len), len)
        });
        let entry = (0u32..5).prop_map(|id| match id {
            0 => Entry::Punt,
            1 | 2 => Entry::NextHop(id),
            _ => Entry::Tunnel(id),
        });
        proptest::collection::btree_map(prefix, entry, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn after_any_changes_the_table_says_what_a_scan_says(
            sets in proptest::collection::vec(crowded(), 1..5),
            probes in proptest::collection::vec(any::<u32>(), 200),
        ) {
            let mut table = table(64);
            for set in sets {
                table.replace(set.clone());
                for &probe in &probes {
                    for address in [probe, 0x0a00_0000 | probe & 0x0003_03ff] {
                        prop_assert_eq!(lookup(&table, address), naive(&set, address));
                    }
                }
                for &(start, len) in set.keys() {
                    for address in [start, end(start, len), end(start, len).wrapping_add(1)] {
                        prop_assert_eq!(lookup(&table, address), naive(&set, address));
                    }
                }
            }
        }
    }

    #[test]
    fn a_default_route_fills_what_longer_prefixes_leave() {
        let mut table = table(4);
        table.replace([((0, 0), Entry::Tunnel(1)), ((0x0a00_0101, 32), Entry::Punt)].into());
        for (address, expected) in [
            (0, Entry::Tunnel(1)),
            (0x0a00_0100, Entry::Tunnel(1)),
            (0x0a00_0101, Entry::Punt),
            (u32::MAX, Entry::Tunnel(1)),
        ] {
            assert_eq!(lookup(&table, address), expected, "{address:#x}");
        }
        table.replace(Prefixes::new());
        assert_eq!(lookup(&table, u32::MAX), Entry::Punt);
    }

    #[test]
    fn blocks_come_back_when_long_prefixes_go() {
        let mut table = table(2);
        let long = |n: u32| ((0x0a00_0000 + (n << 8) + 1, 32), Entry::Tunnel(n));
        for _ in 0..5 {
            table.replace([long(1), long(2)].into());
            assert_eq!((table.starved(), table.free.len()), (0, 0));
            table.replace(Prefixes::new());
            assert_eq!(table.free.len(), 2);
        }
    }

    #[test]
    fn without_blocks_a_24_punts_until_there_is_one() {
        let mut table = table(1);
        let long = |n: u32| ((0x0a00_0000 + (n << 8) + 1, 32), Entry::Tunnel(n));
        table.replace([((0x0a00_0000, 8), Entry::NextHop(9)), long(1), long(2)].into());
        assert_eq!(table.starved(), 1);
        assert_eq!(lookup(&table, 0x0a00_0101), Entry::Tunnel(1));
        assert_eq!(lookup(&table, 0x0a00_0201), Entry::Punt);
        assert_eq!(lookup(&table, 0x0a00_0301), Entry::NextHop(9));
        table.replace([((0x0a00_0000, 8), Entry::NextHop(9)), long(2)].into());
        assert_eq!(table.starved(), 0);
        assert_eq!(lookup(&table, 0x0a00_0101), Entry::NextHop(9));
        assert_eq!(lookup(&table, 0x0a00_0201), Entry::Tunnel(2));
    }
}
