//! The trie behind map `ROUTES6`, kept equal to a set of prefixes.
//!
//! Packets are looked up while the trie changes, so every word goes from its old value to its new
//! one in a single store, and a node is filled, with all that hangs on it, before it is linked. A
//! node that is taken out stays as it was and is reused last, long after the programs that may
//! still read it have ended.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::atomic::Ordering,
};

use gre_ebpf_common::{
    route::{BLOCK, Entry, Slot},
    route6::FIRST_LEVEL_BLOCKS,
};

use super::{mapping::Mapping, routes::differences};

/// Start address in host order, and prefix length.
pub type Prefix6 = (u128, u8);
/// What each prefix says; longer ones win.
pub type Prefixes6 = BTreeMap<Prefix6, Entry>;

pub struct RouteTable6 {
    table: Mapping,
    /// What the trie says; none while an earlier daemon's routes are in it.
    prefixes: Option<Prefixes6>,
    /// Nodes not in use, the longest unused first.
    free: VecDeque<u32>,
    /// Slots, as the prefixes that they stand for, that hold longer prefixes and for which no node
    /// was left.
    starved: BTreeSet<Prefix6>,
    /// Sees the trie after each store.
    #[cfg(test)]
    observer: Option<Box<dyn Fn(&Mapping)>>,
}

/// Blocks of the whole map with this many nodes.
pub const fn blocks(nodes: u32) -> u32 {
    FIRST_LEVEL_BLOCKS + nodes
}

/// Above this share of changed prefixes one pass over the whole trie is cheaper.
const FEW: usize = 512;

impl RouteTable6 {
    /// Takes over a trie with `nodes` nodes, and what an earlier daemon left in it: it stays until
    /// it is replaced.
    pub fn new(table: Mapping, nodes: u32) -> Self {
        let mut linked = BTreeSet::new();
        let mut unread: Vec<_> = (0..FIRST_LEVEL_BLOCKS as usize * BLOCK).collect();
        while let Some(index) = unread.pop() {
            if let Slot::Block(node) = load(&table, index)
                && linked.insert(node)
            {
                unread.extend(words_of(node));
            }
        }
        Self {
            table,
            prefixes: None,
            free: (0..nodes).filter(|node| !linked.contains(node)).collect(),
            starved: BTreeSet::new(),
            #[cfg(test)]
            observer: None,
        }
    }

    /// Slots that punt because all nodes are in use. Each stands for a prefix of 16, 24, 32... bits.
    pub fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Makes the trie say what `prefixes` say. No address ever reads a value that neither the old
    /// nor the new set gives it, unless it starves.
    pub fn replace(&mut self, prefixes: Prefixes6) {
        let changed = self.prefixes.as_ref().map(|old| differences(old, &prefixes));
        match changed.filter(|changed| changed.len() <= FEW) {
            Some(changed) => {
                for (start, len) in changed {
                    self.render(&prefixes, start..=end(start, len));
                }
            }
            None => self.render(&prefixes, 0..=u128::MAX),
        }
        // Nodes may have become free since these went without.
        for (start, len) in self.starved.clone() {
            if self.free.is_empty() {
                break;
            }
            self.render(&prefixes, start..=end(start, len));
        }
        self.prefixes = Some(prefixes);
    }

    /// Writes the words of these addresses, which are those of a prefix.
    fn render(&mut self, prefixes: &Prefixes6, addresses: RangeInclusive<u128>) {
        self.render_node(prefixes, Node::ROOT, Entry::Punt, addresses);
    }

    /// Writes the words of `node`, and of what hangs on them, of those of these addresses that are
    /// the node's. `around` is what the prefixes that cover all of the node come to.
    fn render_node(
        &mut self,
        prefixes: &Prefixes6,
        node: Node,
        around: Entry,
        addresses: RangeInclusive<u128>,
    ) {
        let (first, last) = (node.child_of(*addresses.start()), node.child_of(*addresses.end()));
        for (child, wanted) in (first..=last).zip(node.children(prefixes, around, first, last)) {
            let (start, end) = node.addresses_of(child);
            let index = node.words + child;
            match wanted {
                Child::Uniform(entry) => {
                    self.feed(start, node.child_len);
                    self.store(index, entry);
                }
                Child::Mixed(entry) => match load(&self.table, index) {
                    Slot::Block(linked) => {
                        let part = start.max(*addresses.start())..=end.min(*addresses.end());
                        self.render_node(prefixes, node.below(linked, start), entry, part);
                        if let Some(entry) = self.uniform(linked) {
                            self.store(index, entry);
                        }
                    }
                    Slot::Entry(_) => self.grow(prefixes, node, child, entry),
                },
            }
        }
    }

