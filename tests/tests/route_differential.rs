//! The route table that the programs read says what the kernel says, after any change of the
//! kernel's routes: `ip route get` against map ROUTES, over a netlink snapshot and `compile`.
//!
//! ```text
//!             d0 .. d5: 172.16.I.1/24, gateways 172.16.I.2 to .9
//!   routes -- m0: several next hops, which only the kernel can choose from
//!             t0: the tunnel's device
//! ```

#[path = "common/pins.rs"]
mod pins;

use std::{
    collections::{BTreeMap, HashSet},
    env,
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

use aya::maps::MapData;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gre_ebpf_common::{
    next_hop::NextHop,
    route::{self, BLOCK, Entry},
};
use gre_userspace::{
    dataplane::{self, Allocated, Attachment, Hop, HopKey},
    loader,
    maps::{Maps, mapping::Mapping, routes::blocks},
    model::{Desired, Limits, Mode, Tunnel},
    netlink::Kernel,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use pins::Pins;

const ROUTES: usize = 10_000;
const LOOKUPS: usize = 100_000;
const LIMITS: Limits =
    Limits { tunnels: 4, next_hops: 4096, route_blocks: 16_384, interfaces: 256 };
/// Plain devices, `d0` and on.
const DEVICES: u32 = 6;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// XGRE_SEED=N runs the test with another seed than the one it always has.
    fn seeded() -> Self {
        let seed =
            env::var("XGRE_SEED").map_or(20_241_124, |seed| seed.parse().expect("XGRE_SEED"));
        println!("seed {seed} (set XGRE_SEED for another)");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// Most lie where most prefixes are.
    fn address(&mut self) -> u32 {
        let bits = self.next() as u32;
        match self.below(8) {
            0 => bits,
            1 => 0xac10_0000 | bits & 0x0007_000f,
            _ => 0x0a00_0000 | bits & 0x001f_03ff,
        }
    }

    fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// A route, as `ip route` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    start: u32,
    len: u8,
    words: String,
}

impl Route {
    fn random(random: &mut Random) -> Self {
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
    fn edges(&self) -> [u32; 4] {
        let end = self.start | !mask(self.len);
        [self.start, end, self.start.wrapping_sub(1), end.wrapping_add(1)]
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// What the kernel says of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// No route, a refusal, or for this host.
    Not,
    Unicast {
        oif: u32,
        gateway: Option<Ipv4Addr>,
        mtu: Option<u32>,
    },
}

/// RTM_GETROUTE, as `ip route get` asks it.
async fn ask(handle: &Handle, destination: Ipv4Addr) -> Answer {
    let message =
        RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
    match handle.route().get(message).execute().try_next().await {
        Ok(Some(message)) => answer(&message),
        Ok(None) => panic!("{destination}: the kernel said nothing"),
        Err(rtnetlink::Error::NetlinkError(error)) => {
            let errno = Errno::from_raw(-error.raw_code());
            // No route, unreachable, prohibit, blackhole.
            let refusals = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
            assert!(refusals.contains(&errno), "{destination}: {errno}");
            Answer::Not
        }
        Err(error) => panic!("{destination}: {error}"),
    }
}

fn answer(message: &RouteMessage) -> Answer {
    if message.header.kind != RouteType::Unicast {
        return Answer::Not;
    }
    let (mut oif, mut gateway, mut mtu) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Answer::Unicast { oif, gateway, mtu }
}

/// The namespace's interfaces and neighbours.
struct World {
    tunnel: u32,
    several: u32,
    ports: BTreeMap<u32, Attachment>,
    /// With a MAC address, by interface index.
    neighbours: HashSet<(u32, Ipv4Addr)>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
        let mut commands = "link set lo up\n".to_owned();
        for name in (0..DEVICES).map(|i| format!("d{i}")).chain(["m0".into(), "t0".into()]) {
            let _ = write!(
                commands,
                "link add {name} type veth peer name {name}p\nlink set {name} up\nlink set {name}p up\n"
            );
        }
        for i in 0..DEVICES {
            let _ = writeln!(commands, "addr add 172.16.{i}.1/24 dev d{i}");
        }
        // Local and broadcast addresses in the midst of the routes.
        for i in 0..DEVICES {
            let address = Ipv4Addr::from(random.address() & 0x001f_03ff | 0x0a00_0000);
            let _ = writeln!(commands, "addr add {address}/{} brd + dev d{i}", 22 + i);
        }
        ip(&[], &commands);
        let index = |name: String| if_nametoindex(name.as_str()).expect("it was made");
        let ports: BTreeMap<_, _> =
            (0..DEVICES).map(|i| (index(format!("d{i}")), Attachment::Native)).collect();

        let mut neighbours = HashSet::new();
        let mut commands = String::new();
        let gateways =
            (0..DEVICES).flat_map(|i| (2..6).map(move |g| (i, [172, 16, i as u8, g].into())));
        let hosts: Vec<_> = (0..500)
            .map(|_| (random.below(DEVICES), Ipv4Addr::from(random.address())))
            .filter(|(_, ip)| is_unicast(*ip))
            .collect();
        for (device, ip) in gateways.chain(hosts) {
            if neighbours.insert((index(format!("d{device}")), ip)) {
                let mac = mac(ip).map(|byte| format!("{byte:02x}")).join(":");
                let _ =
                    writeln!(commands, "neigh add {ip} dev d{device} nud permanent lladdr {mac}");
            }
        }
        ip(&[], &commands);
        Self { tunnel: index("t0".into()), several: index("m0".into()), ports, neighbours }
    }

    /// What the table must say, by the kernel's answer.
    fn expected(&self, destination: Ipv4Addr, answer: Answer) -> Expected {
        let Answer::Unicast { oif, gateway, mtu } = answer else {
            return Expected::Punt;
        };
        if oif == self.tunnel {
            return Expected::Tunnel;
        }
        // A host on the link is a next hop of its own, if its MAC address is known.
        let on_link = self.neighbours.contains(&(oif, destination)).then_some(destination);
        match gateway.or(on_link) {
            Some(ip) if oif != self.several => Expected::NextHop(Hop { ifindex: oif, ip, mtu }),
            _ => Expected::Punt,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Punt,
    Tunnel,
    NextHop(Hop),
}

/// A MAC address that tells the IP address.
fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [2, 0, a, b, c, d]
}

/// Other destinations the programs leave to the kernel by the address, whatever the table says.
fn is_unicast(ip: Ipv4Addr) -> bool {
    ip.octets()[0] != 0 && ip.octets()[0] < 224
}

fn desired() -> Desired {
    let tunnel = Tunnel {
        name: "t0".into(),
        mode: Mode::Gre,
        local: [192, 0, 2, 1].into(),
        remote: [198, 51, 100, 1].into(),
        ttl: 64,
        tos: 0,
        key: None,
        pmtudisc: true,
        mtu: None,
        addresses: Vec::new(),
        routes: Vec::new(),
        up: true,
    };
    Desired { tunnels: [("t0".into(), tunnel)].into(), ..Desired::default() }
}

/// Runs `ip -batch` and returns what it printed.
fn ip(options: &[&str], commands: &str) -> String {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting `ip`, of iproute2");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = String::new();
    std::thread::scope(|scope| {
        // Where `ip` gives up it says on which line.
        scope.spawn(move || drop(stdin.write_all(commands.as_bytes())));
        stdout.read_to_string(&mut output).expect("reading from `ip`");
    });
    assert!(child.wait().unwrap().success(), "`ip -batch` failed on a line of:\n{commands}");
    output
}

/// The map, seen as the programs see it.
struct Table {
    maps: Maps,
    /// ROUTES, mapped once more.
    words: Mapping,
    next_hops: BTreeMap<u32, NextHop>,
    allocated: Allocated,
    kernel: Kernel,
}

impl Table {
    fn new() -> Self {
        let pins = Pins::new();
        let (_, maps) = loader::load(&LIMITS, pins.path()).expect("loading the programs");
        let data = MapData::from_pin(pins.path().join("maps/ROUTES")).expect("it was pinned");
        let len = blocks(LIMITS.route_blocks) as usize * BLOCK * 4;
        let words = Mapping::of_map(&data, len).expect("mapping ROUTES");
        let kernel = Kernel::connect().expect("a netlink connection");
        Self { maps, words, next_hops: BTreeMap::new(), allocated: Allocated::default(), kernel }
    }

    /// As the daemon does when the kernel's routes have changed.
    async fn follow(&mut self, world: &World) {
        let snapshot = self.kernel.snapshot().await.expect("a snapshot");
        let (plane, _) =
            dataplane::compile(&desired(), &snapshot, &world.ports, &mut self.allocated);
        self.next_hops = plane.next_hops.clone();
        self.maps.apply(plane).expect("filling the maps");
        assert_eq!(self.maps.routes.starved(), 0, "the test needs more second-level blocks");
    }

    fn lookup(&self, destination: Ipv4Addr) -> Entry {
        let words = self.words.words32();
        route::lookup(u32::from(destination).to_be(), |block, index| {
            Some(words[block as usize * BLOCK + index].load(Ordering::Relaxed))
        })
    }

    /// What a packet to this destination meets: the table's entry, and the next hop's record, which
    /// must be that of the neighbour.
    fn meets(&mut self, destination: Ipv4Addr, expected: Expected, world: &World) -> bool {
        let found = self.lookup(destination);
        let Expected::NextHop(hop) = expected else {
            return found
                == if expected == Expected::Tunnel { Entry::Tunnel(0) } else { Entry::Punt };
        };
        // A next hop that there is no record of gets a number here that no route has.
        let id = self.allocated.next_hops.get(&HopKey::Neighbour(hop)) + 1;
        let mac =
            if world.neighbours.contains(&(hop.ifindex, hop.ip)) { mac(hop.ip) } else { [0; 6] };
        let mtu = hop.mtu.map_or(1500, |mtu| mtu.min(1500));
        let Some(record) = self.next_hops.get(&id) else { return false };
        let expected = NextHop::new(mac, [0; 6], hop.ifindex, mtu, record.flags);
        found == Entry::NextHop(id)
            && record.ethernet[0] == expected.ethernet[0]
            && record.ethernet[1].to_ne_bytes()[..2] == expected.ethernet[1].to_ne_bytes()[..2]
            && (record.ifindex, record.mtu) == (expected.ifindex, expected.mtu)
    }
}

/// Compares the table with the kernel at these addresses. Returns the kernel's answers.
async fn compare(
    table: &mut Table,
    world: &World,
    handle: &Handle,
    destinations: &[Ipv4Addr],
) -> Vec<(Ipv4Addr, Answer)> {
    let answers: Vec<_> = stream::iter(destinations)
        .map(|&destination| async move { (destination, ask(handle, destination).await) })
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

/// The kernel's answers once more, by the program that people ask it with.
fn compare_with_ip_route_get(answers: &[(Ipv4Addr, Answer)]) {
    let reached = |answer: &Answer| matches!(answer, Answer::Unicast { .. });
    let some: Vec<_> = answers.iter().filter(|(_, answer)| reached(answer)).take(300).collect();
    let commands: String = some.iter().map(|(ip, _)| format!("route get {ip}\n")).collect();
    let output = ip(&["-json"], &commands);
    assert_eq!(output.lines().count(), some.len());
    for (line, (destination, answer)) in output.lines().zip(some) {
        let text: serde_json::Value = serde_json::from_str(line).expect("`ip -json` prints JSON");
        let text = |key: &str| text[0][key].as_str();
        let device = text("dev").expect("a route has a device");
        let Answer::Unicast { oif, gateway, .. } = *answer else {
            unreachable!("they are reached")
        };
        assert_eq!(text("dst"), Some(destination.to_string().as_str()));
        assert_eq!(if_nametoindex(device), Ok(oif), "{destination}");
        assert_eq!(text("gateway").map(str::to_owned), gateway.map(|ip| ip.to_string()));
    }
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
    let mut present: Vec<Route> = Vec::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for step in STEPS {
        let (from, to, verb) = if step > 0 {
            (&mut absent, &mut present, "append")
        } else {
            (&mut present, &mut absent, "del")
        };
        random.shuffle(from);
        let moved = from.split_off(from.len() - step.unsigned_abs() as usize);
        let commands: String =
            moved.iter().map(|route| format!("route {verb} {}\n", route.words)).collect();
        ip(&[], &commands);
        to.extend(moved);

        table.follow(world).await;
        let destinations = destinations(&mut random, &present, LOOKUPS / STEPS.len());
        all = compare(&mut table, world, &handle, &destinations).await;
        for &(destination, answer) in &all {
            let kind = match world.expected(destination, answer) {
                Expected::Punt => "punt",
                Expected::Tunnel => "tunnel",
                Expected::NextHop(_) => "next hop",
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    println!("{kinds:?}, {} routes at the end", present.len());
    // A test that only ever met one of them would prove little.
    assert!(kinds.len() == 3 && kinds.values().all(|&count| count > LOOKUPS / 20), "{kinds:?}");
    compare_with_ip_route_get(&all);
}
