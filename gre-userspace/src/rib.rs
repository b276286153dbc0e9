//! The kernel's IPv4 routes, looked up as the kernel looks them up. No I/O.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::observed::{Route, RouteTarget, Snapshot};

/// The table that rules put first; on equal prefixes its routes win (net/ipv4/fib_trie.c).
const TABLE_LOCAL: u32 = 255;

/// For each prefix the route that the kernel would take.
pub struct Rib<'a> {
    best: BTreeMap<(u32, u8), &'a RouteTarget>,
}

impl<'a> Rib<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut best: BTreeMap<(u32, u8), &Route> = BTreeMap::new();
        let mut by_tos = Vec::new();
        for route in &snapshot.routes {
            let prefix = prefix(route);
            if route.tos != 0 {
                by_tos.push(prefix);
            }
            match best.get(&prefix) {
                Some(other) if rank(other) <= rank(route) => {}
                _ => {
                    best.insert(prefix, route);
                }
            }
        }
        let mut best: BTreeMap<_, _> =
            best.into_iter().map(|(prefix, route)| (prefix, &route.target)).collect();
        // Which route is taken depends on more than the destination.
        best.extend(by_tos.into_iter().map(|prefix| (prefix, &RouteTarget::Kernel)));
        Self { best }
    }

    /// Prefixes (start in host order, length) and their routes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ((u32, u8), &'a RouteTarget)> {
        self.best.iter().map(|(&prefix, &target)| (prefix, target))
    }

    /// The route to an address.
    pub fn lookup(&self, address: Ipv4Addr) -> Option<&'a RouteTarget> {
        let address = u32::from(address);
        (0..=32u8).rev().find_map(|len| {
            let start = address & !u32::MAX.checked_shr(len.into()).unwrap_or(0);
            self.best.get(&(start, len)).copied()
        })
    }
}

fn prefix(route: &Route) -> (u32, u8) {
    (route.destination.network().into(), route.destination.prefix_len())
}

/// Lower is preferred; among equals the first in the kernel's order.
fn rank(route: &Route) -> (bool, u32) {
    (route.table != TABLE_LOCAL, route.metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(table: u32, destination: &str, metric: u32, ifindex: u32) -> Route {
        Route {
            table,
            destination: destination.parse().unwrap(),
            tos: 0,
            metric,
            target: RouteTarget::Unicast { ifindex, gateway: None, mtu: None },
        }
    }

    fn ifindex(snapshot: &Snapshot, address: &str) -> Option<u32> {
        match Rib::new(snapshot).lookup(address.parse().unwrap()) {
            Some(RouteTarget::Unicast { ifindex, .. }) => Some(*ifindex),
            Some(RouteTarget::Kernel) | None => None,
        }
    }

    #[test]
    fn the_longest_prefix_then_the_local_table_then_the_lowest_metric_wins() {
        let routes = vec![
            route(254, "0.0.0.0/0", 0, 1),
            route(254, "10.0.0.0/8", 100, 2),
            route(254, "10.0.0.0/8", 50, 3),
            route(254, "10.0.0.0/8", 50, 4),
            route(254, "10.1.2.3/32", 0, 5),
            route(255, "10.1.2.3/32", 9, 6),
        ];
        let snapshot = Snapshot { routes, ..Snapshot::default() };
        assert_eq!(ifindex(&snapshot, "192.0.2.1"), Some(1));
        assert_eq!(ifindex(&snapshot, "10.255.255.255"), Some(3));
        assert_eq!(ifindex(&snapshot, "10.1.2.3"), Some(6));
    }

    #[test]
    fn a_prefix_with_a_tos_route_is_the_kernels_affair() {
        let mut routes = vec![route(254, "10.0.0.0/8", 0, 1), route(254, "10.0.0.0/8", 0, 2)];
        routes[1].tos = 0x10;
        let snapshot = Snapshot { routes, ..Snapshot::default() };
        assert_eq!(Rib::new(&snapshot).lookup([10, 0, 0, 1].into()), Some(&RouteTarget::Kernel));
        assert_eq!(Rib::new(&snapshot).lookup([11, 0, 0, 1].into()), None);
    }
}