    /// Puts a node under a slot that has none.
    fn grow(&mut self, prefixes: &Prefixes6, node: Node, child: usize, around: Entry) {
        let (start, end) = node.addresses_of(child);
        let index = node.words + child;
        self.feed(start, node.child_len);
        let Some(new) = self.free.pop_front() else {
            self.starved.insert((start, node.child_len));
            self.store(index, Entry::Punt);
            return;
        };
        // What is left in it links nodes that may since be used elsewhere.
        for index in words_of(new) {
            self.store_word(index, Slot::Entry(Entry::Punt));
        }
        self.render_node(prefixes, node.below(new, start), around, start..=end);
        match self.uniform(new) {
            Some(entry) => {
                // Nobody has seen it since it was freed.
                self.free.push_front(new);
                self.store(index, entry);
            }
            None => self.store_word(index, Slot::Block(new)),
        }
    }

    /// The slot of this prefix, and those below, are about to be written anew.
    fn feed(&mut self, start: u128, len: u8) {
        let fed: Vec<_> =
            self.starved.range((start, len)..=(end(start, len), 128)).copied().collect();
        for slot in fed {
            self.starved.remove(&slot);
        }
    }

    /// Makes a slot say the same for all its addresses, and frees what hung on it.
    fn store(&mut self, index: usize, entry: Entry) {
        let old = load(&self.table, index);
        if old == Slot::Entry(entry) {
            return;
        }
        self.store_word(index, Slot::Entry(entry));
        if let Slot::Block(node) = old {
            self.release(node);
        }
    }

    fn release(&mut self, node: u32) {
        for index in words_of(node) {
            if let Slot::Block(below) = load(&self.table, index) {
                self.release(below);
            }
        }
        self.free.push_back(node);
    }

    fn store_word(&self, index: usize, slot: Slot) {
        self.table.words32()[index].store(slot.to_word(), Ordering::Release);
        #[cfg(test)]
        if let Some(observer) = &self.observer {
            observer(&self.table);
        }
    }

    /// The entry that all of a node's words are.
    fn uniform(&self, node: u32) -> Option<Entry> {
        let mut words = words_of(node).map(|index| load(&self.table, index));
        match words.next() {
            Some(Slot::Entry(entry)) if words.all(|word| word == Slot::Entry(entry)) => Some(entry),
            _ => None,
        }
    }
}

/// Where a node's words are, and which addresses they stand for.
#[derive(Clone, Copy)]
struct Node {
    /// Index of the first word.
    words: usize,
    /// The first address.
    start: u128,
    /// Lengths of the prefixes that this node tells apart; what is shorter covers all of it.
    shortest: u8,
    child_len: u8,
}

/// What a word should say.
#[derive(Clone, Copy)]
enum Child {
    Uniform(Entry),
    /// There are longer prefixes; elsewhere it is this.
    Mixed(Entry),
}

impl Node {
    /// The first level.
    const ROOT: Self = Self { words: 0, start: 0, shortest: 0, child_len: 16 };

    fn below(self, node: u32, start: u128) -> Self {
        Self {
            words: words_of(node).start,
            start,
            shortest: self.child_len + 1,
            child_len: self.child_len + 8,
        }
    }

    fn child_of(self, address: u128) -> usize {
        ((address - self.start) >> (128 - self.child_len)) as usize
    }

    /// The first address and the last.
    fn addresses_of(self, child: usize) -> (u128, u128) {
        let start = self.start | (child as u128) << (128 - self.child_len);
        (start, end(start, self.child_len))
    }

