//! Small numbers for things that come and go. No I/O.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
};

/// Gives each thing the same number in every round in which it is asked for.
///
/// A number is free again only after the round in which nobody asked for its thing, so that within
/// a round no number changes its meaning: maps are filled in several steps.
#[derive(Debug)]
pub struct Ids<T> {
    numbers: HashMap<T, u32>,
    used: HashSet<u32>,
    free: VecDeque<u32>,
    /// Free after the first round, unless a thing has the number.
    reserved: Vec<u32>,
    next: u32,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            used: HashSet::new(),
            free: VecDeque::new(),
            reserved: Vec::new(),
            next: 0,
        }
    }
}

impl<T: Hash + Eq + Clone> Ids<T> {
    /// Gives a thing the number that it is known to have. For before the first round.
    pub fn seed(&mut self, thing: T, number: u32) {
        self.numbers.insert(thing, number);
        self.keep(number + 1);
    }

    /// Keeps numbers below `end` out of the first round: somebody may still refer to them.
    pub fn keep(&mut self, end: u32) {
        self.reserved.extend(self.next..end);
        self.next = self.next.max(end);
    }

    pub fn begin(&mut self) {
        self.used.clear();
    }

    pub fn get(&mut self, thing: &T) -> u32 {
        let number = match self.numbers.get(thing) {
            Some(&number) => number,
            None => {
                let number = self.free.pop_front().unwrap_or_else(|| {
                    self.next += 1;
                    self.next - 1
                });
                self.numbers.insert(thing.clone(), number);
                number
            }
        };
        self.used.insert(number);
        number
    }

    /// Everything that has a number.
    pub fn things(&self) -> impl Iterator<Item = &T> {
        self.numbers.keys()
    }

    /// Takes the numbers back that were not asked for since [`Ids::begin`].
    pub fn end(&mut self) {
        let seeded: HashSet<u32> = self.numbers.values().copied().collect();
        self.free.extend(self.reserved.drain(..).filter(|number| !seeded.contains(number)));
        let (used, free) = (&self.used, &mut self.free);
        self.numbers.retain(|_, number| {
            let keep = used.contains(number);
            if !keep {
                free.push_back(*number);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_reused_only_in_a_later_round() {
        let mut ids = Ids::default();
        let round = |ids: &mut Ids<&str>, things: &[&'static str]| -> Vec<u32> {
            ids.begin();
            let numbers = things.iter().map(|thing| ids.get(thing)).collect();
            ids.end();
            numbers
        };
        assert_eq!(round(&mut ids, &["a", "b", "a"]), [0, 1, 0]);
        assert_eq!(
            round(&mut ids, &["b", "c"]),
            [1, 2],
            "a's number is in use until this round ends"
        );
        assert_eq!(round(&mut ids, &["d", "b", "c"]), [0, 1, 2]);
    }

    #[test]
    fn numbers_of_an_earlier_daemon_are_kept_or_left_alone_for_a_round() {
        let mut ids = Ids::default();
        ids.keep(3);
        ids.seed("b", 1);
        ids.begin();
        assert_eq!([ids.get(&"a"), ids.get(&"b")], [3, 1]);
        ids.end();
        ids.begin();
        assert_eq!([ids.get(&"a"), ids.get(&"b"), ids.get(&"c")], [3, 1, 0]);
        ids.end();
    }
}
