//! Takes note of what a peer sends that its tunnel does not take, for the daemon to explain.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, helpers::bpf_ktime_get_boot_ns, macros::map, maps::Array};
use gre_ebpf_common::{mismatch::Mismatch, outcome::Outcome, wire::gre::GreBase};

#[map]
static MISMATCHES: Array<Mismatch> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Takes note of a packet of tunnel `id` with this header and, if it has one, this key. Two CPUs may
/// mix theirs up; what comes next puts it right. Not inlined: it is for what is refused.
#[inline(never)]
pub fn note(id: u32, gre: GreBase, key: u32, outcome: Outcome) {
    if let Some(mismatch) = MISMATCHES.get_ptr_mut(id) {
        // SAFETY: the helper has no precondition.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        // SAFETY: the entry lies in the map, and any bits are a value.
        unsafe { (*mismatch).note(gre.0, key, outcome as u32, now) };
    }
}