    /// What the words `first..=last` should say.
    fn children(
        self,
        prefixes: &Prefixes6,
        around: Entry,
        first: usize,
        last: usize,
    ) -> Vec<Child> {
        let (from, to) = (self.addresses_of(first).0, self.addresses_of(last).1);
        let mut children = vec![Child::Uniform(around); last - first + 1];
        // In ascending order a prefix comes before those in it, which override it. First those that
        // begin before the first child.
        for len in self.shortest..self.child_len {
            let start = from & !end(0, len);
            if start < from
                && let Some(&entry) = prefixes.get(&(start, len))
            {
                let covered = self.child_of(end(start, len)).min(last) - first;
                children[..=covered].fill(Child::Uniform(entry));
            }
        }
        let mut next = Some((from, self.shortest));
        while let Some(at) = next
            && at <= (to, 128)
            && let Some((&(start, len), &entry)) = prefixes.range(at..=(to, 128)).next()
        {
            let child = self.child_of(start) - first;
            if len <= self.child_len {
                let covered = self.child_of(end(start, len)).min(last) - first;
                children[child..=covered].fill(Child::Uniform(entry));
                next = Some((start, len + 1));
            } else {
                if let Child::Uniform(entry) = children[child] {
                    children[child] = Child::Mixed(entry);
                }
                // However many there are in this child, one is enough.
                let end = self.addresses_of(first + child).1;
                next = end.checked_add(1).map(|start| (start, self.shortest));
            }
        }
        children
    }
}

fn load(table: &Mapping, index: usize) -> Slot {
    Slot::from_word(table.words32()[index].load(Ordering::Relaxed))
}

/// The indices of a node's words.
fn words_of(node: u32) -> std::ops::Range<usize> {
    let start = (FIRST_LEVEL_BLOCKS + node) as usize * BLOCK;
    start..start + BLOCK
}

