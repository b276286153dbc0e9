//! Sequence numbers: given to what is sent, and judged on what is received.

use core::arch::asm;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use gre_ebpf_common::{
    outcome::Outcome,
    sequence::{Judgement, Sequence},
    tunnel::Flags,
};

use crate::{packet::Packet, tunnels::Received};

#[map]
static SEQUENCES: Array<Sequence> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// A number that no other packet of the tunnel gets, in host order.
#[inline(always)]
pub fn next(id: u32) -> Option<u32> {
    let sent = SEQUENCES.get_ptr_mut(id)?.cast::<u64>();
    let mut number = 1u64;
    // SAFETY: `sent` is the record's first field. Spelled out because `core` offers the target no
    // atomics beyond load and store.
    unsafe {
        asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) sent, inout(reg) number);
    }
    Some(number as u32)
}

/// A received number that may be accepted.
#[derive(Clone, Copy)]
pub struct Judged(u32);

/// Judges the number of a packet. Only a refusal is taken note of at once: an accepted packet may
/// still be passed on, to be judged again.
#[inline(always)]
pub fn judge(packet: &Packet, received: &Received) -> Result<Option<Judged>, Outcome> {
    let flags = received.tunnel.flags;
    if !flags.has(Flags::SEQUENCE) || !received.gre.has_sequence() {
        return Ok(None);
    }
    let offset = received.gre_offset + received.gre.sequence_offset();
    let number = u32::from_be(packet.read(offset).ok_or(Outcome::GreTruncated)?);
    match weigh(received.id, number, flags.has(Flags::RFC2890)) {
        OLD => Err(Outcome::SequenceOld),
        DUPLICATE => Err(Outcome::SequenceDuplicate),
        _ => Ok(Some(Judged(number))),
    }
}

const GOOD: u32 = 0;
const OLD: u32 = 1;
const DUPLICATE: u32 = 2;

/// Not inlined, as `accept` is not: few tunnels number their packets.
#[inline(never)]
fn weigh(id: u32, number: u32, rfc2890: bool) -> u32 {
    // SAFETY: the entry lies in the map, and any bits are a value. As in the kernel, CPUs that receive
    // packets of one tunnel at the same time may judge by what the other is about to change.
    let sequence = SEQUENCES.get_ptr_mut(id).and_then(|sequence| unsafe { sequence.as_mut() });
    let Some(sequence) = sequence else { return GOOD };
    match sequence.judge(number, rfc2890) {
        Judgement::Accept | Judgement::Restart => GOOD,
        Judgement::Duplicate => DUPLICATE,
        Judgement::Old => {
            sequence.refuse(number);
            OLD
        }
    }
}

/// Takes note of a number, now that its packet is on its way.
#[inline(always)]
pub fn accept(id: u32, judged: Option<Judged>) {
    if let Some(Judged(number)) = judged {
        take(id, number);
    }
}

#[inline(never)]
fn take(id: u32, number: u32) {
    if let Some(sequence) = SEQUENCES.get_ptr_mut(id) {
        // SAFETY: as in `weigh`.
        unsafe { (*sequence).accept(number) };
    }
}
