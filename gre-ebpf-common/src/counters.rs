//! Layout of the counters. Each CPU has its own, in plain arrays: no atomics on the packet path, and
//! one cache line a packet.

use crate::outcome::{FIRST_DROP, MAX_DROPS, MAX_OUTCOMES, Outcome};

/// Which tier did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Tier {
    Xdp = 0,
    Tc = 1,
}

pub const TIERS: u32 = 2;

/// Map `TUNNEL_COUNTERS`, at [`tunnel_index`]: one tunnel on one CPU, by [`Tier`].
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelCounters {
    pub tiers: [Traffic; TIERS as usize],
}

/// Bytes are of the inner packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
}

impl Traffic {
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rx_packets: self.rx_packets + other.rx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            tx_packets: self.tx_packets + other.tx_packets,
            tx_bytes: self.tx_bytes + other.tx_bytes,
        }
    }
}

const _: () = assert!(size_of::<TunnelCounters>() == 64);

/// Index into `TUNNEL_COUNTERS`; `cpus` is the number of possible CPUs.
#[inline(always)]
pub const fn tunnel_index(tunnel: u32, cpu: u32, cpus: u32) -> u32 {
    tunnel.wrapping_mul(cpus).wrapping_add(cpu)
}

/// Map `OUTCOMES`, at [`outcome_index`]: packets by outcome code, one tier on one CPU.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeCounters(pub [u64; MAX_OUTCOMES]);

/// Index into `OUTCOMES`.
#[inline(always)]
pub const fn outcome_index(tier: Tier, cpu: u32) -> u32 {
    cpu * TIERS + tier as u32
}

/// Map `TUNNEL_DROPS`: tunnel id to packets by [`drop_index`]. Shared by the CPUs and added to
/// atomically: a drop is the exception.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelDrops(pub [u64; MAX_DROPS]);

/// Index into [`TunnelDrops`] of a drop.
#[inline(always)]
pub const fn drop_index(outcome: Outcome) -> usize {
    (outcome as usize).wrapping_sub(FIRST_DROP)
}
