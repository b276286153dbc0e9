//! TCP's maximum segment size (RFC 9293, 3.7.1), lowered in passing to what fits the tunnel: hosts
//! that never learn of its MTU then do not exceed it.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::{
        bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_load_bytes,
        bpf_xdp_store_bytes,
    },
};
use gre_ebpf_common::{checksum, tunnel::Tunnel, wire::ip::PROTOCOL_TCP};

use crate::{header::Header, packet::Packet, verifier::forget};

const FLAGS: usize = 13;
const SYN: u8 = 2;
const CHECKSUM: u32 = 16;
/// Bytes of a TCP header without options.
const HEADER_LEN: u32 = 20;
/// Bytes of options, and so of options of one byte.
const MAX_OPTIONS: usize = 40;

/// Option kinds (RFC 9293, 3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// The segment size that a tunnel lowers those of this version to; 0 where it lowers none.
#[inline(always)]
pub fn of<H: Header>(tunnel: &Tunnel) -> u16 {
    tunnel.mss[H::MSS_INDEX]
}

/// The segment size to lower a packet's to, whose IP header is at `offset`; 0 where it is no SYN or
/// `limit` is.
#[inline(always)]
pub fn limit<H: Header>(packet: &Packet, limit: u16, header: &H, offset: usize) -> u16 {
    if limit == 0 || header.protocol() != PROTOCOL_TCP || header.is_later_fragment() {
        return 0;
    }
    let flags = packet.read::<u8>(offset + header.transport_offset() + FLAGS).unwrap_or(0);
    if flags & SYN == 0 { 0 } else { limit }
}

/// The value of an option to be replaced, and where it stands.
struct Found {
    offset: u32,
    value: u16,
}

/// The MSS option of the TCP header at `tcp`, if it exceeds `limit`.
#[inline(always)]
fn exceeding(
    tcp: u32,
    limit: u16,
    len: u32,
    load: impl Fn(u32, *mut u8, u32) -> bool,
) -> Option<Found> {
    let mut data_offset = 0u8;
    if !load(tcp + 12, &raw mut data_offset, 1) {
        return None;
    }
    let end = forget(usize::from(data_offset >> 4) * 4, len) as u32;
    let mut at = HEADER_LEN;
    for _ in 0..MAX_OPTIONS {
        at = forget(at as usize, len) as u32;
        if at + u32::from(MSS_LEN) > end {
            return None;
        }
        let mut option = [0u8; 4];
        if !load(tcp + at, option.as_mut_ptr(), 4) {
            return None;
        }
        at += match option {
            [END, ..] => return None,
            [NO_OPERATION, ..] => 1,
            [MSS, MSS_LEN, high, low] => {
                let value = u16::from_be_bytes([high, low]);
                return (value > limit).then_some(Found { offset: tcp + at + 2, value });
            }
            [_, len, ..] if len >= 2 => u32::from(len),
            _ => return None,
        };
    }
    None
}

/// How the checksum sees a half word: with its bytes swapped, where it starts on an odd one.
#[inline(always)]
fn as_summed(value: u16, tcp: u32, offset: u32) -> u16 {
    if (offset - tcp) % 2 == 0 { value.to_be() } else { value.to_be().swap_bytes() }
}

/// Lowers the segment size of the SYN whose TCP header is at `tcp`.
#[inline(always)]
pub fn clamp_xdp(ctx: *mut xdp_md, tcp: u32, limit: u16) {
    xgre_clamp_xdp(ctx, tcp, limit.into());
}

/// As [`clamp_xdp`]; the kernel sees to a checksum that is yet to be finished.
#[inline(always)]
pub fn clamp_tc(ctx: *mut __sk_buff, tcp: u32, limit: u16) {
    xgre_clamp_tc(ctx, tcp, limit.into());
}

// Functions of their own, which the verifier looks at once: they are long, and SYNs are few. Their
// result says nothing, but older kernels want one.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_clamp_xdp(ctx: *mut xdp_md, tcp: u32, limit: u32) -> u32 {
    let limit = limit as u16;
    // SAFETY: the helper checks what it reads from the packet; there is room for `len` bytes.
    let load = |at, to: *mut u8, len| unsafe { bpf_xdp_load_bytes(ctx, at, to.cast(), len) } == 0;
    // SAFETY: the context is the caller's.
    let len = unsafe { (*ctx).data_end - (*ctx).data };
    let Some(found) = exceeding(tcp, limit, len, load) else {
        return 0;
    };
    let mut sum = 0u16;
    if !load(tcp + CHECKSUM, (&raw mut sum).cast(), 2) {
        return 0;
    }
    let old = as_summed(found.value, tcp, found.offset);
    let new = as_summed(limit, tcp, found.offset);
    let mut sum = checksum::replace(sum, old.into(), new.into());
    let mut value = limit.to_be();
    // SAFETY: the helper checks what it writes to the packet.
    unsafe {
        bpf_xdp_store_bytes(ctx, found.offset, (&raw mut value).cast(), 2);
        bpf_xdp_store_bytes(ctx, tcp + CHECKSUM, (&raw mut sum).cast(), 2);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_clamp_tc(ctx: *mut __sk_buff, tcp: u32, limit: u32) -> u32 {
    let limit = limit as u16;
    // SAFETY: the helper checks what it reads from the packet; there is room for `len` bytes.
    let load =
        |at, to: *mut u8, len| unsafe { bpf_skb_load_bytes(ctx.cast(), at, to.cast(), len) } == 0;
    // SAFETY: the context is the caller's.
    let len = unsafe { (*ctx).len };
    let Some(found) = exceeding(tcp, limit, len, load) else {
        return 0;
    };
    let old = as_summed(found.value, tcp, found.offset);
    let new = as_summed(limit, tcp, found.offset);
    let mut value = limit.to_be();
    // SAFETY: the helpers check what they write to the packet.
    unsafe {
        bpf_skb_store_bytes(ctx, found.offset, (&raw mut value).cast(), 2, 0);
        bpf_l4_csum_replace(ctx, tcp + CHECKSUM, old.into(), new.into(), 2);
    }
    0
}
