//! The tunnel demultiplexer behind map `DEMUX`, kept equal to a set of keys.

use std::collections::{BTreeMap, BTreeSet};

use gre_ebpf_common::demux::{Bucket, Key, SLOTS};
use thiserror::Error;

use super::mapping::Mapping;

/// Slots for each key, so that both buckets of a key are all but never full.
const SLOTS_PER_KEY: u32 = 4;
/// Keys of a tunnel: its own, and its pair of addresses.
const KEYS_PER_TUNNEL: u32 = 2;

/// Slots of a key's first bucket that are left to keys with a full second one.
const SPARE: usize = 2;

/// Buckets for this many tunnels: a power of two.
pub fn buckets(tunnels: u32) -> u32 {
    (tunnels.max(1) * KEYS_PER_TUNNEL * SLOTS_PER_KEY / SLOTS as u32).next_power_of_two()
}

/// Both buckets of a key are full.
#[derive(Debug, Error)]
#[error("the tunnel table has no room for another tunnel: raise `limits.tunnels` in the config")]
pub struct Full;

pub struct Demux {
    map: Mapping,
    table: Table,
}

impl Demux {
    /// Takes over a map of this many buckets, and what an earlier daemon left in it: it stays
    /// until it is replaced.
    pub fn new(map: Mapping, buckets: u32) -> Self {
        let buckets = (0..buckets).map(|bucket| map.load(bucket)).collect();
        Self { map, table: Table { buckets, keys: BTreeMap::new(), owned: false } }
    }

    /// Makes the map find exactly these keys. New ones are in before old ones go.
    pub fn replace(&mut self, keys: &BTreeMap<Key, u32>) -> Result<(), Full> {
        for (key, &tunnel) in keys {
            if let Some(bucket) = self.table.insert(key, tunnel)? {
                self.store(bucket);
            }
        }
        let gone: Vec<_> =
            self.table.keys.keys().filter(|key| !keys.contains_key(key)).copied().collect();
        for key in gone {
            let bucket = self.table.remove(&key);
            self.store(bucket);
        }
        for bucket in self.table.disown() {
            self.store(bucket);
        }
        Ok(())
    }

    fn store(&mut self, bucket: u32) {
        self.map.store(bucket, &self.table.buckets[bucket as usize]);
    }
}

/// What the map holds, and where.
struct Table {
    buckets: Vec<Bucket>,
    /// Bucket and slot of each key.
    keys: BTreeMap<Key, (u32, usize)>,
    /// There are no slots but those of `keys`.
    owned: bool,
}

impl Table {
    fn mask(&self) -> u32 {
        self.buckets.len() as u32 - 1
    }

    /// The bucket that changed, if one did.
    fn insert(&mut self, key: &Key, tunnel: u32) -> Result<Option<u32>, Full> {
        let location = key.locate(self.mask());
        let slot = location.slot(tunnel);
        if let Some(&(bucket, index)) = self.keys.get(key) {
            let word = &mut self.buckets[bucket as usize].0[index];
            let changed = *word != slot;
            *word = slot;
            return Ok(changed.then_some(bucket));
        }
        // An earlier daemon's slot of the same key, the tunnel's number having stayed.
        let found = location.buckets.into_iter().find_map(|bucket| {
            let index = self.buckets[bucket as usize].0.iter().position(|word| *word == slot)?;
            Some((bucket, index))
        });
        if let Some(place) = found.filter(|_| !self.owned) {
            self.keys.insert(*key, place);
            return Ok(None);
        }
        // A bucket holds a fingerprint once, so that a look-up compares one tunnel a bucket. While
        // the first bucket has room to spare it is taken even if the second is emptier: a look-up
        // that finds its key in the first does not touch the second's cache line.
        let (bucket, index) = location
            .buckets
            .into_iter()
            .filter(|&bucket| {
                let slots = &self.buckets[bucket as usize].0;
                slots.iter().all(|&slot| !location.is_in(slot))
            })
            .filter_map(|bucket| {
                let slots = &self.buckets[bucket as usize].0;
                let free = slots.iter().filter(|&&slot| slot == 0).count();
                let index = slots.iter().position(|&slot| slot == 0)?;
                Some((free, bucket, index))
            })
            .reduce(
                |first, second| {
                    if first.0 > SPARE || first.0 >= second.0 { first } else { second }
                },
            )
            .map(|(_, bucket, index)| (bucket, index))
            .ok_or(Full)?;
        self.buckets[bucket as usize].0[index] = slot;
        self.keys.insert(*key, (bucket, index));
        Ok(Some(bucket))
    }

