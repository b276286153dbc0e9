//! The route tables that the programs read say what the kernel says, after any change of the
//! kernel's routes: `ip route get` against map ROUTES, over a netlink snapshot and `compile`; and
//! against the trie of IPv6's routes (`ipv6.rs`).
//!
//! ```text
//!             d0 .. d5: 172.16.I.1/24, gateways 172.16.I.2 to .9
//!   routes -- m0: several next hops, of which the kernel's must be one of the table's
//!             t0: the tunnel's device
//! ```

#[path = "../common/pins.rs"]
mod pins;
#[path = "../common/random.rs"]
mod random;

mod ipv6;
mod kernel;
mod routes;
mod table;
mod world;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use futures_util::{StreamExt as _, stream};
use rtnetlink::Handle;

use kernel::{Answer, ask, compare_with_ip_route_get, ip};
use random::Random;
use routes::{Pool, Route};
use table::Table;
use world::{Expected, World, is_unicast};

const ROUTES: usize = 10_000;
const LOOKUPS: usize = 100_000;
/// How many routes are added (or, if negative, deleted) before each comparison: many at once, and
/// so few that the table is changed in place.
const STEPS: [i32; 20] = [
    100, 900, 3000, 20, 1980, -500, 300, 4200, -10, 10, -3000, -300, 3300, -1, 1, -5000, 2000,
    -200, -6700, 6700,
];

#[tokio::test]
async fn the_table_says_what_ip_route_get_says() {
    let mut random = Random::seeded();
    let world = &World::new(&mut random);
    let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink connection");
    tokio::spawn(connection);
    let mut table = Table::new();

    let mut seen = HashSet::new();
    let mut absent = Vec::new();
    while absent.len() < ROUTES {
        let route = Route::random(&mut random);
        if seen.insert(route.clone()) {
            absent.push(route);
        }
    }
    let mut pool = Pool::new(absent);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for step in STEPS {
        let (verb, moved) = pool.step(&mut random, step);
        let commands: String =
            moved.iter().map(|route| format!("route {verb} {}\n", route.words)).collect();
        ip(&[], &commands);

        table.follow(world).await;
        let destinations = destinations(&mut random, &pool.present, LOOKUPS / STEPS.len());
        all = compare(&mut table, world, &handle, &destinations).await;
        for &(destination, answer) in &all {
            let kind = match world.expected(destination, answer) {
                Expected::Punt => "punt",
                Expected::Tunnel => "tunnel",
                Expected::NextHop(_) => "next hop",
                Expected::OneOf(_) => "one of several",
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    println!("{kinds:?}, {} routes at the end", pool.present.len());
    // A test that only ever met one of them would prove little.
    assert!(kinds.len() == 4 && kinds.values().all(|&count| count > LOOKUPS / 50), "{kinds:?}");
    let all: Vec<_> = all.into_iter().map(|(ip, answer)| (IpAddr::V4(ip), answer)).collect();
    compare_with_ip_route_get(&all);
}

/// Compares the table with the kernel at these addresses. Returns the kernel's answers.
async fn compare(
    table: &mut Table,
    world: &World,
    handle: &Handle,
    destinations: &[Ipv4Addr],
) -> Vec<(Ipv4Addr, Answer)> {
    let answers: Vec<_> = stream::iter(destinations)
        .map(|&destination| async move { (destination, ask(handle, destination.into()).await) })
        .buffered(16)
        .collect()
        .await;
    for &(destination, answer) in &answers {
        let expected = world.expected(destination, answer);
        assert!(
            table.meets(destination, expected, world),
            "{destination}: the kernel says {answer:?}, so {expected:?}; the table says {:?}",
            table.lookup(destination)
        );
    }
    answers
}

/// Where prefixes begin and end, and anywhere.
fn destinations(random: &mut Random, routes: &[Route], count: usize) -> Vec<Ipv4Addr> {
    let mut destinations = Vec::with_capacity(count);
    while destinations.len() < count {
        let address = if routes.is_empty() || random.below(2) == 0 {
            random.address()
        } else {
            let route = &routes[random.below(routes.len() as u32) as usize];
            route.edges()[random.below(4) as usize]
        };
        if is_unicast(address.into()) {
            destinations.push(address.into());
        }
    }
    destinations
}
