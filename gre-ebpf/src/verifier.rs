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

/// The same length, which is at least one and at most `LONGEST`, a power of two: the verifier knows it as
/// well, where it has forgotten, or never seen, what was asked of it. (By a comparison with zero that of
/// Linux 6.1 learns nothing.)
#[inline(always)]
pub fn length<const LONGEST: usize>(len: u32) -> u32 {
    const { assert!(LONGEST.is_power_of_two()) };
    (opaque(len.wrapping_sub(1) as usize) & (LONGEST - 1)) as u32 + 1
}
