//! Map values as the 64-bit words that the daemon stores them in, one at a time, into memory that
//! the programs read.
#![expect(unsafe_code, reason = "values are copied as the bytes they are made of")]

use core::ptr;

use crate::{
    bridge::{Address, Member, Station},
    demux::Bucket,
    group::Group,
    mismatch::Mismatch,
    next_hop::NextHop,
    port::Port,
    sequence::Sequence,
    tunnel::{Addresses6, Tunnel},
};

/// Values that are their bytes.
///
/// # Safety
/// The type must be `repr(C)`, without padding, made of integers alone, and a multiple of 8 bytes
/// long.
pub unsafe trait Plain: Copy + Default + PartialEq {
    /// 64-bit words of a value.
    const WORDS: usize = size_of::<Self>() / 8;
}

// SAFETY: one `u32`, two `u16`, two `u32`.
unsafe impl Plain for Member {}
// SAFETY: one `u32`, four `u16`, one `u32`.
unsafe impl Plain for Address {}
// SAFETY: four `u32`, one `u64`.
unsafe impl Plain for Station {}
// SAFETY: an array of `u64`.
unsafe impl Plain for Bucket {}
// SAFETY: sixty-four `u32`.
unsafe impl Plain for Group {}
// SAFETY: eight `u32`.
unsafe impl Plain for NextHop {}
// SAFETY: two `u32`, two `u64`, two `u32`.
unsafe impl Plain for Mismatch {}
// SAFETY: one `u64`, fourteen `u32`.
unsafe impl Plain for Sequence {}
// SAFETY: eight `u32`.
unsafe impl Plain for Addresses6 {}
// SAFETY: four `u16`, two `u32`.
unsafe impl Plain for Port {}
// SAFETY: five `u32`, two `u16`, seven `u32`, four `u16`, one `u32`.
unsafe impl Plain for Tunnel {}

/// Writes `value` into its `T::WORDS` words.
pub fn to_words<T: Plain>(value: &T, words: &mut [u64]) {
    assert_eq!(words.len(), T::WORDS);
    // SAFETY: both are `size_of::<T>()` bytes long, and `T` has no padding.
    unsafe {
        ptr::copy_nonoverlapping(
            ptr::from_ref(value).cast::<u8>(),
            words.as_mut_ptr().cast::<u8>(),
            size_of::<T>(),
        );
    }
}

/// The value in `T::WORDS` words.
pub fn from_words<T: Plain>(words: &[u64]) -> T {
    assert_eq!(words.len(), T::WORDS);
    // SAFETY: the words are `size_of::<T>()` bytes, and any bytes are a `T`.
    unsafe { ptr::read_unaligned(words.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::next_hop::Flags;

    #[test]
    fn the_first_word_of_a_next_hop_holds_the_whole_destination() {
        let next_hop = NextHop::new([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], 13, 14, Flags(1));
        let mut words = [0; NextHop::WORDS];
        to_words(&next_hop, &mut words);
        assert_eq!(words[0].to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(from_words::<NextHop>(&words), next_hop);
    }
}
