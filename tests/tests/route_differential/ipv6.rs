//! The same for IPv6: `ip -6 route get` against the trie, over a netlink snapshot and the `Rib`.
//!
//! ```text
//!             d0 .. d5: gateways fe80::2 to fe80::9
//!   routes -- m0, m1: several next hops, which only the kernel can choose from
//!             lo: 2001:db8:1::/48, all of it this host's, with routes to elsewhere inside
//! ```

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv6Addr},
};

use futures_util::{StreamExt as _, stream};
use gre_ebpf_common::route::{BLOCK, Entry};
use gre_userspace::{
    maps::{
        mapping::Mapping,
        routes6::{Prefixes6, RouteTable6, blocks},
    },
    netlink::Kernel,
    observed::{RouteTarget, Rules},
    rib::Rib,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use crate::{
    LOOKUPS, ROUTES, STEPS,
    kernel::{Answer, ask, compare_with_ip_route_get, ip},
    random::Random,
    routes::Pool,
    world::DEVICES,
};

const NODES: u32 = 65_536;

#[tokio::test]
async fn the_trie_says_what_ip_route_get_says() {
    let mut random = Random::seeded();
    let several = make_world();
    let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink connection");
    tokio::spawn(connection);
    let kernel = Kernel::connect().expect("a netlink connection");
    let mut trie = Trie::new();

    let mut seen = HashSet::new();
    let mut absent = Vec::new();
    while absent.len() < ROUTES {
        let route = Route::random(&mut random);
        // Of equal routes the kernel takes whichever it likes.
        if seen.insert((route.start, route.len, route.metric, route.is_local)) {
            absent.push(route);
        }
    }
    let mut pool = Pool::new(absent);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for step in STEPS {
        let (verb, moved) = pool.step(&mut random, step);
        let mut commands = String::new();
        for words in moved.iter().flat_map(|route| &route.words) {
            let _ = writeln!(commands, "route {verb} {words}");
        }
        ip(&["-6"], &commands);

        trie.follow(&kernel).await;
        let destinations = destinations(&mut random, &pool.present, LOOKUPS / STEPS.len());
        let handle = &handle;
        all = stream::iter(destinations)
            .map(|ip| async move { (ip, ask(handle, ip.into()).await) })
            .buffered(16)
            .collect()
            .await;
        for &(destination, answer) in &all {
            let expected = match answer {
                Answer::Unicast { oif, gateway, mtu } if !several.contains(&oif) => {
                    *kinds.entry("next hop").or_default() += 1;
                    Some((oif, gateway, mtu))
                }
                Answer::Unicast { .. } => {
                    *kinds.entry("several").or_default() += 1;
                    None
                }
                Answer::Not => {
                    *kinds.entry("not").or_default() += 1;
                    None
                }
            };
            let found = trie.lookup(destination);
            assert_eq!(found, expected, "{destination}: the kernel says {answer:?}");
        }
    }
    println!("{kinds:?}, {} routes at the end", pool.present.len());
    // A test that only ever met one of them would prove little.
    assert!(kinds.len() == 3 && kinds.values().all(|&count| count > LOOKUPS / 20), "{kinds:?}");
    let all: Vec<_> = all.into_iter().map(|(ip, answer)| (IpAddr::V6(ip), answer)).collect();
    compare_with_ip_route_get(&all);
}

/// Makes a network namespace with devices and addresses. Returns m0 and m1.
fn make_world() -> [u32; 2] {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET), which needs root");
    // A host, unlike a router, prefers routes whose next hop it knows to be reachable.
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("net.ipv6.conf.all.forwarding");
    let mut commands = "link set lo up\n".to_owned();
    for name in (0..DEVICES).map(|i| format!("d{i}")).chain(["m0".into(), "m1".into()]) {
        let _ = write!(
            commands,
            "link add {name} type veth peer name {name}p\nlink set {name} up\nlink set {name}p up\n"
        );
    }
    // Local and anycast addresses, and a local prefix, in the midst of the routes.
    for i in 0..DEVICES {
        let _ = writeln!(commands, "addr add 2001:db8:2:{i}::1/64 dev d{i} nodad");
    }
    commands.push_str("route add local 2001:db8:1::/48 dev lo\n");
    ip(&["-6"], &commands);
    ["m0", "m1"].map(|name| if_nametoindex(name).expect("it was made"))
}

/// What a route leads to: device, gateway, MTU.
type Target = (u32, Option<IpAddr>, Option<u32>);

/// A trie, filled from the kernel's routes and read as the programs read it.
struct Trie {
    table: RouteTable6,
    /// By next hop id.
    targets: Vec<Target>,
    ids: HashMap<Target, u32>,
}

