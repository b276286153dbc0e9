//! Kernel hash maps, kept equal to what they should hold. For what few packets look up, tagged frames
//! and IPv6 hosts on links, and for what comes and goes one by one, addresses behind bridges.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use gre_ebpf_common::{
    pod::{from_words, to_words},
    port::Port,
    wire::vlan::VlanKey,
};

use super::MapsError;

/// A hash map and what is in it, as the bytes that the programs read.
pub(super) struct Hash<K, V> {
    map: HashMap<MapData, K, V>,
    name: &'static str,
    what: &'static str,
    limit: &'static str,
    len: u32,
    values: BTreeMap<K, V>,
}

impl<K: Pod + Ord, V: Pod + PartialEq> Hash<K, V> {
    /// Takes over a map, and what an earlier daemon left in it.
    pub(super) fn new(
        map: Map,
        len: u32,
        [name, what, limit]: [&'static str; 3],
    ) -> Result<Self, MapError> {
        let map: HashMap<_, K, V> = map.try_into()?;
        let values = map.iter().collect::<Result<_, _>>()?;
        Ok(Self { map, name, what, limit, len, values })
    }

    fn check(&self, wanted: usize) -> Result<(), MapsError> {
        if wanted > self.len as usize {
            let Self { what, limit, len, .. } = *self;
            return Err(MapsError::Count { what, wanted, limit, len });
        }
        Ok(())
    }

    /// How many more it can hold.
    pub(super) fn room(&self) -> usize {
        (self.len as usize).saturating_sub(self.values.len())
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn fill(&mut self, wanted: impl Iterator<Item = (K, V)>) -> Result<(), MapsError> {
        for (key, value) in wanted {
            if self.values.get(&key) != Some(&value) {
                let failed = |source| MapsError::Hash { map: self.name, source };
                self.map.insert(key, value, 0).map_err(failed)?;
                self.values.insert(key, value);
            }
        }
        Ok(())
    }

    pub(super) fn prune(&mut self, is_wanted: impl Fn(&K) -> bool) -> Result<(), MapsError> {
        let gone: Vec<_> = self.values.keys().filter(|key| !is_wanted(key)).copied().collect();
        for key in gone {
            let failed = |source| MapsError::Hash { map: self.name, source };
            self.map.remove(&key).map_err(failed)?;
            self.values.remove(&key);
        }
        Ok(())
    }
}

/// Map `VLANS`.
pub struct Vlans(Hash<[u32; 4], [u64; 2]>);

impl Vlans {
    pub fn new(map: Map, len: u32) -> Result<Self, MapError> {
        Hash::new(map, len, ["VLANS", "VLAN devices on ports", "vlans"]).map(Self)
    }

    pub(super) fn check(&self, wanted: usize) -> Result<(), MapsError> {
        self.0.check(wanted)
    }

    pub(super) fn fill(&mut self, wanted: &BTreeMap<VlanKey, Port>) -> Result<(), MapsError> {
        self.0.fill(wanted.iter().map(|(key, port)| {
            let mut words = [0; 2];
            to_words(port, &mut words);
            (key.words(), words)
        }))
    }

    pub(super) fn prune(&mut self, wanted: &BTreeMap<VlanKey, Port>) -> Result<(), MapsError> {
        self.0.prune(|&words| wanted.contains_key(&VlanKey::from_words(words)))
    }

    /// What is in it.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.0.values.values().map(|words| from_words(words))
    }
}

/// Map `HOSTS6`: addresses to the words of their entries.
pub struct Hosts6(Hash<[u32; 4], u32>);

impl Hosts6 {
    pub fn new(map: Map, len: u32) -> Result<Self, MapError> {
        Hash::new(map, len, ["HOSTS6", "IPv6 hosts on links", "hosts6"]).map(Self)
    }

    pub(super) fn check(&self, wanted: usize) -> Result<(), MapsError> {
        self.0.check(wanted)
    }

    /// Addresses are in host order.
    pub(super) fn fill(&mut self, wanted: &BTreeMap<u128, u32>) -> Result<(), MapsError> {
        self.0.fill(wanted.iter().map(|(&address, &word)| (in_header(address), word)))
    }

    pub(super) fn prune(&mut self, wanted: &BTreeMap<u128, u32>) -> Result<(), MapsError> {
        self.0.prune(|key| wanted.contains_key(&in_host_order(key)))
    }
}

fn in_header(address: u128) -> [u32; 4] {
    std::array::from_fn(|i| ((address >> (96 - 32 * i)) as u32).to_be())
}

fn in_host_order(words: &[u32; 4]) -> u128 {
    words.iter().fold(0, |address, word| address << 32 | u128::from(u32::from_be(*word)))
}