/// The last address of a prefix.
fn end(start: u128, len: u8) -> u128 {
    start | u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use gre_ebpf_common::route6::{self, HOSTS};
    use proptest::prelude::*;

    use super::*;

    fn table(nodes: u32) -> RouteTable6 {
        let bytes = blocks(nodes) as usize * BLOCK * 4;
        RouteTable6::new(Mapping::anonymous(bytes).unwrap(), nodes)
    }

    fn prefix(text: &str) -> Prefix6 {
        let (start, len) = text.split_once('/').unwrap();
        (address(start), len.parse().unwrap())
    }

    fn address(text: &str) -> u128 {
        text.parse::<std::net::Ipv6Addr>().unwrap().into()
    }

    fn set<const N: usize>(entries: [(&str, Entry); N]) -> Prefixes6 {
        entries.map(|(text, entry)| (prefix(text), entry)).into()
    }

    fn lookup(table: &Mapping, address: u128) -> Entry {
        let words = table.words32();
        // As it stands in a header.
        let octets = address.to_be_bytes();
        let address = std::array::from_fn(|word| {
            u32::from_ne_bytes(*octets[4 * word..].first_chunk().unwrap())
        });
        route6::lookup(&address, |block, index| {
            words.get(block as usize * BLOCK + index).map(|word| word.load(Ordering::Relaxed))
        })
    }

    /// Scans all prefixes for the longest that covers the address.
    fn naive(prefixes: &Prefixes6, address: u128) -> Entry {
        prefixes
            .iter()
            .filter(|&(&(start, len), _)| start <= address && address <= end(start, len))
            .max_by_key(|&(&(_, len), _)| len)
            .map_or(Entry::Punt, |(_, &entry)| entry)
    }

    /// Where prefixes of these sets begin and end, and just beyond.
    fn edges<'a>(sets: impl IntoIterator<Item = &'a Prefixes6>) -> BTreeSet<u128> {
        sets.into_iter()
            .flat_map(|set| set.keys())
            .flat_map(|&(start, len)| {
                let end = end(start, len);
                [start, end, start.wrapping_sub(1), end.wrapping_add(1)]
            })
            .collect()
    }

    /// From now on each address must say after each store what the old or the new set says.
    fn watch(table: &mut RouteTable6, old: &Prefixes6, new: &Prefixes6) {
        let allowed: Vec<_> = edges([old, new])
            .into_iter()
            .map(|address| (address, [naive(old, address), naive(new, address)]))
            .collect();
        table.observer = Some(Box::new(move |table| {
            for (address, allowed) in &allowed {
                let found = lookup(table, *address);
                assert!(allowed.contains(&found), "{address:x}: {found:?} of {allowed:?}");
            }
        }));
    }

    /// Where the bits of crowded addresses differ: in some levels, not in others.
    const CROWD: u128 = 0x8003_0000_0181_0000_0000_0003_0000_8003;

    fn crowded_address() -> impl Strategy<Value = u128> {
        any::<u128>().prop_map(|bits| 0x2001_0db8 << 96 | bits & CROWD)
    }

    /// Prefixes crowded into few addresses, so that they overlap at every length.
    fn crowded(most: usize) -> impl Strategy<Value = Prefixes6> {
        let edge = proptest::sample::select(vec![0, 1, 15, 16, 17, 48, 64, 127, 128]);
        let prefix = (crowded_address(), prop_oneof![edge, 0u8..=128])
            .prop_map(|(address, len)| (address & !end(0, len), len));
        let entry = (0u32..6).prop_map(|id| match id {
            0 => Entry::Punt,
            1 | 2 => Entry::NextHop(id),
            3 => HOSTS,
            _ => Entry::Tunnel(id),
        });
        proptest::collection::btree_map(prefix, entry, 0..most)
    }

    /// Every node is linked from one slot, or free.
    fn assert_no_node_is_lost(table: &RouteTable6, nodes: u32) {
        let all_words = blocks(nodes) as usize * BLOCK;
        let free: BTreeSet<u32> = table.free.iter().copied().collect();
        let linked: Vec<u32> = (0..all_words)
            .filter(|index| !free.iter().any(|&node| words_of(node).contains(index)))
            .filter_map(|index| match load(&table.table, index) {
                Slot::Block(node) => Some(node),
                Slot::Entry(_) => None,
            })
            .collect();
        let distinct: BTreeSet<u32> = linked.iter().copied().collect();
        assert_eq!(distinct.len(), linked.len(), "a node is linked twice");
        assert_eq!(free.len(), table.free.len(), "a node is free twice");
        assert_eq!(distinct.len() + free.len(), nodes as usize, "a node is lost");
        assert!(distinct.is_disjoint(&free), "a linked node is free");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn after_any_changes_the_trie_says_what_a_scan_says(
            sets in proptest::collection::vec(crowded(40), 1..5),
            probes in proptest::collection::vec(crowded_address(), 200),
        ) {
            let mut table = table(640);
            let probes: BTreeSet<u128> = edges(&sets).into_iter().chain(probes).collect();
            for set in sets {
                table.replace(set.clone());
                prop_assert_eq!(table.starved(), 0);
                for &address in &probes {
                    prop_assert_eq!(lookup(&table.table, address), naive(&set, address));
                }
            }
            table.replace(Prefixes6::new());
            prop_assert_eq!(table.free.len(), 640);
        }

        #[test]
        fn while_it_changes_each_address_says_the_old_or_the_new(
            sets in proptest::collection::vec(crowded(8), 2..5),
        ) {
            let mut table = table(128);
            let mut old = Prefixes6::new();
            for new in sets {
                watch(&mut table, &old, &new);
                table.replace(new.clone());
                old = new;
            }
        }

        #[test]
        fn with_too_few_nodes_an_address_says_what_a_scan_says_or_punts(
            sets in proptest::collection::vec(crowded(16), 1..6),
            nodes in 0u32..40,
        ) {
            let mut table = table(nodes);
            for set in &sets {
                table.replace(set.clone());
                for address in edges([set]) {
                    let found = lookup(&table.table, address);
                    if table.starved() == 0 {
                        prop_assert_eq!(found, naive(set, address));
                    } else {
                        prop_assert!([Entry::Punt, naive(set, address)].contains(&found));
                    }
                }
                assert_no_node_is_lost(&table, nodes);
            }
            table.replace(Prefixes6::new());
            prop_assert_eq!((table.starved(), table.free.len()), (0, nodes as usize));
        }

        #[test]
        fn an_earlier_daemons_trie_stays_until_it_is_replaced(
            earlier in crowded(8),
            later in crowded(8),
        ) {
            let mut before = table(128);
            before.replace(earlier.clone());
            let mut after = RouteTable6::new(before.table, 128);
            for address in edges([&earlier]) {
                prop_assert_eq!(lookup(&after.table, address), naive(&earlier, address));
            }
            assert_no_node_is_lost(&after, 128);
            watch(&mut after, &earlier, &later);
            after.replace(later.clone());
            for address in edges([&earlier, &later]) {
                prop_assert_eq!(lookup(&after.table, address), naive(&later, address));
            }
        }
    }

    #[test]
    fn a_host_takes_a_chain_of_nodes_and_gives_it_back() {
        let mut table = table(14);
        for _ in 0..3 {
            table.replace(set([("2001:db8::1/128", Entry::Tunnel(1))]));
            assert_eq!((table.starved(), table.free.len()), (0, 0));
            assert_eq!(lookup(&table.table, address("2001:db8::1")), Entry::Tunnel(1));
            assert_eq!(lookup(&table.table, address("2001:db8::2")), Entry::Punt);
            table.replace(Prefixes6::new());
            assert_eq!(table.free.len(), 14);
        }
    }

    #[test]
    fn a_prefix_that_says_the_same_as_what_is_around_it_takes_no_nodes() {
        let mut table = table(14);
        table.replace(set([
            ("::/0", Entry::NextHop(1)),
            ("2001:db8::1/128", Entry::NextHop(1)),
            ("2001:db8::/17", Entry::NextHop(1)),
        ]));
        assert_eq!((table.starved(), table.free.len()), (0, 14));
    }

    #[test]
    fn without_nodes_a_slot_punts_until_there_is_one() {
        let mut table = table(2);
        let sites = set([
            ("2001:db8::/32", Entry::NextHop(9)),
            ("2001:db8:100::/40", Entry::Tunnel(1)),
            ("2001:db8:200::/48", Entry::Tunnel(2)),
        ]);
        let says = |table: &RouteTable6, text| lookup(&table.table, address(text));
        // 2001::/16 and 2001:d00::/24 take a node each; 2001:db8::/32 gets none.
        table.replace(sites.clone());
        assert_eq!(table.starved(), 1);
        assert_eq!(says(&table, "2001:db8:100::1"), Entry::Punt);
        assert_eq!(says(&table, "2001:db8:300::1"), Entry::Punt);

        let mut fewer = sites;
        fewer.retain(|&(_, len), _| len == 32);
        fewer.insert(prefix("2001:db9::/32"), Entry::Tunnel(3));
        table.replace(fewer);
        assert_eq!(table.starved(), 0);
        assert_eq!(says(&table, "2001:db8:100::1"), Entry::NextHop(9));
        assert_eq!(says(&table, "2001:db9::1"), Entry::Tunnel(3));
    }

    #[test]
    fn what_starved_is_fed_by_nodes_that_become_free_elsewhere() {
        let mut table = table(4);
        let other = ("2002:1:2::/48", Entry::Tunnel(1));
        let site = ("2001:db8:2::/48", Entry::Tunnel(2));
        table.replace(set([other]));
        assert_eq!(table.free.len(), 0);
        table.replace(set([other, site]));
        assert_eq!(table.starved(), 1);
        assert_eq!(lookup(&table.table, address("2001:db8:2::1")), Entry::Punt);
        table.replace(set([site]));
        assert_eq!((table.starved(), table.free.len()), (0, 0));
        assert_eq!(lookup(&table.table, address("2001:db8:2::1")), Entry::Tunnel(2));
    }

    #[test]
    fn a_freed_node_is_reused_last() {
        let mut table = table(3);
        table.replace(set([("2001:8000::/17", Entry::Tunnel(1))]));
        table.replace(Prefixes6::new());
        assert_eq!(table.free, [1, 2, 0]);
        table.replace(set([("2001:8000::/17", Entry::Tunnel(1))]));
        assert_eq!(table.free, [2, 0]);
    }

    #[test]
    fn a_change_writes_only_the_paths_that_change() {
        let site = |n: u128| ((0x2001_0db8 << 96 | n << 80, 48), Entry::NextHop(n as u32));
        let mut prefixes: Prefixes6 = (1..5000).map(site).collect();
        prefixes.insert((0, 0), Entry::NextHop(7));
        let mut table = table(100);
        table.replace(prefixes.clone());
        let stores = Rc::new(Cell::new(0));
        let counted = Rc::clone(&stores);
        table.observer = Some(Box::new(move |_| counted.set(counted.get() + 1)));

        prefixes.insert(site(3).0, Entry::Tunnel(1));
        table.replace(prefixes.clone());
        assert_eq!(stores.take(), 1, "another entry");
        prefixes.remove(&site(3).0);
        table.replace(prefixes.clone());
        assert_eq!(stores.take(), 1, "a prefix less");
        table.replace(prefixes.clone());
        assert_eq!(stores.take(), 0, "nothing");
        prefixes.insert((site(3).0.0, 49), Entry::Tunnel(1));
        table.replace(prefixes.clone());
        assert_eq!(stores.take(), 256 + 256 + 1, "a node: emptied, filled and linked");
    }
}
