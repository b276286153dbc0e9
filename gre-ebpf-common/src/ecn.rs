//! Explicit Congestion Notification through a tunnel (RFC 6040), in the two low bits of a TOS byte
//! or traffic class.

/// Bits of a DS field that are ECN's.
const ECN: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The outer DS field: `dsfield` with the inner packet's ECN copied (4.1, normal mode).
#[inline(always)]
pub const fn encapsulate(dsfield: u8, inner: u8) -> u8 {
    dsfield & !ECN | inner & ECN
}

/// The inner DS field after decapsulation (4.2, figure 4); none where the packet must be dropped:
/// it met congestion, and its transport would not be told.
#[inline(always)]
pub const fn decapsulate(outer: u8, inner: u8) -> Option<u8> {
    match (outer & ECN, inner & ECN) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(inner | CE),
        (ECT_1, ECT_0) => Some(inner & !ECN | ECT_1),
        _ => Some(inner),
    }
}

/// Whether decapsulation leaves the inner DS field as it is in the commonest cases: the outer one knows
/// no congestion, or is the one that [`encapsulate`] made.
#[inline(always)]
pub const fn is_untouched(outer: u8, inner: u8) -> bool {
    outer & ECN == NOT_ECT || (outer ^ inner) & ECN == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6040_encapsulation_copies_all_four() {
        for inner in 0..4 {
            assert_eq!(encapsulate(0xb8 | 3, 0x40 | inner), 0xb8 | inner);
        }
    }

    /// RFC 6040, figure 4, row by row: the inner field after each outer one (Not-ECT, ECT(0),
    /// ECT(1), CE).
    #[test]
    fn rfc6040_decapsulation_follows_the_table() {
        let (not_ect, ect_0, ect_1, ce) = (0, 2, 1, 3);
        let columns = [not_ect, ect_0, ect_1, ce];
        for (inner, row) in [
            (not_ect, [Some(not_ect), Some(not_ect), Some(not_ect), None]),
            (ect_0, [Some(ect_0), Some(ect_0), Some(ect_1), Some(ce)]),
            (ect_1, [Some(ect_1), Some(ect_1), Some(ect_1), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ] {
            for (outer, expected) in columns.into_iter().zip(row) {
                let found = decapsulate(0x10 | outer, 0xb8 | inner);
                assert_eq!(found, expected.map(|ecn| 0xb8 | ecn), "inner {inner} outer {outer}");
            }
        }
    }

    #[test]
    fn what_is_untouched_comes_out_of_the_table_as_it_is() {
        for outer in 0..4 {
            for inner in 0..4 {
                let same = decapsulate(outer, inner) == Some(inner);
                assert!(!is_untouched(outer, inner) || same, "inner {inner} outer {outer}");
            }
            assert!(is_untouched(outer, outer) && is_untouched(NOT_ECT, outer));
        }
    }
}
