//! The Internet checksum (RFC 1071) over words in memory order.

/// Folds a one's complement sum of 32-bit words into 16 bits. Adding the halves to each other both
/// ways round leaves in the upper half their sum with its carry: one addition a halving.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The sum of an IPv4 header without options: 0xffff when its checksum field is right.
#[inline(always)]
pub const fn sum_ipv4(words: &[u32; 5]) -> u16 {
    fold(words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64)
}

/// A header's checksum field after one of its 32-bit words has changed (RFC 1624, equation 3); all
/// in memory order.
#[inline(always)]
pub const fn replace(checksum: u16, old: u32, new: u32) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds 16-bit big-endian words one at a time, as RFC 1071 describes it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    fn words(bytes: [u8; 20]) -> [u32; 5] {
        core::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..][..4].try_into().unwrap()))
    }

    proptest! {
        /// RFC 1624's equation 3 never gives the wrong one of the two zeros.
        #[test]
        fn replacing_a_word_is_summing_again(bytes: [u8; 20], new: u32, at in 0usize..5) {
            let mut words = words(bytes);
            words[2] &= u32::from_ne_bytes([0xff, 0xff, 0, 0]);
            prop_assume!(at != 2);
            let before = !sum_ipv4(&words);
            let old = core::mem::replace(&mut words[at], new);
            prop_assert_eq!(replace(before, old, new), !sum_ipv4(&words));
        }

        #[test]
        fn the_sum_of_a_header_is_the_naive_sum(bytes: [u8; 20]) {
            let sum = u16::from_be_bytes(sum_ipv4(&words(bytes)).to_ne_bytes());
            let expected = naive(&bytes);
            // 0 and 0xffff are the same number in one's complement.
            prop_assert_eq!(sum % 0xffff, expected % 0xffff);
        }
    }
}
