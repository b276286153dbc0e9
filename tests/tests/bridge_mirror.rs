//! What the daemon tells the programs about a bridge that joins a LAN to a tunnel.
//!
//! ```text
//!   host ------ lan +-----+ gretap1 ===== (192.0.2.2)
//!                   | br0 |                  |
//!                   +-----+       192.0.2.1 wan ------ far
//! ```

mod common {
    pub mod pins;
}

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use gre_ebpf_common::{
    bridge::{self, Address, Member, Station},
    pod::{Plain, from_words, to_words},
    port::{self, Port},
    wire::ethernet::Mac,
};
use gre_userspace::{
    dataplane::DataPlane,
    loader::{self, Build, Loaded, XdpModes},
    model::Limits,
};
use tests::{
    config::Gateway,
    gateways::SOON,
    lan::without_netfilter,
    namespace::Namespace,
    process::wait_until,
    xgre::{Daemon, tunnel, xgre},
};

use common::pins::Pins;

const HOST: [u8; 6] = [2, 0, 0, 0, 1, 1];
const FAR_HOST: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// The pinned maps, which stay readable when their pins have gone.
struct Maps {
    members: Array<MapData, [u64; Member::WORDS]>,
    ports: Array<MapData, [u64; Port::WORDS]>,
    stations: HashMap<MapData, [u64; Address::WORDS], [u64; Station::WORDS]>,
    until: Array<MapData, u64>,
}

impl Maps {
    fn open(pins: &Path) -> Result<Self> {
        let open = |name: &str| {
            MapData::from_pin(Build::THIS.maps(pins).join(name))
                .with_context(|| format!("map {name}"))
        };
        Ok(Self {
            members: Map::Array(open("BRIDGE_MEMBERS")?).try_into()?,
            ports: Map::Array(open("PORTS")?).try_into()?,
            stations: Map::HashMap(open("FDB")?).try_into()?,
            until: Map::Array(open("BRIDGES_UNTIL")?).try_into()?,
        })
    }

    fn member(&self, ifindex: u32) -> Result<Member> {
        Ok(from_words(&self.members.get(&ifindex, 0)?))
    }

    fn port(&self, ifindex: u32) -> Result<Port> {
        Ok(from_words(&self.ports.get(&ifindex, 0)?))
    }

    fn station(&self, bridge: u32, mac: [u8; 6]) -> Option<Station> {
        let mut key = [0; Address::WORDS];
        to_words(&Address::new(bridge, 0, Mac::from_bytes(mac)), &mut key);
        self.stations.get(&key, 0).ok().map(|words| from_words(&words))
    }

    fn count(&self) -> usize {
        self.stations.keys().count()
    }

    fn until(&self) -> Result<u64> {
        Ok(self.until.get(&0, 0)?)
    }
}

struct Lab {
    gateway: Namespace,
    lan: u32,
    bridge: u32,
}

impl Lab {
    fn new() -> Result<Self> {
        let gateway = Namespace::new("gateway")?;
        without_netfilter(&gateway)?;
        for (port, end) in [("lan", "host"), ("wan", "far")] {
            gateway.ip(&format!("link add {port} type veth peer name {end}"))?;
            // XDP sends there, which the kernel takes into account when the port is brought up.
            gateway.offloads(end, "gro on")?;
            gateway.ip(&format!("link set {end} up"))?;
            gateway.ip(&format!("link set {port} up"))?;
        }
        gateway.ip("addr add 192.0.2.1/24 dev wan")?;
        gateway.ip("neigh add 192.0.2.2 lladdr 02:00:00:00:09:09 dev wan")?;
        gateway.ip("link add br0 up type bridge")?;
        gateway.ip("link set lan master br0")?;
        let [lan, bridge] = ["lan", "br0"].map(|name| index(&gateway, name));
        Ok(Self { lan: lan?, bridge: bridge?, gateway })
    }

    /// Starts a daemon with the tunnel, and puts its device into the bridge.
    fn start(&self) -> Result<Daemon> {
        let daemon = Daemon::start(&self.gateway, &Gateway::without_tunnels())?;
        let ends = "remote 192.0.2.2 local 192.0.2.1";
        xgre(&self.gateway, &format!("tunnel add gretap1 mode gretap {ends}"))?;
        self.gateway.ip("link set gretap1 up master br0")?;
        Ok(daemon)
    }

    fn learn(&self, mac: [u8; 6], member: &str) -> Result<()> {
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        self.gateway.run(&format!("bridge fdb replace {mac} dev {member} master static")).map(drop)
    }

    fn why_not(&self) -> Result<Option<String>> {
        let found = tunnel(&self.gateway, "gretap1")?.context("there is no tunnel")?;
        Ok(found["why_not"].as_str().map(str::to_owned))
    }
}

fn index(namespace: &Namespace, name: &str) -> Result<u32> {
    let text = namespace.ip(&format!("-o link show dev {name}"))?;
    let (index, _) = text.split_once(':').context("no index")?;
    Ok(index.parse()?)
}

