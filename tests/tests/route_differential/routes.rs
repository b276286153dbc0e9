//! Random routes, and where to look.

use std::net::Ipv4Addr;

use crate::{random::Random, world::DEVICES};

impl Random {
    /// Most lie where most prefixes are.
    pub fn address(&mut self) -> u32 {
        let bits = self.next() as u32;
        match self.below(8) {
            0 => bits,
            1 => 0xac10_0000 | bits & 0x0007_000f,
            _ => 0x0a00_0000 | bits & 0x001f_03ff,
        }
    }

    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// Routes that the kernel has, and such as it may get.
pub struct Pool<R> {
    absent: Vec<R>,
    pub present: Vec<R>,
}

impl<R> Pool<R> {
    pub fn new(absent: Vec<R>) -> Self {
        Self { absent, present: Vec::new() }
    }

    /// Picks routes to add (or, if the step is negative, to delete), and what `ip route` calls that.
    pub fn step(&mut self, random: &mut Random, step: i32) -> (&'static str, &[R]) {
        let (from, to, verb) = if step > 0 {
            (&mut self.absent, &mut self.present, "append")
        } else {
            (&mut self.present, &mut self.absent, "del")
        };
        random.shuffle(from);
        let moved = from.split_off(from.len() - step.unsigned_abs() as usize);
        let at = to.len();
        to.extend(moved);
        (verb, &to[at..])
    }
}

/// A route, as `ip route` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    start: u32,
    len: u8,
    pub words: String,
}

impl Route {
    pub fn random(random: &mut Random) -> Self {
        // The short ones are few, and there are more of the lengths that need second-level blocks.
        let len = match random.below(10) {
            0 => random.below(17) as u8,
            1..=4 => 16 + random.below(9) as u8,
            _ => 25 + random.below(8) as u8,
        };
        let start = random.address() & mask(len);
        let prefix = format!("{}/{len}", Ipv4Addr::from(start));
        // `ip route del` takes the first route with what it is told, so that routes differ in more
        // than that one says what the other leaves out: metric, scope, MTU.
        let metric = 1 + random.below(3);
        let device = random.below(DEVICES);
        let gateway = 2 + random.below(8);
        let words = match random.below(20) {
            0 => format!("blackhole {prefix} metric {metric}"),
            1 => format!("unreachable {prefix} metric {metric}"),
            2 => format!("prohibit {prefix} metric {metric}"),
            3 => format!("throw {prefix} metric {metric}"),
            4 => format!(
                "{prefix} metric {metric} nexthop via 172.16.6.2 dev m0 onlink \
                 nexthop via 172.16.6.3 dev m0 onlink"
            ),
            5..=8 => format!("{prefix} dev t0 scope link metric {metric}"),
            9 => format!("{prefix} via 172.16.7.2 dev t0 onlink metric {metric}"),
            10..=12 => format!("{prefix} dev d{device} scope link metric {metric}"),
            13 => format!(
                "{prefix} via 172.16.{device}.1{gateway} dev d{device} onlink metric {metric} mtu 1300"
            ),
            _ => format!(
                "{prefix} via 172.16.{device}.{gateway} dev d{device} onlink metric {metric}"
            ),
        };
        Self { start, len, words }
    }

    /// Its edges, and what lies just beyond them.
    pub fn edges(&self) -> [u32; 4] {
        let end = self.start | !mask(self.len);
        [self.start, end, self.start.wrapping_sub(1), end.wrapping_add(1)]
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}
