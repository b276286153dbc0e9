//! The sequence numbers of all tunnels (RFC 2890), which the daemon and the programs give out and
//! judge in turn: the map `SEQUENCES`, mapped into memory.

use std::sync::atomic::{AtomicU64, Ordering};

use gre_ebpf_common::{
    outcome::Outcome,
    pod::{Plain, from_words, to_words},
    sequence::{Judgement, Sequence},
};

/// The words of the map.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a>(pub &'a [AtomicU64]);

impl Sequences<'_> {
    /// A number that no other packet of the tunnel gets; zero for one beyond the map.
    pub fn next(&self, tunnel: u32) -> u32 {
        // The numbers given out are the record's first word, which the programs add to as well.
        self.record(tunnel).map_or(0, |words| words[0].fetch_add(1, Ordering::Relaxed)) as u32
    }

    /// Judges a received number, and takes note of it. As on the kernel's CPUs, a program may judge
    /// by what is just being changed here.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn accept(&self, tunnel: u32, number: u32, rfc2890: bool) -> Result<(), Outcome> {
        let Some(words) = self.record(tunnel) else { return Ok(()) };
        let values: Vec<_> = words.iter().map(|word| word.load(Ordering::Acquire)).collect();
        let mut sequence: Sequence = from_words(&values);
        let result = match sequence.judge(number, rfc2890) {
            Judgement::Accept | Judgement::Restart => {
                sequence.accept(number);
                Ok(())
            }
            Judgement::Duplicate => Err(Outcome::SequenceDuplicate),
            Judgement::Old => {
                sequence.refuse(number);
                Err(Outcome::SequenceOld)
            }
        };
        let mut values = [0; Sequence::WORDS];
        to_words(&sequence, &mut values);
        // All but the first, which is not of this direction.
        for (word, value) in words.iter().zip(values).skip(1) {
            word.store(value, Ordering::Release);
        }
        result
    }

    fn record(&self, tunnel: u32) -> Option<&[AtomicU64]> {
        self.0.chunks_exact(Sequence::WORDS).nth(tunnel as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..3 * Sequence::WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn each_tunnel_counts_for_itself_and_both_ways_apart() {
        let words = words();
        let sequences = Sequences(&words);
        assert_eq!([sequences.next(1), sequences.next(1), sequences.next(2)], [0, 1, 0]);
        assert_eq!(sequences.accept(1, 7, false), Ok(()));
        assert_eq!(sequences.next(1), 2);
        assert_eq!(sequences.accept(1, 7, false), Err(Outcome::SequenceDuplicate));
        assert_eq!(sequences.accept(1, 3, false), Err(Outcome::SequenceOld));
        assert_eq!(sequences.accept(2, 3, false), Ok(()));
        assert_eq!(sequences.accept(1, 8, false), Ok(()));
        let record: Vec<_> = words[Sequence::WORDS..][..Sequence::WORDS]
            .iter()
            .map(|w| w.load(Ordering::Relaxed))
            .collect();
        let record: Sequence = from_words(&record);
        assert_eq!((record.sent, record.expected), (3, 9));
    }

    #[test]
    fn a_tunnel_beyond_the_map_is_not_judged() {
        let words = words();
        let sequences = Sequences(&words);
        assert_eq!((sequences.next(3), sequences.next(3)), (0, 0));
        assert_eq!(sequences.accept(3, 5, false), Ok(()));
        assert_eq!(sequences.accept(3, 5, false), Ok(()));
    }
}
