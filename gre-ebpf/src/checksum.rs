//! The GRE checksum: over the GRE header and all that follows (RFC 2784, 2.5).

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::bpf_csum_diff,
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::checksum::fold;

use crate::{
    packet::Packet,
    verifier::{OFFSETS, opaque},
};

/// Bytes summed by one call of the helper, which takes no more on older kernels.
const CHUNK: usize = 512;
/// The longest packet that is summed, in bytes: more than any frame that is not a GSO packet.
pub const LONGEST: usize = 20 * CHUNK;
/// Bytes below which a call costs more than adding words up.
const SMALL: usize = 32;

/// The one's complement sum of `len` bytes from `offset` on, in memory order; none where they are
/// not all there to be read.
#[inline(always)]
pub fn sum_xdp(ctx: &XdpContext, offset: usize, len: u32) -> Option<u16> {
    u16::try_from(xgre_sum_xdp(ctx.ctx, offset as u64, len.into())).ok()
}

/// As [`sum_xdp`].
#[inline(always)]
pub fn sum_tc(ctx: &TcContext, offset: usize, len: u32) -> Option<u16> {
    u16::try_from(xgre_sum_tc(ctx.skb.skb, offset as u64, len.into())).ok()
}

// Functions of their own, which the verifier looks at once: they are long, and only packets with a
// checksum pay for the call.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_sum_xdp(ctx: *mut xdp_md, offset: u64, len: u64) -> u64 {
    sum_bytes(&Packet::of_xdp(&XdpContext::new(ctx)), offset as usize, len as usize)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_sum_tc(ctx: *mut __sk_buff, offset: u64, len: u64) -> u64 {
    sum_bytes(&Packet::of_tc(&TcContext::new(ctx), 0), offset as usize, len as usize)
}

/// Each step works out anew from `len` where it begins: so the verifier, which follows every way
/// through, finds that most of them meet again.
#[inline(always)]
fn sum_bytes(whole: &Packet, offset: usize, len: usize) -> u64 {
    const FAILED: u64 = u64::MAX;
    if offset > OFFSETS || !(2..=LONGEST).contains(&len) {
        return FAILED;
    }
    let packet = whole.from_offset(offset & OFFSETS);
    let mut sum = 0;
    for chunk in 0..LONGEST / CHUNK {
        if len < (chunk + 1) * CHUNK {
            break;
        }
        let Some(with) = add::<CHUNK>(&packet, chunk * CHUNK, sum) else { return FAILED };
        sum = with;
    }
    let Some(sum) = add_if::<256>(&packet, len, sum)
        .and_then(|sum| add_if::<128>(&packet, len, sum))
        .and_then(|sum| add_if::<64>(&packet, len, sum))
        .and_then(|sum| add_if::<SMALL>(&packet, len, sum))
    else {
        return FAILED;
    };
    let mut sum = u64::from(sum);
    for word in 0..SMALL / 4 {
        if len % SMALL < (word + 1) * 4 {
            break;
        }
        let at = (len & !(SMALL - 1)) + word * 4;
        let Some(word) = packet.read::<u32>(at) else { return FAILED };
        sum += u64::from(word);
    }
    if len & 2 != 0 {
        let Some(half) = packet.read::<u16>(len & !3) else { return FAILED };
        sum += u64::from(half);
    }
    if len & 1 != 0 {
        // With the byte before it: of a single one the verifier does not see that it is there.
        let at = opaque((len & !1) - 1) & (LONGEST.next_power_of_two() - 1);
        let Some(half) = packet.read::<u16>(at) else { return FAILED };
        let [_, byte] = half.to_ne_bytes();
        sum += u64::from(u16::from_ne_bytes([byte, 0]));
    }
    u64::from(fold(sum))
}

/// Adds the `N` bytes that stand behind all larger powers of two of `len`, if it has them.
#[inline(always)]
fn add_if<const N: usize>(packet: &Packet, len: usize, sum: u32) -> Option<u32> {
    if len & N == 0 { Some(sum) } else { add::<N>(packet, len & !(2 * N - 1), sum) }
}

#[inline(always)]
fn add<const N: usize>(packet: &Packet, at: usize, sum: u32) -> Option<u32> {
    let bytes = packet.address::<N>(at)?;
    // SAFETY: the helper reads `N` bytes, which lie in the packet.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, bytes, N as u32, sum) };
    u32::try_from(sum).ok()
}
