//! From the program for plain packets to the one for all.

use aya_ebpf::{macros::map, maps::ProgramArray, programs::XdpContext};
use gre_ebpf_common::outcome::{Outcome, Stop};

/// Programs that XDP goes on with.
#[map]
static DETOURS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What stops a packet, for the program that handles all. The plain one need not know which of many
/// things it was: it has asked for all of them in as few tests as it could, and takes the detour.
#[inline(always)]
pub fn or<const ANY: bool>(outcome: Outcome) -> Stop {
    if ANY { outcome.into() } else { Outcome::Detour.into() }
}

/// The same, counted on a tunnel.
#[inline(always)]
pub fn or_on<const ANY: bool>(tunnel: u32, outcome: Outcome) -> Stop {
    if ANY { Stop::on(tunnel, outcome) } else { Outcome::Detour.into() }
}

/// Takes it. Only where there is no other program this comes back.
#[inline(always)]
pub fn take(ctx: &XdpContext) {
    // SAFETY: the array's programs are XDP programs.
    let _ = unsafe { DETOURS.tail_call(ctx, 0) };
}
