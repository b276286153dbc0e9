//! The map ROUTES, filled as the daemon fills it and read as the programs read it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::Ordering,
};

use aya::maps::MapData;
use gre_ebpf_common::{
    group::Group,
    next_hop::NextHop,
    route::{self, BLOCK, Entry},
};
use gre_userspace::{
    dataplane::{self, Allocated, HopKey, Known},
    loader::{self, Build, Loaded, XdpModes},
    maps::{Maps, mapping::Mapping, routes::blocks},
    model::{Desired, Limits, Mode, Tunnel},
    netlink::Kernel,
};

use crate::{
    pins::Pins,
    world::{Expected, World, mac},
};

const LIMITS: Limits = Limits { tunnels: 4, next_hops: 4096, interfaces: 256, ..Limits::DEFAULT };

/// The map, seen as the programs see it.
pub struct Table {
    maps: Maps,
    /// ROUTES, mapped once more.
    words: Mapping,
    next_hops: BTreeMap<u32, NextHop>,
    groups: BTreeMap<u32, Group>,
    allocated: Allocated,
    kernel: Kernel,
}

impl Table {
    pub fn new() -> Self {
        let pins = Pins::new();
        let Loaded { maps, .. } = loader::load(&Build::THIS, &LIMITS, pins.path(), XdpModes::NONE)
            .expect("loading the programs");
        let data =
            MapData::from_pin(Build::THIS.maps(pins.path()).join("ROUTES")).expect("it was pinned");
        let len = blocks(LIMITS.route_blocks) as usize * BLOCK * 4;
        let words = Mapping::of_map(&data, len).expect("mapping ROUTES");
        let kernel = Kernel::connect().expect("a netlink connection");
        let (next_hops, groups) = (BTreeMap::new(), BTreeMap::new());
        Self { maps, words, next_hops, groups, allocated: Allocated::default(), kernel }
    }

    /// As the daemon does when the kernel's routes have changed.
    pub async fn follow(&mut self, world: &World) {
        let snapshot = self.kernel.snapshot().await.expect("a snapshot");
        let (plane, _) = dataplane::compile(
            &desired(),
            &snapshot,
            &world.ports,
            &Known::default(),
            &mut self.allocated,
        );
        self.next_hops = plane.next_hops.clone();
        self.groups = plane.groups.clone();
        self.maps.apply(plane).expect("filling the maps");
        assert_eq!(self.maps.routes.starved(), 0, "the test needs more second-level blocks");
    }

    pub fn lookup(&self, destination: Ipv4Addr) -> Entry {
        let words = self.words.words32();
        route::lookup(u32::from(destination).to_be(), |block, index| {
            Some(words[block as usize * BLOCK + index].load(Ordering::Relaxed))
        })
    }

    /// What a packet to this destination meets: the table's entry, and the next hop's record, which
    /// must be that of the neighbour.
    pub fn meets(&mut self, destination: Ipv4Addr, expected: Expected, world: &World) -> bool {
        let found = self.lookup(destination);
        let hop = match expected {
            Expected::Punt => return found == Entry::Punt,
            Expected::Tunnel => return found == Entry::Tunnel(0),
            Expected::NextHop(hop) | Expected::OneOf(hop) => hop,
        };
        // A next hop that there is no record of gets a number here that no route has.
        let id = self.allocated.next_hops.get(&HopKey::Neighbour(hop)) + 1;
        let mac = match hop.ip {
            IpAddr::V4(ip) if world.neighbours.contains(&(hop.ifindex, ip)) => mac(ip),
            _ => [0; 6],
        };
        let mtu = hop.mtu.map_or(1500, |mtu| mtu.min(1500));
        let Some(record) = self.next_hops.get(&id) else { return false };
        let right = NextHop::new(mac, [0; 6], hop.ifindex, mtu, record.flags);
        let leads_there = match (expected, found) {
            (Expected::OneOf(_), Entry::Group(group)) => {
                self.groups[&group].0.contains(&Entry::NextHop(id).to_word())
            }
            (Expected::NextHop(_), found) => found == Entry::NextHop(id),
            _ => false,
        };
        leads_there
            && record.ethernet[0] == right.ethernet[0]
            && record.ethernet[1].to_ne_bytes()[..2] == right.ethernet[1].to_ne_bytes()[..2]
            && (record.ifindex, record.mtu) == (right.ifindex, right.mtu)
    }
}

fn desired() -> Desired {
    let (local, remote) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
    let tunnel = Tunnel { ttl: 64, up: true, ..Tunnel::new("t0", Mode::Gre, local, remote) };
    Desired { tunnels: [("t0".into(), tunnel)].into(), ..Desired::default() }
}
