//! Sequence numbers (RFC 2890, 2.2) of one tunnel, both ways.

/// Map `SEQUENCES`: tunnel id to this. All zero has sent and received nothing.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Numbers given out: the next one sent, before it wraps to 32 bits.
    pub sent: u64,
    /// The number after the newest accepted one.
    pub expected: u32,
    /// Old numbers in a row, each after the one before it.
    pub run: u32,
    /// The last of that run.
    pub old: u32,
    /// Runs that were taken for a restart of the peer.
    pub resynchronised: u32,
    reserved: [u32; 10],
}

const _: () = assert!(size_of::<Sequence>() == 64);

/// After this many old numbers in ascending order the peer is taken to have restarted.
pub const RESTART: u32 = 32;

/// What a received number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Accept,
    /// The last of a run of [`RESTART`]: numbers go on from here.
    Restart,
    Duplicate,
    Old,
}

impl Sequence {
    /// Judges a number without taking note of it.
    ///
    /// As in the kernel (ip_tunnel_rcv) nothing is checked while zero is expected: at the start and
    /// after a wrap. With `rfc2890` the first number must be one of the 2^31 from zero on.
    #[inline(always)]
    pub const fn judge(&self, number: u32, rfc2890: bool) -> Judgement {
        let ahead = number.wrapping_sub(self.expected) as i32;
        if ahead >= 0 || self.expected == 0 && !rfc2890 {
            return Judgement::Accept;
        }
        if ahead == -1 {
            return Judgement::Duplicate;
        }
        if self.run + 1 >= RESTART && self.continues_run(number) {
            return Judgement::Restart;
        }
        Judgement::Old
    }

    /// Takes note of an accepted number, which may be one behind: then the peer has restarted.
    #[inline(always)]
    pub const fn accept(&mut self, number: u32) {
        let is_behind = self.expected != 0 && (number.wrapping_sub(self.expected) as i32) < 0;
        self.resynchronised += is_behind as u32;
        self.expected = number.wrapping_add(1);
        self.run = 0;
    }

    /// Takes note of an old number.
    #[inline(always)]
    pub const fn refuse(&mut self, number: u32) {
        self.run = if self.continues_run(number) { self.run + 1 } else { 1 };
        self.old = number;
    }

    #[inline(always)]
    const fn continues_run(&self, number: u32) -> bool {
        self.run > 0 && (number.wrapping_sub(self.old) as i32) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u32], rfc2890: bool) -> Sequence {
        let mut sequence = Sequence::default();
        for &number in numbers {
            let judgement = sequence.judge(number, rfc2890);
            note(&mut sequence, number, judgement);
        }
        sequence
    }

    fn note(sequence: &mut Sequence, number: u32, judgement: Judgement) {
        match judgement {
            Judgement::Accept | Judgement::Restart => sequence.accept(number),
            Judgement::Old => sequence.refuse(number),
            Judgement::Duplicate => {}
        }
    }

    #[test]
    fn r2_numbers_are_accepted_while_they_ascend_as_in_the_kernel() {
        use Judgement::*;
        let sequence = after(&[1000], false);
        for (number, expected) in [
            (1001, Accept),
            (1003, Accept),
            (1000, Duplicate),
            (999, Old),
            (1001 + (1 << 31) - 1, Accept),
            (1001u32.wrapping_sub(1 << 31), Old),
        ] {
            assert_eq!(sequence.judge(number, false), expected, "{number}");
        }
    }

    #[test]
    fn r2_the_kernel_checks_nothing_before_the_first_number_and_after_a_wrap() {
        assert_eq!(after(&[], false).judge(0xffff_fff0, false), Judgement::Accept);
        assert_eq!(after(&[u32::MAX], false).judge(5, false), Judgement::Accept);
        assert_eq!(after(&[u32::MAX], false).judge(u32::MAX, false), Judgement::Accept);
    }

    #[test]
    fn rfc2890_2_numbering_starts_at_zero_and_old_is_two_to_the_31_behind() {
        assert_eq!(after(&[], true).judge(0, true), Judgement::Accept);
        assert_eq!(after(&[], true).judge(0x7fff_ffff, true), Judgement::Accept);
        assert_eq!(after(&[], true).judge(0x8000_0000, true), Judgement::Old);
        assert_eq!(after(&[u32::MAX - 5, u32::MAX], true).judge(0, true), Judgement::Accept);
    }

    #[test]
    fn rfc2890_4_the_last_number_again_is_a_duplicate() {
        assert_eq!(after(&[0], true).judge(0, true), Judgement::Duplicate);
        assert_eq!(after(&[7], false).judge(7, false), Judgement::Duplicate);
    }

    #[test]
    fn rfc2890_3_a_run_of_old_numbers_is_a_restart_of_the_peer() {
        let mut sequence = after(&[50_000], false);
        for number in 0..RESTART - 1 {
            assert_eq!(sequence.judge(number, false), Judgement::Old, "{number}");
            sequence.refuse(number);
        }
        assert_eq!(sequence.judge(RESTART - 1, false), Judgement::Restart);
        sequence.accept(RESTART - 1);
        assert_eq!((sequence.expected, sequence.resynchronised), (RESTART, 1));
        assert_eq!(sequence.judge(RESTART, false), Judgement::Accept);
    }

    #[test]
    fn rfc2890_3_old_numbers_between_new_ones_or_out_of_order_are_no_restart() {
        let mut late = after(&[50_000], false);
        for number in 0..10 * RESTART {
            for number in [number, 50_001 + number] {
                let judgement = late.judge(number, false);
                note(&mut late, number, judgement);
            }
        }
        assert_eq!(late.resynchronised, 0);
        let mut falling = after(&[50_000], false);
        for number in (0..10 * RESTART).rev() {
            let judgement = falling.judge(number, false);
            assert_eq!(judgement, Judgement::Old);
            note(&mut falling, number, judgement);
        }
    }
}