#[test]
fn a_bridge_that_joins_a_lan_to_a_tunnel_is_mirrored_as_long_as_the_daemon_follows_it() -> Result<()>
{
    let lab = Lab::new()?;
    let daemon = lab.start()?;
    lab.learn(HOST, "lan")?;
    lab.learn(FAR_HOST, "gretap1")?;
    let device = index(&lab.gateway, "gretap1")?;
    let maps = Maps::open(&lab.gateway.pins())?;
    let at = |mac| maps.station(lab.bridge, mac).map(|station| station.member);
    wait_until("both hosts are mirrored", SOON, || {
        let places = [at(HOST), at(FAR_HOST)];
        ensure!(places == [Some(lab.lan), Some(device)], "{places:?}");
        Ok(())
    })?;
    let record = Member::new(lab.bridge, 0, bridge::Flags::default(), 30_000);
    assert_eq!([maps.member(lab.lan)?, maps.member(device)?], [record; 2]);
    // Ports are written after all of a bridge.
    wait_until("the LAN is a port without an address", SOON, || {
        let port = maps.port(lab.lan)?;
        ensure!(port.flags.has(port::Flags::BRIDGED), "{port:?}");
        Ok(())
    })?;
    assert!(maps.station(lab.bridge, FAR_HOST).is_some_and(|far| far.tunnel().is_some()));
    wait_until("nothing keeps the tunnel slow", SOON, || match lab.why_not()? {
        Some(why_not) => bail!("{why_not}"),
        None => Ok(()),
    })?;
    let vouched = maps.until()?;
    wait_until("it goes on vouching", SOON, || {
        ensure!(maps.until()? > vouched, "still until {vouched}");
        Ok(())
    })?;

    lab.learn(HOST, "gretap1")?;
    wait_until("the move is followed", SOON, || {
        ensure!(at(HOST) == Some(device), "{:?}", at(HOST));
        Ok(())
    })?;

    lab.gateway.ip("link set br0 down")?;
    wait_until("nothing is left in the maps", SOON, || {
        ensure!(maps.count() == 0 && maps.member(lab.lan)? == Member::default(), "there is");
        let why_not = lab.why_not()?.unwrap_or_default();
        ensure!(why_not == "bridge br0 is down: `ip link set br0 up`", "{why_not}");
        Ok(())
    })?;

    lab.gateway.ip("link set br0 up")?;
    wait_until("both hosts are back", SOON, || {
        ensure!(maps.count() == 2, "{}", maps.count());
        Ok(())
    })?;
    lab.gateway.ip("link set lan nomaster")?;
    wait_until("the LAN is no port any more", SOON, || {
        ensure!(maps.port(lab.lan)? == Port::default(), "{:?}", maps.port(lab.lan));
        Ok(())
    })?;

    daemon.stop()?;
    assert_eq!(maps.until()?, 0, "nobody follows the bridge any more");
    Ok(())
}

#[test]
fn what_happened_to_a_bridge_while_there_was_no_daemon_the_next_one_finds_out() -> Result<()> {
    let lab = Lab::new()?;
    let daemon = lab.start()?;
    lab.learn(HOST, "lan")?;
    lab.learn(FAR_HOST, "gretap1")?;
    let device = index(&lab.gateway, "gretap1")?;
    let maps = Maps::open(&lab.gateway.pins())?;
    let at = |mac| maps.station(lab.bridge, mac).map(|station| station.member);
    wait_until("both hosts are mirrored", SOON, || {
        ensure!(maps.count() == 2, "{}", maps.count());
        Ok(())
    })?;

    daemon.kill()?;
    assert_eq!(at(HOST), Some(lab.lan), "what is in the maps stays there");
    lab.learn(HOST, "gretap1")?;
    lab.gateway.run("bridge fdb del 02:00:00:00:01:02 dev gretap1 master")?;
    let _daemon = Daemon::start(&lab.gateway, &Gateway::without_tunnels())?;
    assert_eq!([at(HOST), at(FAR_HOST)], [Some(device), None], "before it answers");
    Ok(())
}

/// The kernel forwards to what does not fit; that is not worth an error.
#[test]
fn addresses_beyond_the_limit_are_left_out_and_those_that_are_in_stay() {
    let pins = Pins::new();
    let limits = Limits { fdb: 2, tunnels: 8, route_blocks: 16, interfaces: 64, ..Limits::DEFAULT };
    let Loaded { programs: _programs, maps: mut written, .. } =
        loader::load(&Build::THIS, &limits, pins.path(), XdpModes::NONE).expect("loading");
    let maps = Maps::open(pins.path()).expect("opening the maps");
    let mut apply = |hosts: &[u8]| {
        let station = |&last: &u8| {
            let address = Address::new(9, 0, Mac::from_bytes([2, 0, 0, 0, 0, last]));
            (address, Station::behind_port(7, 1, false))
        };
        let stations = hosts.iter().map(station).collect();
        written.apply(DataPlane { stations, ..DataPlane::default() }).expect("writing the maps");
        written.bridges.left_out()
    };
    let present = || {
        let mac = |last| [2, 0, 0, 0, 0, last];
        (1..=4).filter(|&last| maps.station(9, mac(last)).is_some()).collect::<Vec<u8>>()
    };

    assert_eq!((apply(&[2, 3]), present()), (0, vec![2, 3]));
    assert_eq!((apply(&[1, 2, 3, 4]), present()), (2, vec![2, 3]));
    assert_eq!((apply(&[1, 3, 4]), present()), (1, vec![1, 3]));
    assert_eq!((apply(&[]), present()), (0, vec![]));
}
