//! Path MTUs that routers told of (RFC 1191, RFC 8201), each for ten minutes. No clock of its own.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::packet::{MIN_MTU_IPV4, MIN_MTU_IPV6};

/// "The recommended setting for this timer is 10 minutes" (RFC 1191, 6.3; RFC 8201, 4).
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The way of a tunnel to one of its remotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    pub tunnel: u32,
    pub remote: IpAddr,
}

#[derive(Debug, Default)]
pub struct PathMtus(HashMap<Path, Learned>);

#[derive(Debug, Clone, Copy)]
struct Learned {
    mtu: u16,
    until: Instant,
}

impl PathMtus {
    /// The longest outer packet that gets through, in bytes, where a router told of it and it is
    /// less than `underlay`, the MTU of the interface that the packets leave by.
    pub fn get(&self, path: Path, underlay: u16, now: Instant) -> u16 {
        match self.0.get(&path) {
            Some(learned) if learned.until > now => learned.mtu.min(underlay),
            _ => underlay,
        }
    }

    /// Takes in what a router told. Returns the path's MTU if that has become another: an estimate
    /// is only ever lowered, and never below what every link carries.
    pub fn learn(&mut self, path: Path, mtu: u16, underlay: u16, now: Instant) -> Option<u16> {
        let known = self.get(path, underlay, now);
        let mtu = mtu.max(if path.remote.is_ipv4() { MIN_MTU_IPV4 } else { MIN_MTU_IPV6 });
        if mtu > known || mtu >= underlay {
            return None;
        }
        self.0.insert(path, Learned { mtu, until: now + LIFETIME });
        (mtu < known).then_some(mtu)
    }

    /// Forgets what is too old, and returns the paths that were forgotten, in order.
    pub fn expire(&mut self, now: Instant) -> Vec<Path> {
        let mut expired: Vec<_> =
            self.0.extract_if(|_, learned| learned.until <= now).map(|(path, _)| path).collect();
        expired.sort();
        expired
    }

    /// When [`PathMtus::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.0.values().map(|learned| learned.until).min()
    }

    /// What is known about the paths of a tunnel: remote, bytes, and how long it is kept yet.
    pub fn of_tunnel(
        &self,
        tunnel: u32,
        now: Instant,
    ) -> impl Iterator<Item = (IpAddr, u16, Duration)> {
        self.0.iter().filter(move |(path, _)| path.tunnel == tunnel).map(move |(path, learned)| {
            (path.remote, learned.mtu, learned.until.saturating_duration_since(now))
        })
    }

    /// Forgets the paths of tunnels that are no more.
    pub fn retain(&mut self, keep: impl Fn(Path) -> bool) {
        self.0.retain(|&path, _| keep(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Path = Path { tunnel: 1, remote: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)) };
    const V6: Path = Path { tunnel: 1, remote: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) };

    #[test]
    fn an_estimate_is_only_lowered() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        assert_eq!(mtus.learn(V4, 1400, 1500, now), Some(1400));
        assert_eq!(mtus.learn(V4, 1450, 1500, now), None);
        assert_eq!(mtus.get(V4, 1500, now), 1400);
        assert_eq!(mtus.get(V4, 1300, now), 1300, "the underlay's is less");
        assert_eq!(mtus.get(Path { tunnel: 2, ..V4 }, 1500, now), 1500);
        assert_eq!(mtus.learn(V4, 1300, 1500, now), Some(1300));
        assert_eq!(mtus.learn(V6, 1500, 1500, now), None, "as much as the underlay's");
        assert_eq!(mtus.learn(V6, 9000, 1500, now), None);
        assert_eq!(mtus.get(V6, 9000, now), 9000);
    }

    #[test]
    fn no_estimate_is_below_what_every_link_carries() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        assert_eq!(mtus.learn(V4, 0, 1500, now), Some(68));
        assert_eq!(mtus.learn(V6, 100, 1500, now), Some(1280));
        assert_eq!(mtus.learn(V6, 0, 1280, now), None);
    }

    #[test]
    fn an_estimate_lasts_ten_minutes_from_when_it_was_last_heard() {
        let (mut mtus, start) = (PathMtus::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        mtus.learn(V4, 1400, 1500, start);
        mtus.learn(V6, 1400, 1500, after(10));
        assert_eq!(mtus.learn(V4, 1400, 1500, after(300)), None, "the same again");
        assert_eq!(mtus.next_expiry(), Some(after(610)));
        assert_eq!(mtus.expire(after(609)), []);
        assert_eq!(mtus.get(V6, 1500, after(610)), 1500, "expired, if not yet swept");
        assert_eq!(mtus.expire(after(610)), [V6]);
        assert_eq!(mtus.get(V4, 1500, after(899)), 1400);
        assert_eq!(mtus.expire(after(900)), [V4]);
        assert_eq!(mtus.next_expiry(), None);
    }

    #[test]
    fn paths_of_removed_tunnels_are_forgotten() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        let other = Path { tunnel: 2, ..V4 };
        mtus.learn(V4, 1400, 1500, now);
        mtus.learn(other, 1400, 1500, now);
        mtus.retain(|path| path.tunnel == 2);
        assert_eq!((mtus.get(V4, 1500, now), mtus.get(other, 1500, now)), (1500, 1400));
    }
}