    /// The bucket that changed. The key must be there.
    fn remove(&mut self, key: &Key) -> u32 {
        let (bucket, index) = self.keys.remove(key).expect("only keys of the table are removed");
        self.buckets[bucket as usize].0[index] = 0;
        bucket
    }
}

impl Table {
    /// Empties slots that are no key's, and says which buckets had any.
    fn disown(&mut self) -> Vec<u32> {
        if self.owned {
            return Vec::new();
        }
        self.owned = true;
        let ours: BTreeSet<(u32, usize)> = self.keys.values().copied().collect();
        let mut changed = Vec::new();
        for (number, bucket) in (0..).zip(&mut self.buckets) {
            let before = *bucket;
            for (index, slot) in bucket.0.iter_mut().enumerate() {
                if !ours.contains(&(number, index)) {
                    *slot = 0;
                }
            }
            if *bucket != before {
                changed.push(number);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gre_ebpf_common::{demux::Kind, tunnel::Ends};

    impl Table {
        fn new(buckets: u32) -> Self {
            let buckets = vec![Bucket::default(); buckets as usize];
            Self { buckets, keys: BTreeMap::new(), owned: true }
        }
    }

    #[test]
    fn a_tunnel_is_found_all_the_while_a_successor_takes_over() {
        let key = |n: u32| Key { ends: Ends::v4(1, n), kind: Kind::KEYLESS, link: 0 };
        let mut earlier = Table::new(buckets(16));
        for n in 0..2 {
            earlier.insert(&key(n), n).unwrap();
        }
        let mut table = Table { buckets: earlier.buckets, keys: BTreeMap::new(), owned: false };
        assert_eq!(table.insert(&key(1), 1).unwrap(), None, "its slot stays as it is");
        assert_eq!(find(&table, &key(0)), [0]);
        assert_eq!(table.disown().len(), 1);
        assert_eq!((find(&table, &key(0)), find(&table, &key(1))), (vec![], vec![1]));
    }

    fn find(table: &Table, key: &Key) -> Vec<u32> {
        let location = key.locate(table.mask());
        location
            .buckets
            .iter()
            .filter_map(|&bucket| location.candidate(&table.buckets[bucket as usize]))
            .collect()
    }

    #[test]
    fn a_full_complement_of_tunnels_is_found_and_then_gone() {
        const TUNNELS: u32 = 100_000;
        let mut table = Table::new(buckets(TUNNELS));
        let keys = |n: u32| {
            let (local, remote) = (1, n.to_be());
            [Kind::KEYLESS, Kind::PAIR].map(|kind| Key {
                ends: Ends::v4(local, remote),
                kind,
                link: 0,
            })
        };
        for n in 0..TUNNELS {
            for key in keys(n) {
                table.insert(&key, n).unwrap();
            }
        }
        for n in 0..TUNNELS {
            for key in keys(n) {
                assert!(find(&table, &key).contains(&n), "{key:?}");
            }
        }
        let seconds = table
            .keys
            .iter()
            .filter(|(key, (bucket, _))| *bucket != key.locate(table.mask()).buckets[0])
            .count();
        assert!(seconds < table.keys.len() / 20, "{seconds} keys cost a second cache line");
        for n in 0..TUNNELS {
            for key in keys(n) {
                table.remove(&key);
            }
        }
        assert!(table.buckets.iter().all(|bucket| *bucket == Bucket::default()));
    }

    #[test]
    fn a_key_moves_to_another_tunnel_in_place() {
        let mut table = Table::new(buckets(16));
        let key = Key { ends: Ends::v4(1, 2), kind: Kind::PAIR, link: 0 };
        let bucket = table.insert(&key, 3).unwrap();
        assert_eq!(table.insert(&key, 3).unwrap(), None);
        assert_eq!(table.insert(&key, 4).unwrap(), bucket);
        assert_eq!(find(&table, &key), [4]);
    }

    #[test]
    fn more_than_two_buckets_hold_is_refused_and_changes_nothing() {
        let mut table = Table::new(1);
        let key = |n| Key { ends: Ends::v4(n, 2), kind: Kind::KEYLESS, link: 0 };
        for n in 0..SLOTS as u32 {
            table.insert(&key(n), n).unwrap();
        }
        let before = table.buckets.clone();
        assert!(matches!(table.insert(&key(99), 99), Err(Full)));
        assert_eq!(table.buckets, before);
        assert!(!table.keys.contains_key(&key(99)));
    }
}
