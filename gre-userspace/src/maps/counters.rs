//! Reads the counters, which the programs keep for each CPU.

use std::sync::atomic::Ordering;

use gre_ebpf_common::{
    counters::{TIERS, Tier, Traffic, TunnelCounters, drop_index, outcome_index, tunnel_index},
    outcome::{Disposition, MAX_DROPS, MAX_OUTCOMES, Outcome},
};

use super::mapping::Mapping;

pub struct Counters {
    tunnels: Mapping,
    drops: Mapping,
    outcomes: Mapping,
    cpus: u32,
}

/// Words of a [`TunnelCounters`], and of one of its tiers.
const TUNNEL_WORDS: usize = size_of::<TunnelCounters>() / 8;
const TIER_WORDS: usize = size_of::<Traffic>() / 8;

impl Counters {
    pub fn new(tunnels: Mapping, drops: Mapping, outcomes: Mapping, cpus: u32) -> Self {
        Self { tunnels, drops, outcomes, cpus }
    }

    /// What a tunnel has carried, by tier, over all CPUs.
    pub fn tunnel(&self, tunnel: u32) -> [Traffic; TIERS as usize] {
        let mut totals = [Traffic::default(); TIERS as usize];
        for cpu in 0..self.cpus {
            let start = tunnel_index(tunnel, cpu, self.cpus) as usize * TUNNEL_WORDS;
            let words = &self.tunnels.words64()[start..start + TUNNEL_WORDS];
            for (total, tier) in totals.iter_mut().zip(words.chunks_exact(TIER_WORDS)) {
                let word = |i: usize| tier[i].load(Ordering::Relaxed);
                total.rx_packets += word(0);
                total.rx_bytes += word(1);
                total.tx_packets += word(2);
                total.tx_bytes += word(3);
            }
        }
        totals
    }

    /// How often packets of a tunnel were dropped for this reason.
    pub fn tunnel_drops(&self, tunnel: u32, outcome: Outcome) -> u64 {
        if matches!(outcome.disposition(), Disposition::Drop | Disposition::Abort) {
            let index = tunnel as usize * MAX_DROPS + drop_index(outcome);
            return self.drops.words64()[index].load(Ordering::Relaxed);
        }
        0
    }

    /// How often packets had this outcome in a tier, over all CPUs.
    pub fn outcome(&self, tier: Tier, outcome: Outcome) -> u64 {
        (0..self.cpus)
            .map(|cpu| {
                let index = outcome_index(tier, cpu) as usize * MAX_OUTCOMES + outcome as usize;
                self.outcomes.words64()[index].load(Ordering::Relaxed)
            })
            .sum()
    }

    /// Sets a tunnel's counters to zero, before its id is given to another.
    pub fn reset(&self, tunnel: u32) {
        let start = tunnel_index(tunnel, 0, self.cpus) as usize * TUNNEL_WORDS;
        let traffic = &self.tunnels.words64()[start..start + self.cpus as usize * TUNNEL_WORDS];
        let start = tunnel as usize * MAX_DROPS;
        let drops = &self.drops.words64()[start..start + MAX_DROPS];
        for word in traffic.iter().chain(drops) {
            word.store(0, Ordering::Relaxed);
        }
    }
}
