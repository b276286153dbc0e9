//! Outer packets in two fragments are put together where they arrive: the one that comes first waits
//! in a map for the other. What is more than two, overlaps or finds no room is the daemon's.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext, Global,
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::map,
    maps::Array,
    programs::TcContext,
};
use gre_ebpf_common::{
    event::{Event, Kind},
    outcome::{Outcome, Stop},
    reassembly::{self, Action, Bucket, Fragment, HeldFrame, LONGEST, Slot, State, WAYS},
    wire::{
        ethernet::HEADER_LEN as ETHERNET_LEN,
        ipv4::{HEADER_LEN as IPV4_LEN, Ipv4Header, PROTOCOL_GRE},
    },
};

use crate::{
    counters, events,
    packet::Packet,
    parse::Frame,
    scratch, skb, tunnels,
    verifier::{length, opaque},
};

/// Buckets of `HELD`. Set by the loader and then frozen.
#[unsafe(no_mangle)]
static HELD_BUCKETS: Global<u32> = Global::new(1);

#[map]
static HELD: Array<Bucket> = Array::with_max_entries(1, 0);

#[map]
static FRAMES: Array<HeldFrame> = Array::with_max_entries(1, 0);

/// Bytes in front of a fragment's payload.
const HEADERS: u32 = (ETHERNET_LEN + IPV4_LEN) as u32;

/// Makes a fragment of a tunnel's packet the whole packet, if the other one is there. Says whether it
/// has, and so whether the packet is another now; where the fragment has to wait, or the daemon gets
/// it, that is where it stops.
#[inline(always)]
pub fn fragment(ctx: &TcContext, frame: &Frame, ip: &Ipv4Header) -> Result<bool, Stop> {
    if ip.protocol() != PROTOCOL_GRE || !ip.is_fragment() {
        return Ok(false);
    }
    let id = tunnels::between4(ip.destination(), ip.source()).ok_or(Outcome::NoTunnel)?;
    if tunnels::is_adopted(id) {
        return Err(Outcome::Adopted.into());
    }
    let with_daemon = Stop::on(id, Outcome::OuterFragment);
    if frame.header_len != ETHERNET_LEN {
        return Err(events::take_over(ctx, with_daemon));
    }
    match xgre_reassemble(ctx.skb.skb, id.into()) {
        WHOLE => Ok(true),
        WAITING => Err(Outcome::FragmentWaiting.into()),
        FAILED => Err(Stop::on(id, Outcome::Aborted)),
        _ => Err(events::take_over(ctx, with_daemon)),
    }
}

/// Answers of `xgre_reassemble`.
const FOR_DAEMON: u64 = 0;
const WAITING: u64 = 1;
const WHOLE: u64 = 2;
const FAILED: u64 = 3;

/// A function of its own, which the verifier looks at once: most packets are no fragments.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_reassemble(context: *mut __sk_buff, tunnel: u64) -> u64 {
    let ctx = TcContext::new(context);
    let packet = Packet::of_tc(&ctx, HEADERS);
    let Some(header) = packet.read::<Ipv4Header>(ETHERNET_LEN) else { return FOR_DAEMON };
    let Some(fragment) = Fragment::of(&header) else { return FOR_DAEMON };
    if HEADERS + u32::from(fragment.len) > LONGEST as u32 || skb(&ctx).gso_size != 0 {
        return FOR_DAEMON;
    }
    let index = fragment.bucket(HELD_BUCKETS.load());
    let Some(bucket) = HELD.get_ptr_mut(index) else { return FOR_DAEMON };
    if !lock(bucket) {
        return FOR_DAEMON;
    }
    let answer = place(&ctx, &header, &fragment, bucket, index, tunnel as u32);
    unlock(bucket);
    answer
}

/// Does what is to be done with a fragment, under the bucket's lock.
#[inline(always)]
fn place(
    ctx: &TcContext,
    header: &Ipv4Header,
    fragment: &Fragment,
    bucket: *mut Bucket,
    index: u32,
    tunnel: u32,
) -> u64 {
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the bucket lies in the map, and is this CPU's as long as it has the lock.
    let slots = unsafe { &mut (*bucket).slots };
    let (action, way) = reassembly::step(slots, fragment, now);
    // The verifier forgets what it knew of a number in memory.
    let way = opaque(way) & (WAYS - 1);
    let slot = &mut slots[way];
    let Some(frame) = FRAMES.get_ptr_mut(index * WAYS as u32 + way as u32) else {
        return FOR_DAEMON;
    };
    match action {
        Action::Hold => {
            if slot.state == State::Held as u32 {
                counters::tunnel_drop(slot.tunnel, Outcome::FragmentAlone);
            }
            slot.state = State::Free as u32;
            if !keep(ctx, fragment, frame, tunnel) {
                return FOR_DAEMON;
            }
            fill(slot, fragment, now, tunnel, State::Held);
            WAITING
        }
        Action::Join => match join(ctx, header, fragment, slot, frame) {
            FOR_DAEMON => {
                release(ctx, slot, frame, now);
                FOR_DAEMON
            }
            answer => {
                slot.state = State::Free as u32;
                answer
            }
        },
        Action::Release => {
            release(ctx, slot, frame, now);
            FOR_DAEMON
        }
        Action::Divert => {
            if slot.state == State::Held as u32 {
                counters::tunnel_drop(slot.tunnel, Outcome::FragmentAlone);
            }
            fill(slot, fragment, now, tunnel, State::WithDaemon);
            FOR_DAEMON
        }
        Action::Daemon => FOR_DAEMON,
    }
}

