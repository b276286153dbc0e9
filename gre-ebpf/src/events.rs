//! Hands packets to the daemon that only it can finish.

use aya_ebpf::{
    EbpfContext, bindings::BPF_F_CURRENT_CPU, helpers::bpf_perf_event_output, macros::map,
    maps::PerfEventArray, programs::TcContext,
};
use gre_ebpf_common::{
    event::{Event, Kind},
    outcome::{Outcome, Stop},
    reassembly::HeldFrame,
};

use crate::{skb, tunnels};

#[map]
static EVENTS: PerfEventArray<Event> = PerfEventArray::new(0);

/// Bytes of a frame that the daemon gets to quote in an answer, and no more.
pub const QUOTED: u32 = 1294;

/// Sends the first `len` bytes of the frame. Says whether the daemon will see them.
#[inline(always)]
pub fn send(ctx: &TcContext, kind: Kind, tunnel: u32, len: u32) -> bool {
    send_tagged(ctx, kind, tunnel, len, [0; 2])
}

/// As [`send`], of a frame that VLAN tags have been taken out of.
#[inline(always)]
pub fn send_tagged(ctx: &TcContext, kind: Kind, tunnel: u32, len: u32, tags: [u32; 2]) -> bool {
    let event = Event { kind: kind as u32, tunnel, ifindex: skb(ctx).ifindex, len, tags };
    let flags = u64::from(len) << 32 | u64::from(BPF_F_CURRENT_CPU);
    // SAFETY: the map, the context and the event are valid; the helper checks the length.
    let sent = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            (&raw const EVENTS).cast_mut().cast(),
            flags,
            (&raw const event).cast_mut().cast(),
            size_of::<Event>() as u64,
        )
    };
    sent == 0
}

/// Sends a frame that was kept, `len` bytes long. Says whether the daemon will see it.
#[inline(always)]
pub fn send_held(ctx: &TcContext, frame: *mut HeldFrame, len: u32) -> bool {
    // SAFETY: the map and the context are valid, the frame lies in a map, and the helper checks the
    // length.
    let sent = unsafe {
        bpf_perf_event_output(
            ctx.as_ptr(),
            (&raw const EVENTS).cast_mut().cast(),
            u64::from(BPF_F_CURRENT_CPU),
            frame.cast(),
            size_of::<Event>() as u64 + u64::from(len),
        )
    };
    sent == 0
}

/// What the daemon can still make of a packet from the underlay that stopped here, and the outcome
/// where it takes it.
#[inline(always)]
pub fn take_over(ctx: &TcContext, stop: Stop) -> Stop {
    let (kind, outcome) = match stop.outcome {
        Outcome::OuterFragment => (Kind::OuterFragment, Outcome::Reassembling),
        Outcome::Ipv4Options | Outcome::Ipv6Extension => (Kind::OuterOptions, Outcome::Unwrapping),
        _ => return stop,
    };
    let Some(tunnel) = stop.tunnel().filter(|&tunnel| !tunnels::is_adopted(tunnel)) else {
        return stop;
    };
    if send(ctx, kind, tunnel, ctx.len()) {
        return outcome.into();
    }
    stop.outcome.into()
}
