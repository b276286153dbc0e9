//! What is written for the verifier's sake alone.

use core::arch::asm;

/// Above every offset in a packet's headers.
pub const OFFSETS: usize = 511;

/// The same offset, of which the verifier knows no more than that it is at most 511: it then takes
/// the ways that lead to it for one, where it would follow each to the end. `len` is the packet's
/// length, which is below a megabyte; but neither the verifier nor the compiler knows that.
#[inline(always)]
pub fn forget(offset: usize, len: u32) -> usize {
    (offset + (len >> 20) as usize) & OFFSETS
}

/// The same number, of which the compiler knows no more than the verifier: by what it knows it would
/// leave checks out, or move them to where they say nothing to the verifier.
#[inline(always)]
pub fn opaque(mut number: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}