#[inline(always)]
fn fill(slot: &mut Slot, fragment: &Fragment, now: u64, tunnel: u32, state: State) {
    slot.fragment = *fragment;
    slot.since = now;
    slot.tunnel = tunnel;
    slot.state = state as u32;
}

/// Copies the packet's frame into the map.
#[inline(always)]
fn keep(ctx: &TcContext, fragment: &Fragment, frame: *mut HeldFrame, tunnel: u32) -> bool {
    let len = length::<LONGEST>(HEADERS + u32::from(fragment.len));
    let event = Event {
        kind: Kind::OuterFragment as u32,
        tunnel,
        ifindex: skb(ctx).ifindex,
        len,
        tags: [0; 2],
    };
    // SAFETY: the frame lies in the map, and its bucket is locked. The helper checks the length.
    unsafe {
        (*frame).event = event;
        let to = (&raw mut (*frame).bytes).cast();
        bpf_skb_load_bytes(ctx.as_ptr().cast_const(), 0, to, len) == 0
    }
}

/// Gives the daemon the fragment that is held, and makes the slot say that it has the packet.
#[inline(always)]
fn release(ctx: &TcContext, slot: &mut Slot, frame: *mut HeldFrame, now: u64) {
    let len = length::<LONGEST>(HEADERS + u32::from(slot.fragment.len));
    slot.since = now;
    slot.state = State::WithDaemon as u32;
    if !events::send_held(ctx, frame, len) {
        counters::tunnel_drop(slot.tunnel, Outcome::FragmentAlone);
    }
}

/// Puts the fragment that is held to the one in the packet.
#[inline(always)]
fn join(
    ctx: &TcContext,
    header: &Ipv4Header,
    fragment: &Fragment,
    slot: &Slot,
    frame: *mut HeldFrame,
) -> u64 {
    let (own, held) = (u32::from(fragment.len), length::<LONGEST>(slot.fragment.len.into()));
    if fragment.more && scratch::save(ctx, HEADERS, own).is_none()
        || ctx.adjust_room(held as i32, BPF_ADJ_ROOM_MAC, 0).is_err()
    {
        return FOR_DAEMON;
    }
    // Nothing below leaves the packet as it came.
    match finish(ctx, header, fragment.more, frame, own, held) {
        Some(()) => WHOLE,
        None => FAILED,
    }
}

/// Writes what belongs behind the Ethernet header, where there is room for it now.
#[inline(always)]
fn finish(
    ctx: &TcContext,
    header: &Ipv4Header,
    is_first: bool,
    frame: *const HeldFrame,
    own: u32,
    held: u32,
) -> Option<()> {
    // SAFETY: the frame lies in the map, and its bucket is locked.
    let bytes = unsafe { (&raw const (*frame).bytes).cast::<u8>() };
    let first = if is_first {
        scratch::restore(ctx, 0, HEADERS, own)?;
        // SAFETY: there is room for as many bytes as `held` can be behind the headers.
        unsafe { scratch::store(ctx, HEADERS + own, bytes.add(HEADERS as usize), held) }?;
        *header
    } else {
        let len = length::<LONGEST>(IPV4_LEN as u32 + held);
        // SAFETY: there is room for as many bytes as `len` can be behind Ethernet's header.
        unsafe { scratch::store(ctx, ETHERNET_LEN as u32, bytes.add(ETHERNET_LEN), len) }?;
        Packet::of_tc(ctx, HEADERS).read(ETHERNET_LEN)?
    };
    let whole = first.cut((IPV4_LEN as u32 + own + held) as u16, 0);
    Packet::of_tc(ctx, HEADERS).write(ETHERNET_LEN, whole.words)
}

/// How often a CPU looks whether another one is done: for as long as it takes to copy a few frames.
const PATIENCE: usize = 256;

#[inline(always)]
fn lock(bucket: *mut Bucket) -> bool {
    for _ in 0..PATIENCE {
        if exchange(bucket, 1) == 0 {
            return true;
        }
    }
    false
}

#[inline(always)]
fn unlock(bucket: *mut Bucket) {
    exchange(bucket, 0);
}

#[inline(always)]
fn exchange(bucket: *mut Bucket, mut word: u64) -> u64 {
    // SAFETY: the lock is the bucket's first field. Spelled out because `core` offers the target no
    // atomics beyond load and store.
    unsafe {
        asm!("{1} = xchg_64({0} + 0, {1})", in(reg) bucket, inout(reg) word);
    }
    word
}
