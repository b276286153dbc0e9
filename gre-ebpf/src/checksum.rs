//! The GRE checksum: over the GRE header and all that follows (RFC 2784, 2.5).

use gre_ebpf_common::checksum::fold;

use crate::packet::Packet;

/// Bytes summed at a time.
const CHUNK: usize = 64;
/// The longest packet that is summed, in bytes: more than any frame that is not a GSO packet.
pub const LONGEST: usize = 160 * CHUNK;

/// The one's complement sum of `len` bytes from `offset` on, in memory order; none where they are
/// not all there to be read.
#[inline(always)]
pub fn sum(packet: &Packet, offset: usize, len: u32) -> Option<u16> {
    let (start, end) = packet.span(offset);
    match sum_bytes(start, end, len as usize) {
        sum if sum >> 32 == 0 => Some(sum as u16),
        _ => None,
    }
}

/// Not inlined: it is long, and only packets with a checksum pay for the call.
#[inline(never)]
fn sum_bytes(start: usize, end: usize, len: usize) -> u64 {
    const FAILED: u64 = u64::MAX;
    let packet = Packet::between(start, end);
    let (mut at, mut left, mut sum) = (0, len, 0u64);
    for _ in 0..LONGEST / CHUNK {
        if left < CHUNK {
            break;
        }
        let Some(words) = packet.read::<[u32; CHUNK / 4]>(at) else { return FAILED };
        for word in words {
            sum += u64::from(word);
        }
        at += CHUNK;
        left -= CHUNK;
    }
    for _ in 0..CHUNK / 4 {
        if left < 4 {
            break;
        }
        let Some(word) = packet.read::<u32>(at) else { return FAILED };
        sum += u64::from(word);
        at += 4;
        left -= 4;
    }
    if left >= 2 {
        let Some(half) = packet.read::<u16>(at) else { return FAILED };
        sum += u64::from(half);
        at += 2;
        left -= 2;
    }
    if left == 1 {
        let Some(byte) = packet.read::<u8>(at) else { return FAILED };
        sum += u64::from(u16::from_ne_bytes([byte, 0]));
        left = 0;
    }
    if left == 0 { u64::from(fold(sum)) } else { FAILED }
}
