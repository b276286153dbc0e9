//! Random numbers that a seed decides.

use std::env;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// XGRE_SEED=N runs the test with another seed than the one it always has.
    pub fn seeded() -> Self {
        let seed =
            env::var("XGRE_SEED").map_or(20_241_124, |seed| seed.parse().expect("XGRE_SEED"));
        println!("seed {seed} (set XGRE_SEED for another)");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }
}
