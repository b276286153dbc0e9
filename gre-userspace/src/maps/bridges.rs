//! What the programs know of bridges: members, the hosts behind them, and how long that holds.

use std::sync::atomic::Ordering;

use aya::maps::{Map, MapError};
use gre_ebpf_common::{
    bridge::{Address, Member, Station, Until},
    pod::{Plain, from_words, to_words},
};

use super::{MapsError, Table, hash::Hash, mapping::Mapping};
use crate::dataplane::DataPlane;

/// Maps `BRIDGE_MEMBERS`, `FDB` and `BRIDGES_UNTIL`.
pub struct Bridges {
    members: Table<Member>,
    /// The daemon never asks when the kernel must see a frame again, which the programs write: it
    /// writes a station only where that has moved.
    stations: Hash<[u64; Address::WORDS], [u64; Station::WORDS]>,
    until: Mapping,
    left_out: usize,
}

impl Bridges {
    /// Takes over the maps, of which `FDB` has room for `len` addresses. Nothing is forwarded by them
    /// before [`Bridges::vouch`].
    pub fn new(
        members: Table<Member>,
        stations: Map,
        len: u32,
        until: Mapping,
    ) -> Result<Self, MapError> {
        let stations = Hash::new(stations, len, ["FDB", "addresses behind bridges", "fdb"])?;
        let bridges = Self { members, stations, until, left_out: 0 };
        bridges.doubt();
        Ok(bridges)
    }

    pub(super) fn check(&self, plane: &DataPlane) -> Result<(), MapsError> {
        self.members.check(&plane.members)
    }

    /// Takes out who is not wanted any more: members first, so that nothing comes in on one whose
    /// stations are going.
    pub(super) fn prune(&mut self, plane: &DataPlane) -> Result<(), MapsError> {
        self.members.prune(&plane.members);
        self.stations.prune(|key| plane.stations.contains_key(&from_words(key)))
    }

    /// Writes what is new or has moved, after [`Bridges::prune`] and what stations name. Addresses for
    /// which there is no room are the kernel's to forward to; those that are in stay in.
    pub(super) fn fill(&mut self, plane: &DataPlane) -> Result<(), MapsError> {
        let mut room = self.stations.room();
        let mut wanted = Vec::new();
        for (address, station) in &plane.stations {
            let key = words(address);
            if !self.stations.contains(&key) {
                let Some(left) = room.checked_sub(1) else { continue };
                room = left;
            }
            wanted.push((key, words(station)));
        }
        self.left_out = plane.stations.len() - wanted.len();
        self.stations.fill(wanted.into_iter())?;
        self.members.fill(&plane.members);
        Ok(())
    }

    /// Addresses for which there was no room.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The programs may forward by these maps until then, in nanoseconds of CLOCK_MONOTONIC.
    pub fn vouch(&self, until: Until) {
        self.until.words64()[0].store(until, Ordering::Release);
    }

    /// The kernel forwards all frames from now on.
    pub fn doubt(&self) {
        self.vouch(0);
    }
}

fn words<T: Plain, const N: usize>(value: &T) -> [u64; N] {
    let mut words = [0; N];
    to_words(value, &mut words);
    words
}
