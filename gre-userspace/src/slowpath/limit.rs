//! How many ICMP errors a tunnel may cause (RFC 1812, 4.3.2.8; RFC 4443, 2.4 (f)). No clock of its
//! own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A token bucket for each tunnel: a hundred a second, and fifty at once, so that when a path
/// shrinks each of its flows hears of it soon, and a flood is answered with 60 kB/s at most.
#[derive(Debug, Default)]
pub struct Limiter {
    /// When the bucket would be full again.
    full_at: HashMap<u32, Instant>,
}

const INTERVAL: Duration = Duration::from_millis(10);
const BURST: u32 = 50;

impl Limiter {
    /// Whether one more may be sent now; if so, it counts.
    pub fn allow(&mut self, tunnel: u32, now: Instant) -> bool {
        let full_at = self.full_at.entry(tunnel).or_insert(now);
        let next = (*full_at).max(now) + INTERVAL;
        let allowed = next <= now + INTERVAL * BURST;
        if allowed {
            *full_at = next;
        }
        allowed
    }

    /// Forgets tunnels that are no more.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.full_at.retain(|&tunnel, _| keep(tunnel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &mut Limiter, tunnel: u32, attempts: u32, now: Instant) -> u32 {
        (0..attempts).map(|_| u32::from(limiter.allow(tunnel, now))).sum()
    }

    #[test]
    fn a_burst_passes_and_then_a_hundred_a_second() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        assert_eq!(allowed(&mut limiter, 1, 1000, start), 50);
        assert_eq!(allowed(&mut limiter, 1, 1000, start + Duration::from_millis(9)), 0);
        assert_eq!(allowed(&mut limiter, 1, 1000, start + Duration::from_millis(10)), 1);
        assert_eq!(allowed(&mut limiter, 1, 1000, start + Duration::from_millis(210)), 20);
        assert_eq!(allowed(&mut limiter, 1, 1000, start + Duration::from_secs(60)), 50);
    }

    #[test]
    fn tunnels_do_not_use_up_each_others_share() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(allowed(&mut limiter, 1, 51, now), 50);
        assert_eq!(allowed(&mut limiter, 2, 51, now), 50);
        limiter.retain(|tunnel| tunnel == 2);
        assert_eq!((limiter.allow(1, now), limiter.allow(2, now)), (true, false));
    }
}
