//! The kernel's routes, looked up as the kernel looks them up. No I/O.

use std::{cmp::Ordering, collections::BTreeMap, net::IpAddr};

use gre_ebpf_common::group::{self, Group};
use ipnet::IpNet;

use crate::observed::{Route, RouteTarget, Snapshot};

/// The table that rules put first.
const TABLE_LOCAL: u32 = 255;

/// For each prefix the route that the kernel would take.
pub struct Rib<'a> {
    best: BTreeMap<IpNet, &'a RouteTarget>,
    /// Lengths that IPv4 and IPv6 prefixes have, the longest first.
    lengths: [Vec<u8>; 2],
}

impl<'a> Rib<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut best: BTreeMap<IpNet, Best<'a>> = BTreeMap::new();
        for route in &snapshot.routes {
            best.entry(route.destination.trunc())
                .and_modify(|best| best.compete(route))
                .or_insert_with(|| Best::new(route));
        }
        leave_out_what_local_hides(&mut best);

        let mut used = [[false; 129]; 2];
        for prefix in best.keys() {
            used[family(prefix.addr())][usize::from(prefix.prefix_len())] = true;
        }
        let lengths =
            used.map(|used| (0..=128u8).rev().filter(|&len| used[usize::from(len)]).collect());
        Self {
            best: best.into_iter().map(|(prefix, best)| (prefix, best.target())).collect(),
            lengths,
        }
    }

    /// IPv4 prefixes (start in host order, length) and their routes, ascending.
    pub fn iter4(&self) -> impl Iterator<Item = ((u32, u8), &'a RouteTarget)> {
        self.best.iter().filter_map(|(prefix, &target)| match prefix {
            IpNet::V4(prefix) => Some(((prefix.addr().into(), prefix.prefix_len()), target)),
            IpNet::V6(_) => None,
        })
    }

    /// IPv6 prefixes (start in host order, length) and their routes, ascending.
    pub fn iter6(&self) -> impl Iterator<Item = ((u128, u8), &'a RouteTarget)> {
        self.best.iter().filter_map(|(prefix, &target)| match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(prefix) => Some(((prefix.addr().into(), prefix.prefix_len()), target)),
        })
    }

    /// The route to an address.
    pub fn lookup(&self, address: IpAddr) -> Option<&'a RouteTarget> {
        self.lengths[family(address)].iter().find_map(|&len| {
            let prefix = IpNet::new(address, len).expect("a length of the address's family");
            self.best.get(&prefix.trunc()).copied()
        })
    }

    /// How packets to an address leave, where not only the kernel can say.
    pub fn via(&self, address: IpAddr) -> Option<Via> {
        Via::of(self.lookup(address)?, address)
    }
}

/// The next hop that all packets to one address take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    pub ifindex: u32,
    pub gateway: Option<IpAddr>,
    pub prefsrc: Option<IpAddr>,
    pub mtu: Option<u32>,
}

impl Via {
    /// Of several next hops always the same, so that outer packets to a remote stay in their order.
    fn of(target: &RouteTarget, address: IpAddr) -> Option<Self> {
        match target {
            &RouteTarget::Unicast { ifindex, gateway, prefsrc, mtu } => {
                Some(Self { ifindex, gateway, prefsrc, mtu })
            }
            &RouteTarget::Multipath { ref paths, prefsrc, mtu } => {
                let bytes = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                let numbers: Vec<_> =
                    (0..).zip(paths).map(|(number, path)| (number, path.weight)).collect();
                let halves = bytes
                    .chunks_exact(4)
                    .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
                let hash = halves.fold(0, |hash, word| group::hash4(0, hash, word));
                let path = paths.get(Group::new(&numbers).member(hash) as usize)?;
                Some(Self { ifindex: path.ifindex, gateway: path.gateway, prefsrc, mtu })
            }
            RouteTarget::Kernel => None,
        }
    }
}

/// The best route of a prefix so far.
struct Best<'a> {
    route: &'a Route,
    /// Which route is taken depends on more than the destination.
    ambiguous: bool,
}

