//! Bridges: which of its members an address is behind.
#![expect(dead_code, reason = "the daemon fills the maps; no program forwards by them yet")]

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap},
};
use gre_ebpf_common::bridge::{Address, Member, Station, Until};

/// Interface index to member.
#[map]
static BRIDGE_MEMBERS: Array<Member> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static FDB: HashMap<Address, Station> = HashMap::with_max_entries(1, 0);

/// One word.
#[map]
static BRIDGES_UNTIL: Array<Until> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The bridge's member with this interface index; none where it is no member, or one whose frames
/// only the kernel forwards.
#[inline(always)]
pub fn member(ifindex: u32) -> Option<&'static Member> {
    BRIDGE_MEMBERS.get(ifindex).filter(|member| member.bridge != 0)
}

/// Where an address is; a miss is one that the bridge has not learned, or only the kernel sends to.
#[inline(always)]
pub fn station(address: &Address) -> Option<*mut Station> {
    FDB.get_ptr_mut(address)
}

/// Up to when the daemon vouches for the mirror, in nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn until() -> Until {
    BRIDGES_UNTIL.get(0).copied().unwrap_or(0)
}
