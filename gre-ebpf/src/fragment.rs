//! Sends an encapsulated packet in two outer fragments. The first leaves as a copy, and what came
//! becomes the second.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::bpf_clone_redirect,
    macros::map,
    maps::Array,
    programs::TcContext,
};
use gre_ebpf_common::{
    fragment,
    next_hop::{self, NextHop},
    tunnel::Tunnel,
    wire::{
        ethernet::HEADER_LEN as ETHERNET_LEN,
        ipv4::{HEADER_LEN as IPV4_LEN, Ipv4Header},
    },
};

use crate::{forward, packet::Packet, scratch};

/// The last identification given to a packet in fragments. All tunnels share it: those between the
/// same addresses must, and fragments of others are no worse for it.
#[map]
static IDENTIFICATIONS: Array<u64> = Array::with_max_entries(1, 0);

/// Bytes in front of an outer packet's payload.
const HEADERS: u32 = (ETHERNET_LEN + IPV4_LEN) as u32;

const _: () = assert!(fragment::LONGEST == scratch::ROOM);

/// Whether a packet of a tunnel, `len` bytes long outside where the path takes `mtu`, is sent in two
/// fragments. A clone goes nowhere but straight to a neighbour whose address is known.
#[inline(always)]
pub fn is_for_two(tunnel: &Tunnel, next_hop: &NextHop, len: u32, mtu: u32) -> bool {
    tunnel.cuts_outer()
        && next_hop.flags.has(next_hop::Flags::RESOLVED)
        && next_hop.is_untagged()
        && fragment::in_two(len, mtu).is_some()
}

/// An identification that no other packet in fragments has had for long.
#[inline(always)]
pub fn identification() -> u16 {
    let Some(last) = IDENTIFICATIONS.get_ptr_mut(0) else { return 0 };
    let mut number = 1u64;
    // SAFETY: the counter lies in the map. Spelled out because `core` offers the target no atomics
    // beyond load and store.
    unsafe {
        asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) last, inout(reg) number);
    }
    number as u16
}

/// Sends the first fragment of the packet, of at most `mtu` bytes, to next hop `id`, and leaves the
/// second, with the same Ethernet header.
#[inline(always)]
pub fn send_first(ctx: &TcContext, id: u32, mtu: u32) -> bool {
    match fragment::in_two(ctx.len() - ETHERNET_LEN as u32, mtu) {
        Some(first) => xgre_send_first(ctx.skb.skb, id.into(), first.into()) == SENT,
        None => false,
    }
}

const SENT: u64 = 0;
const FAILED: u64 = 1;

/// A function of its own, which the verifier looks at once: few packets are too long.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_send_first(context: *mut __sk_buff, id: u64, first: u64) -> u64 {
    match cut(&TcContext::new(context), id as u32, first as u32) {
        Some(()) => SENT,
        None => FAILED,
    }
}

#[inline(always)]
fn cut(ctx: &TcContext, id: u32, first: u32) -> Option<()> {
    let next_hop = forward::next_hop(id)?;
    let whole: Ipv4Header = Packet::of_tc(ctx, HEADERS).read(ETHERNET_LEN)?;
    let payload = ctx.len() - HEADERS;
    let rest = payload - first;
    let [start, end] = fragment::headers(&whole, first, rest);

    scratch::save(ctx, HEADERS, payload)?;
    resize(ctx, -(rest as i32))?;
    scratch::restore(ctx, 0, HEADERS, first)?;
    let packet = Packet::of_tc(ctx, HEADERS);
    packet.write(ETHERNET_LEN, start.words)?;
    packet.write(0, next_hop.ethernet)?;
    // SAFETY: the context is the program's own. What the copy meets on its way does not come here
    // before this program ends, and so leaves what was set aside alone.
    let sent = unsafe { bpf_clone_redirect(ctx.skb.skb, next_hop.ifindex, 0) };
    // What a queue has no room for is lost on the way, as all else that it has no room for.
    if sent < 0 {
        return None;
    }

    resize(ctx, rest as i32 - first as i32)?;
    scratch::restore(ctx, first, HEADERS, rest)?;
    Packet::of_tc(ctx, HEADERS).write(ETHERNET_LEN, end.words)
}

/// Makes the packet longer or shorter by so many bytes, behind its Ethernet header.
#[inline(always)]
fn resize(ctx: &TcContext, by: i32) -> Option<()> {
    if by == 0 { Some(()) } else { ctx.adjust_room(by, BPF_ADJ_ROOM_MAC, 0).ok() }
}
