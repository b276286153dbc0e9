//! Counts: what went through each tunnel, and what became of each packet. The daemon reads them
//! through mappings.

use core::arch::asm;

use crate::verifier::opaque;

use aya_ebpf::{
    Global, bindings::BPF_F_MMAPABLE, helpers::bpf_get_smp_processor_id, macros::map, maps::Array,
};
use gre_ebpf_common::{
    counters::{
        OutcomeCounters, Tier, Traffic, TunnelCounters, TunnelDrops, drop_index, outcome_index,
        tunnel_index,
    },
    outcome::{MAX_DROPS, MAX_OUTCOMES, Outcome},
};

/// The number of possible CPUs. Set by the loader and then frozen, so the verifier folds it.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(1);

#[map]
static TUNNEL_COUNTERS: Array<TunnelCounters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TUNNEL_DROPS: Array<TunnelDrops> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static OUTCOMES: Array<OutcomeCounters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// This CPU's counters of a tunnel in a tier; a miss is an id beyond the map, which no map of ours
/// names.
#[inline(always)]
fn traffic(tier: Tier, tunnel: u32, cpu: u32) -> Option<&'static mut Traffic> {
    let counters = TUNNEL_COUNTERS.get_ptr_mut(tunnel_index(tunnel, cpu, CPUS.load()))?;
    // SAFETY: the entry is this CPU's own, and programs of one tier do not interrupt each other on
    // a CPU: they run with bottom halves off.
    Some(unsafe { &mut (*counters).tiers[tier as usize] })
}

/// Counts `packets` received from a tunnel, `bytes` long inside.
#[inline(always)]
pub fn receive(tier: Tier, tunnel: u32, packets: u32, bytes: u32) {
    if let Some(traffic) = traffic(tier, tunnel, cpu()) {
        traffic.rx_packets += u64::from(packets);
        traffic.rx_bytes += u64::from(bytes);
    }
}

/// Counts `packets` sent into a tunnel, `bytes` long inside. Returns an identification for the
/// outer header that no other packet of this tunnel has had for a while, whatever CPU or tier sent it.
#[inline(always)]
pub fn transmit(tier: Tier, tunnel: u32, packets: u32, bytes: u32) -> u16 {
    let cpu = cpu();
    let Some(traffic) = traffic(tier, tunnel, cpu) else {
        return 0;
    };
    let turn = traffic.tx_packets;
    traffic.tx_packets += u64::from(packets);
    traffic.tx_bytes += u64::from(bytes);
    ((turn * u64::from(CPUS.load()) + u64::from(cpu)) * 2 + tier as u64) as u16
}

/// A code that is below `limit`, a power of two, for the verifier as well: the compiler knows that it is
/// and would leave the mask out, but Linux 6.1 does not follow a code through spills and shifts.
#[inline(always)]
fn bounded(code: usize, limit: usize) -> usize {
    opaque(code) & (limit - 1)
}

/// The same for long programs. On ways through them that no packet takes, Linux 6.1 comes to bounds
/// that contradict each other, which no mask mends: a swap of bytes makes it forget them, but costs
/// the plain path a fiftieth.
#[inline(always)]
fn bounded_anew(mut code: usize, limit: usize) -> usize {
    // SAFETY: swaps the low 16 bits of a register, twice. Codes have no more.
    unsafe {
        asm!("{0} = be16 {0}", "{0} = be16 {0}", inout(reg) code, options(pure, nomem, nostack));
    }
    code & (limit - 1)
}

/// Counts a drop on its tunnel.
#[inline(always)]
pub fn tunnel_drop(tunnel: u32, outcome: Outcome) {
    if let Some(drops) = TUNNEL_DROPS.get_ptr_mut(tunnel) {
        let code = bounded_anew(drop_index(outcome), MAX_DROPS);
        // SAFETY: the entry lies in the map and the code within it.
        let counter = unsafe { &raw mut (*drops).0[code] };
        // SAFETY: an atomic addition to a counter that is only ever added to or read. Spelled out
        // because `core` offers the target no atomics beyond load and store.
        unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) counter, in(reg) 1u64) };
    }
}

/// Counts the outcome of one packet.
#[inline(always)]
pub fn outcome(tier: Tier, outcome: Outcome) {
    if let Some(counters) = OUTCOMES.get_ptr_mut(outcome_index(tier, cpu())) {
        let code = match tier {
            Tier::Xdp => bounded(outcome as usize, MAX_OUTCOMES),
            Tier::Tc => bounded_anew(outcome as usize, MAX_OUTCOMES),
        };
        // SAFETY: as in `traffic`; the code is below `MAX_OUTCOMES`.
        unsafe { (*counters).0[code] += 1 };
    }
}