impl Trie {
    fn new() -> Self {
        let words = Mapping::anonymous(blocks(NODES) as usize * BLOCK * 4).expect("some memory");
        Self { table: RouteTable6::new(words, NODES), targets: Vec::new(), ids: HashMap::new() }
    }

    async fn follow(&mut self, kernel: &Kernel) {
        let snapshot = kernel.snapshot().await.expect("a snapshot");
        assert_eq!(snapshot.rules6, Rules::Kernels);
        let prefixes: Prefixes6 = Rib::new(&snapshot)
            .iter6()
            .map(|(prefix, target)| (prefix, self.entry(target)))
            .collect();
        self.table.replace(prefixes);
        assert_eq!(self.table.starved(), 0, "the test needs more nodes");
    }

    fn entry(&mut self, target: &RouteTarget) -> Entry {
        let RouteTarget::Unicast { ifindex, gateway, mtu, .. } = *target else {
            return Entry::Punt;
        };
        let target = (ifindex, gateway, mtu);
        let id = *self.ids.entry(target).or_insert_with(|| {
            self.targets.push(target);
            self.targets.len() as u32 - 1
        });
        Entry::NextHop(id)
    }

    /// What the trie says of a destination; none where it leaves that to the kernel.
    fn lookup(&self, destination: Ipv6Addr) -> Option<Target> {
        match self.table.lookup(destination) {
            Entry::NextHop(id) => Some(self.targets[id as usize]),
            Entry::Punt => None,
            entry => panic!("{destination}: there is no {entry:?}"),
        }
    }
}

/// A route, as `ip -6 route` takes it: a line, or one for each of several equal ones.
struct Route {
    start: u128,
    len: u8,
    metric: u32,
    /// In the table local, which the kernel looks in first.
    is_local: bool,
    words: Vec<String>,
}

impl Route {
    fn random(random: &mut Random) -> Self {
        let len = match random.below(10) {
            0 => random.below(17) as u8,
            1..=5 => 17 + random.below(48) as u8,
            _ => 65 + random.below(64) as u8,
        };
        let start = address(random) & mask(len);
        let prefix = format!("{}/{len}", Ipv6Addr::from(start));
        let metric = 1 + random.below(3);
        let device = random.below(DEVICES);
        let gateway = 2 + random.below(8);
        let kind = random.below(30);
        // What one covers is hidden, so that short ones would leave little to compare.
        let is_local = kind == 9 && len > 48;
        let words = match kind {
            0 => vec![format!("blackhole {prefix} metric {metric}")],
            1 => vec![format!("unreachable {prefix} metric {metric}")],
            2 => vec![format!("prohibit {prefix} metric {metric}")],
            3 => vec![format!("throw {prefix} metric {metric}")],
            4..=6 => vec![format!(
                "{prefix} metric {metric} nexthop via fe80::2 dev m0 nexthop via fe80::3 dev m1"
            )],
            7 | 8 => ["m0", "m1"].map(|name| format!("{prefix} dev {name} metric {metric}")).into(),
            9 if is_local => vec![format!(
                "{prefix} via fe80::{gateway} dev d{device} metric {metric} table local"
            )],
            10..=16 => vec![format!("{prefix} dev d{device} metric {metric}")],
            17 | 18 => vec![format!(
                "{prefix} via fe80::1{gateway} dev d{device} metric {metric} mtu 1300"
            )],
            _ => vec![format!("{prefix} via fe80::{gateway} dev d{device} metric {metric}")],
        };
        Self { start, len, metric, is_local, words }
    }

    /// Its edges, and what lies just beyond them.
    fn edges(&self) -> [u128; 4] {
        let end = self.start | !mask(self.len);
        [self.start, end, self.start.wrapping_sub(1), end.wrapping_add(1)]
    }
}

/// Most lie where most prefixes are.
fn address(random: &mut Random) -> u128 {
    let bits = u128::from(random.next()) << 64 | u128::from(random.next());
    match random.below(8) {
        0 => bits,
        _ => 0x2001_0db8 << 96 | bits & 0x0003_0007_001f_0000_0000_0000_0307,
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// Where prefixes begin and end, and anywhere.
fn destinations(random: &mut Random, routes: &[Route], count: usize) -> Vec<Ipv6Addr> {
    let mut destinations = Vec::with_capacity(count);
    while destinations.len() < count {
        let ip = if routes.is_empty() || random.below(2) == 0 {
            address(random)
        } else {
            let route = &routes[random.below(routes.len() as u32) as usize];
            route.edges()[random.below(4) as usize]
        };
        let ip = Ipv6Addr::from(ip);
        // The programs leave others to the kernel by the address, whatever the trie says.
        if !ip.is_multicast() && !ip.is_unicast_link_local() && ip.to_bits() > 1 {
            destinations.push(ip);
        }
    }
    destinations
}
