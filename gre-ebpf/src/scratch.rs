//! Bytes of a packet, set aside while the packet is changed. The kernel's helpers make room in a packet
//! and take it away behind its Ethernet header alone: one that changes a packet's end takes none that is
//! marked as encapsulated, as what TC has encapsulated is.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_skb_load_bytes, bpf_skb_store_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::TcContext,
};

use crate::verifier::{length, opaque};

/// Bytes that there is room for.
pub const ROOM: usize = 4096;

/// What is read may start anywhere in it, and be as long.
#[map]
static SCRATCH: PerCpuArray<[u8; 2 * ROOM]> = PerCpuArray::with_max_entries(1, 0);

/// Sets `len` bytes of the packet aside, from `offset` on: at least one.
#[inline(always)]
pub fn save(ctx: &TcContext, offset: u32, len: u32) -> Option<()> {
    let to = SCRATCH.get_ptr_mut(0)?.cast();
    let len = length::<ROOM>(len);
    // SAFETY: the map's value is this CPU's: programs that use it do not interrupt each other, for they
    // run with bottom halves off. The helper checks the length.
    let result = unsafe { bpf_skb_load_bytes(ctx.as_ptr().cast_const(), offset, to, len) };
    (result == 0).then_some(())
}

/// Writes `len` of the bytes that were set aside, from `start` on, into the packet at `offset`.
#[inline(always)]
pub fn restore(ctx: &TcContext, start: u32, offset: u32, len: u32) -> Option<()> {
    let from = SCRATCH.get_ptr_mut(0)?.cast::<u8>();
    let start = opaque(start as usize) & (ROOM - 1);
    // SAFETY: there are twice as many bytes as `start` and `len` can each be.
    unsafe { store(ctx, offset, from.add(start), length::<ROOM>(len)) }
}

/// Writes `len` bytes into the packet at `offset`.
///
/// # Safety
/// They must be there.
#[inline(always)]
pub unsafe fn store(ctx: &TcContext, offset: u32, from: *const u8, len: u32) -> Option<()> {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the caller's; the verifier checks it again.
    let result = unsafe { bpf_skb_store_bytes(ctx.skb.skb, offset, from.cast(), len, flags) };
    (result == 0).then_some(())
}
