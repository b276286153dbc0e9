//! From the program for plain packets to the one for all, or the one for Ethernet frames.

use aya_ebpf::{macros::map, maps::ProgramArray, programs::XdpContext};
use gre_ebpf_common::outcome::{Outcome, Stop};

/// Programs that XDP goes on with.
#[map]
static DETOURS: ProgramArray = ProgramArray::with_max_entries(2, 0);

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

const ANY: u32 = 0;
const FRAMES: u32 = 1;

/// Takes the detour that a packet ended with, if it did. Only where there is no other program this
/// comes back.
#[inline(always)]
pub fn take(ctx: &XdpContext, result: &Result<Outcome, Stop>) {
    let program = match result {
        Err(Stop { outcome: Outcome::Detour, .. }) => ANY,
        Err(Stop { outcome: Outcome::DetourOfFrames, .. }) => FRAMES,
        _ => return,
    };
    // SAFETY: the array's programs are XDP programs.
    let _ = unsafe { DETOURS.tail_call(ctx, program) };
}
