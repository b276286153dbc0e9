//! What a peer sends that its tunnel does not take (RFC 2890 asks for logging "the contents of the
//! discarded datagram"): flags or key of the last such packet, and since when.

/// Map `MISMATCHES`: tunnel id to this. All zero is none.
#[repr(C, align(32))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// First word of the GRE header, in memory order.
    pub gre: u32,
    /// Key in memory order, where the header says that there is one.
    pub key: u32,
    /// When packets of this kind began to come and when the last one came: nanoseconds of
    /// CLOCK_BOOTTIME.
    pub first: u64,
    pub last: u64,
    pub packets: u32,
    /// The outcome's code.
    pub outcome: u32,
}

const _: () = assert!(size_of::<Mismatch>() == 32);

impl Mismatch {
    /// Takes note of a packet.
    #[inline(always)]
    pub const fn note(&mut self, gre: u32, key: u32, outcome: u32, now: u64) {
        if self.gre != gre || self.key != key || self.outcome != outcome || self.packets == 0 {
            *self = Self { gre, key, first: now, last: now, packets: 0, outcome };
        }
        self.last = now;
        self.packets = self.packets.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_one_kind_add_up_and_another_kind_starts_anew() {
        let mut mismatch = Mismatch::default();
        mismatch.note(1, 2, 36, 100);
        mismatch.note(1, 2, 36, 200);
        let expected = Mismatch { gre: 1, key: 2, first: 100, last: 200, packets: 2, outcome: 36 };
        assert_eq!(mismatch, expected);
        mismatch.note(1, 3, 36, 300);
        let expected = Mismatch { key: 3, first: 300, last: 300, packets: 1, ..expected };
        assert_eq!(mismatch, expected);
    }
}
