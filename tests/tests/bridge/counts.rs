//! A daemon's maps as a test needs them that asks often: without a program to start.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use gre_ebpf_common::{
    counters::{OutcomeCounters, TIERS, Tier},
    outcome::{MAX_OUTCOMES, Outcome},
    pod::from_words,
    port::Port,
};
use gre_userspace::loader::Build;

/// Of one daemon.
pub struct Counts {
    ports: Array<MapData, [u64; size_of::<Port>() / 8]>,
    outcomes: Array<MapData, [u64; size_of::<OutcomeCounters>() / 8]>,
}

impl Counts {
    pub fn open(pins: &Path) -> Result<Self> {
        let open = |name: &str| {
            MapData::from_pin(Build::THIS.maps(pins).join(name))
                .with_context(|| format!("map {name}"))
        };
        Ok(Self {
            ports: Map::Array(open("PORTS")?).try_into()?,
            outcomes: Map::Array(open("OUTCOMES")?).try_into()?,
        })
    }

    pub fn port(&self, ifindex: u32) -> Result<Port> {
        Ok(from_words(&self.ports.get(&ifindex, 0)?))
    }

    /// How many frames have ended in each of these ways in XDP.
    pub fn xdp<const N: usize>(&self, outcomes: [Outcome; N]) -> Result<[u64; N]> {
        let mut found = [0; N];
        for slot in (Tier::Xdp as u32..self.outcomes.len()).step_by(TIERS as usize) {
            let counts: [u64; MAX_OUTCOMES] = self.outcomes.get(&slot, 0)?;
            for (found, outcome) in found.iter_mut().zip(outcomes) {
                *found += counts[outcome as usize];
            }
        }
        Ok(found)
    }
}