impl<'a> Best<'a> {
    fn new(route: &'a Route) -> Self {
        Self { route, ambiguous: route.tos != 0 }
    }

    fn compete(&mut self, other: &'a Route) {
        match rank(other).cmp(&rank(self.route)) {
            // Of IPv4's routes the first in the kernel's order is taken; among IPv6's the kernel
            // chooses by what it knows of their next hops (rt6_select).
            Ordering::Equal => self.ambiguous |= other.destination.addr().is_ipv6(),
            Ordering::Less if other.destination.addr().is_ipv6() => *self = Self::new(other),
            Ordering::Less => self.route = other,
            Ordering::Greater => {}
        }
        self.ambiguous |= other.tos != 0;
    }

    fn target(&self) -> &'a RouteTarget {
        if self.ambiguous { &RouteTarget::Kernel } else { &self.route.target }
    }
}

/// Lower is preferred.
fn rank(route: &Route) -> (bool, u32) {
    (route.table != TABLE_LOCAL, route.metric)
}

/// Without rules of its own the kernel has IPv4's tables in one trie, where the longest prefix wins
/// whatever its table (net/ipv4/fib_trie.c). IPv6's are looked up one after the other: what the
/// local table covers, the main table is not asked for (net/ipv6/fib6_rules.c).
fn leave_out_what_local_hides(best: &mut BTreeMap<IpNet, Best<'_>>) {
    let mut hider: Option<IpNet> = None;
    // Ascending, so that a prefix comes before those in it.
    best.retain(|prefix, best| {
        if prefix.addr().is_ipv4() {
            return true;
        }
        let hidden = hider.is_some_and(|hider| hider.contains(prefix));
        let local = best.route.table == TABLE_LOCAL;
        if local && !hidden {
            hider = Some(*prefix);
        }
        local || !hidden
    });
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Path;

    fn route(table: u32, destination: &str, metric: u32, ifindex: u32) -> Route {
        Route {
            table,
            destination: destination.parse().unwrap(),
            tos: 0,
            metric,
            target: RouteTarget::Unicast { ifindex, gateway: None, prefsrc: None, mtu: None },
        }
    }

    fn snapshot(routes: Vec<Route>) -> Snapshot {
        Snapshot { routes, ..Snapshot::default() }
    }

    fn ifindex(snapshot: &Snapshot, address: &str) -> Option<u32> {
        match Rib::new(snapshot).lookup(address.parse().unwrap()) {
            Some(RouteTarget::Unicast { ifindex, .. }) => Some(*ifindex),
            Some(RouteTarget::Multipath { .. } | RouteTarget::Kernel) | None => None,
        }
    }

    #[test]
    fn the_longest_prefix_then_the_local_table_then_the_lowest_metric_wins() {
        let snapshot = snapshot(vec![
            route(254, "0.0.0.0/0", 0, 1),
            route(254, "10.0.0.0/8", 100, 2),
            route(254, "10.0.0.0/8", 50, 3),
            route(254, "10.0.0.0/8", 50, 4),
            route(254, "10.1.2.3/32", 0, 5),
            route(255, "10.1.2.3/32", 9, 6),
            route(254, "::/0", 1024, 11),
            route(254, "2001:db8::/32", 100, 12),
            route(254, "2001:db8::/32", 50, 13),
            route(254, "2001:db8::1/128", 0, 15),
            route(255, "2001:db8::1/128", 9, 16),
        ]);
        assert_eq!(ifindex(&snapshot, "192.0.2.1"), Some(1));
        assert_eq!(ifindex(&snapshot, "10.255.255.255"), Some(3));
        assert_eq!(ifindex(&snapshot, "10.1.2.3"), Some(6));
        assert_eq!(ifindex(&snapshot, "2001:db9::1"), Some(11));
        assert_eq!(ifindex(&snapshot, "2001:db8::2"), Some(13));
        assert_eq!(ifindex(&snapshot, "2001:db8::1"), Some(16));
    }

    #[test]
    fn of_several_next_hops_an_address_has_one_that_stays_and_addresses_have_all() {
        let path = |ifindex, weight| Path { ifindex, gateway: None, weight };
        let paths = vec![path(3, 1), path(4, 3)];
        let target = RouteTarget::Multipath { paths, prefsrc: None, mtu: Some(1400) };
        let snapshot = snapshot(vec![Route { target, ..route(254, "10.0.0.0/8", 0, 1) }]);
        let rib = Rib::new(&snapshot);
        let via = |host: u8| rib.via([10, 0, 0, host].into()).unwrap();
        let by = |ifindex| (0..=255).filter(|&host| via(host).ifindex == ifindex).count();
        assert_eq!(via(1), via(1));
        assert_eq!(via(1).mtu, Some(1400));
        assert_eq!(by(3) + by(4), 256);
        assert!((40..90).contains(&by(3)), "{} of 256, a quarter is due", by(3));
        assert_eq!(rib.via([11, 0, 0, 1].into()), None);
    }

    #[test]
    fn a_prefix_with_a_tos_route_is_the_kernels_affair() {
        let mut routes = vec![route(254, "10.0.0.0/8", 0, 1), route(254, "10.0.0.0/8", 0, 2)];
        routes[1].tos = 0x10;
        for _ in 0..2 {
            routes.reverse();
            let snapshot = snapshot(routes.clone());
            let rib = Rib::new(&snapshot);
            assert_eq!(rib.lookup([10, 0, 0, 1].into()), Some(&RouteTarget::Kernel));
            assert_eq!(rib.lookup([11, 0, 0, 1].into()), None);
        }
    }

    #[test]
    fn an_ipv6_prefix_with_equal_routes_is_the_kernels_affair() {
        let equal = |metric| route(254, "fe80::/64", metric, 1);
        let several = snapshot(vec![equal(256), equal(256), equal(1024)]);
        assert_eq!(
            Rib::new(&several).lookup("fe80::1".parse().unwrap()),
            Some(&RouteTarget::Kernel)
        );

        let one_is_better = snapshot(vec![equal(256), equal(256), route(254, "fe80::/64", 10, 2)]);
        assert_eq!(ifindex(&one_is_better, "fe80::1"), Some(2));
    }

    #[test]
    fn a_prefix_of_the_ipv6_local_table_hides_longer_ones_of_the_main_table() {
        let snapshot = snapshot(vec![
            route(255, "2001:db8::/32", 0, 1),
            route(255, "2001:db8:1::/48", 0, 2),
            route(254, "2001:db8:1:1::/64", 0, 3),
            route(254, "2001:db8:2::/48", 0, 4),
            route(254, "2001:db9::/48", 0, 5),
            route(255, "10.0.0.0/8", 0, 6),
            route(254, "10.1.0.0/16", 0, 7),
        ]);
        assert_eq!(ifindex(&snapshot, "2001:db8:1:1::1"), Some(2));
        assert_eq!(ifindex(&snapshot, "2001:db8:2::1"), Some(1));
        assert_eq!(ifindex(&snapshot, "2001:db9::1"), Some(5));
        assert_eq!(ifindex(&snapshot, "10.1.0.1"), Some(7), "IPv4's tables are one");
    }

    #[test]
    fn prefixes_are_listed_by_family_in_ascending_order() {
        let snapshot = snapshot(vec![
            route(254, "2001:db8::/32", 0, 1),
            route(254, "10.0.0.0/8", 0, 2),
            route(254, "::/0", 0, 3),
            route(254, "10.0.0.0/16", 0, 4),
        ]);
        let rib = Rib::new(&snapshot);
        let v4: Vec<_> = rib.iter4().map(|(prefix, _)| prefix).collect();
        let v6: Vec<_> = rib.iter6().map(|(prefix, _)| prefix).collect();
        assert_eq!(v4, [(0x0a00_0000, 8), (0x0a00_0000, 16)]);
        assert_eq!(v6, [(0, 0), (0x2001_0db8 << 96, 32)]);
    }
}
