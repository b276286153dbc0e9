//! Loads the programs with maps that outlive the daemon, and attaches them to interfaces.
//!
//! Everything is pinned below [`Instance::pins`](crate::instance::Instance): `maps-LAYOUT/NAME`, and
//! `links/IFINDEX-HOOK`. A daemon that finds pins takes them over: maps keep their contents, links
//! get the new program in the place of the old one without a gap.

mod build;
mod programs;

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{DevMap, Map, MapData, MapError, PerfEventArray},
    pin::PinError,
    programs::ProgramError,
    util::{KernelVersion, nr_cpus},
};
use gre_ebpf_common::{
    bridge::{Member, Station, Until},
    counters::{OutcomeCounters, TIERS, TunnelCounters, TunnelDrops},
    demux::Bucket,
    group::{self, Group},
    mismatch::Mismatch,
    next_hop::NextHop,
    port::Port,
    reassembly::{self, HeldFrame},
    route::Block,
    sequence::Sequence,
    tunnel::{Addresses6, Tunnel},
};
use thiserror::Error;

pub(crate) use self::programs::{TC_DELIVER, TC_IN, TC_OUT};
pub use self::{
    build::Build,
    programs::{Programs, XdpModes},
};
use self::{build::Pins, programs::XDP_DETOURS};
use crate::{
    dataplane::GROUPS,
    maps::{
        Maps, Table, TxPorts,
        bridges::Bridges,
        counters::Counters,
        demux::{self, Demux},
        hash::{Hosts6, Vlans},
        mapping::Mapping,
        routes::{self, RouteTable},
        routes6::{self, RouteTable6},
    },
    model::Limits,
};

/// The oldest kernel that the programs are tested on.
const OLDEST_KERNEL: KernelVersion = KernelVersion::new(6, 1, 0);

#[derive(Debug, Error)]
pub enum LoadError {
    #[error("this kernel is older than 6.1, the oldest that xgre runs on: boot a newer one")]
    OldKernel,
    #[error("loading the BPF programs: {0}")]
    Load(#[from] EbpfError),
    #[error("the kernel refused program {name}: {source}")]
    Program { name: &'static str, source: ProgramError },
    #[error("the BPF object has no {0}")]
    Missing(&'static str),
    #[error("map {name}: {source}")]
    Map { name: &'static str, source: MapError },
    #[error("mapping {name} into memory: {source}")]
    Mapping { name: &'static str, source: io::Error },
    #[error(
        "map {name} of the running data plane has {found} entries of {found_size} bytes, this \
         configuration, or this version, asks for {wanted} of {wanted_size}: stop forwarding with \
         `xgre teardown`, then start again, or keep `[limits]` as they were"
    )]
    Layout { name: &'static str, found: u32, found_size: u32, wanted: u32, wanted_size: u32 },
    #[error("pinning {0}: {1}")]
    Pin(PathBuf, PinError),
    #[error("{0}: {1}")]
    Files(PathBuf, io::Error),
}

/// The way of packets to the daemon: not pinned, since it is the running daemon's.
const EVENTS: &str = "EVENTS";

/// The map of programs that XDP goes on with.
const DETOURS: &str = "DETOURS";

/// The map of devices that XDP redirects to.
const TX_PORTS: &str = "TX_PORTS";

/// Where the maps are pinned, of those above, that only programs of one kind may use: those that take
/// frames in several buffers, or those that do not.
const NATIVE: &str = "";
const GENERIC: &str = "_GENERIC";

/// Fragments that wait for the other one of their packet: the programs' alone.
const HELD: &str = "HELD";
const FRAMES: &str = "FRAMES";
const WAYS: u32 = reassembly::WAYS as u32;

fn held_buckets(limits: &Limits) -> u32 {
    limits.fragments.div_ceil(WAYS)
}

/// Entries and bytes an entry of a map.
struct Size {
    name: &'static str,
    entries: u32,
    bytes: usize,
}

fn sizes(limits: &Limits, cpus: u32) -> [Size; 23] {
    let size = |name, entries, bytes| Size { name, entries, bytes };
    [
        size("PORTS", limits.interfaces, size_of::<Port>()),
        size(TX_PORTS, limits.interfaces, 8),
        size("TUNNELS", limits.tunnels, size_of::<Tunnel>()),
        size("TUNNELS6", limits.tunnels, size_of::<Addresses6>()),
        size("VLANS", limits.vlans, size_of::<Port>()),
        size("DEMUX", demux::buckets(limits.tunnels), size_of::<Bucket>()),
        size("NEXT_HOPS", limits.next_hops, size_of::<NextHop>()),
        size("GROUPS", GROUPS, size_of::<Group>()),
        size("ROUTES", routes::blocks(limits.route_blocks), size_of::<Block>()),
        size("ROUTES6", routes6::blocks(limits.route6_nodes), size_of::<Block>()),
        size("HOSTS6", limits.hosts6, 4),
        size(HELD, held_buckets(limits), size_of::<reassembly::Bucket>()),
        size(FRAMES, held_buckets(limits) * WAYS, size_of::<HeldFrame>()),
        size("IDENTIFICATIONS", 1, 8),
        size("BRIDGE_MEMBERS", limits.interfaces, size_of::<Member>()),
        size("FDB", limits.fdb, size_of::<Station>()),
        size("BRIDGES_UNTIL", 1, size_of::<Until>()),
        size("SEQUENCES", limits.tunnels, size_of::<Sequence>()),
        size("MISMATCHES", limits.tunnels, size_of::<Mismatch>()),
        size("TUNNEL_COUNTERS", limits.tunnels * cpus, size_of::<TunnelCounters>()),
        size("TUNNEL_DROPS", limits.tunnels, size_of::<TunnelDrops>()),
        size(DETOURS, XDP_DETOURS.len() as u32, 4),
        size("OUTCOMES", cpus * TIERS, size_of::<OutcomeCounters>()),
    ]
}

/// Whether a data plane is pinned there, which an earlier daemon left forwarding.
pub fn is_running(pins: &Path) -> bool {
    build::directories(pins).is_ok_and(|maps| !maps.is_empty())
}

/// The directories of all maps pinned there.
pub(crate) fn map_directories(pins: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(build::directories(pins)?.into_iter().map(|(_, directory)| directory).collect())
}

/// What the daemon's own tier works with.
pub struct ForDaemon {
    pub events: PerfEventArray<MapData>,
    pub sequences: Mapping,
}

/// What a daemon begins with.
pub struct Loaded {
    pub programs: Programs,
    pub maps: Maps,
    pub for_daemon: ForDaemon,
    /// Where packets are forwarded by maps of another layout: its tunnels, with their ids.
    pub migrated: Option<Vec<(u32, Tunnel)>>,
}

/// Makes the maps, or opens those pinned below `pins`, and loads the programs of TC and those of XDP for
/// these modes.
pub fn load(
    build: &Build,
    limits: &Limits,
    pins: &Path,
    modes: XdpModes,
) -> Result<Loaded, LoadError> {
    if KernelVersion::current().is_ok_and(|version| version < OLDEST_KERNEL) {
        return Err(LoadError::OldKernel);
    }
    let found = Pins::find(pins, build).map_err(|e| LoadError::Files(pins.to_owned(), e))?;
    let loaded = load_beside(&found, build, limits, pins, modes);
    if loaded.is_err() {
        found.abandon();
    }
    loaded
}

fn load_beside(
    found: &Pins,
    build: &Build,
    limits: &Limits,
    pins: &Path,
    modes: XdpModes,
) -> Result<Loaded, LoadError> {
    let maps = &found.maps;
    for directory in [maps, &pins.join("links")] {
        fs::create_dir_all(directory).map_err(|e| LoadError::Files(directory.clone(), e))?;
    }
    let cpus = cpus()?;
    let sizes = sizes(limits, cpus);
    found.carry(build, &sizes)?;
    let ebpf = prepare(build.object, limits, cpus, maps, NATIVE)?;
    let (filled, for_daemon) = open_maps(&ebpf, maps, &sizes, limits, cpus)?;
    let programs = Programs::load(ebpf, build, limits, pins, modes)?;
    let tunnels = found.tunnels(build, &sizes)?;
    let migrated = found.are_others().then_some(tunnels);
    Ok(Loaded { programs, maps: filled, for_daemon, migrated })
}

fn cpus() -> Result<u32, LoadError> {
    let cpus = nr_cpus();
    cpus.map(|cpus| cpus as u32)
        .map_err(|(_, error)| LoadError::Files("/sys/devices/system/cpu".into(), error))
}

/// Makes the maps of an object, or opens those that are pinned in the directory `maps`.
fn prepare(
    object: &[u8],
    limits: &Limits,
    cpus: u32,
    maps: &Path,
    kind: &str,
) -> Result<Ebpf, LoadError> {
    let mask = demux::buckets(limits.tunnels) - 1;
    let sizes = sizes(limits, cpus);
    let mut loader = EbpfLoader::new();
    let (buckets, seed) = (held_buckets(limits), hash_seed());
    loader
        .override_global("CPUS", &cpus, true)
        .override_global("DEMUX_MASK", &mask, true)
        .override_global("HELD_BUCKETS", &buckets, true)
        .override_global("HASH_SEED", &seed, true);
    for size in &sizes {
        let kind = if [DETOURS, TX_PORTS].contains(&size.name) { kind } else { "" };
        loader.map_max_entries(size.name, size.entries);
        loader.map_pin_path(size.name, maps.join(size.name.to_owned() + kind));
    }
    Ok(loader.load(object)?)
}

/// This host's own, and the same for every daemon until the next boot: flows keep to their next hops.
fn hash_seed() -> u32 {
    // Without /proc it is that of all such hosts.
    let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.chunks(4).fold(0, |hash, word| {
        let word = word.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        group::hash4(0, hash, word)
    })
}

/// Opens the maps that the daemon reads or fills. The object keeps its own descriptors of them, by which
/// programs that are loaded later name their maps.
fn open_maps(
    ebpf: &Ebpf,
    pins: &Path,
    sizes: &[Size],
    limits: &Limits,
    cpus: u32,
) -> Result<(Maps, ForDaemon), LoadError> {
    let map = |name: &'static str| ebpf.map(name).ok_or(LoadError::Missing(name));
    let sized = |name: &'static str| -> Result<(&Map, &Size), LoadError> {
        let size = sizes.iter().find(|size| size.name == name).ok_or(LoadError::Missing(name))?;
        Ok((map(name)?, size))
    };
    let failed = |name| move |source| LoadError::Map { name, source };
    let opened = |name| another(map(name)?, name);
    let events = PerfEventArray::try_from(opened(EVENTS)?).map_err(failed(EVENTS))?;
    let tx_ports = DevMap::try_from(opened(TX_PORTS)?).map_err(failed(TX_PORTS))?;
    let generic_pin = pins.join(TX_PORTS.to_owned() + GENERIC);
    let (_, size) = sized("VLANS")?;
    let vlans = Vlans::new(opened("VLANS")?, size.entries).map_err(failed("VLANS"))?;
    let (_, size) = sized("HOSTS6")?;
    let hosts6 = Hosts6::new(opened("HOSTS6")?, size.entries).map_err(failed("HOSTS6"))?;
    let (_, fdb) = sized("FDB")?;
    for name in [HELD, FRAMES] {
        let (map, size) = sized(name)?;
        let Map::Array(data) = map else { return Err(LoadError::Missing(name)) };
        check_layout(data, size)?;
    }
    let mapping = |name| {
        let (map, size) = sized(name)?;
        map_memory(map, size)
    };
    // One for the daemon's task that follows the kernel, one for the other.
    let for_daemon = ForDaemon { events, sequences: mapping("SEQUENCES")? };
    let sequences = mapping("SEQUENCES")?;
    let members = mapping("BRIDGE_MEMBERS")?;
    let members = Table::new(members, limits.interfaces, "interface", "interfaces");
    let bridges = Bridges::new(members, opened("FDB")?, fdb.entries, mapping("BRIDGES_UNTIL")?)
        .map_err(failed("FDB"))?;
    let buckets = demux::buckets(limits.tunnels);
    let maps = Maps {
        ports: Table::new(mapping("PORTS")?, limits.interfaces, "interface", "interfaces"),
        tunnels: Table::new(mapping("TUNNELS")?, limits.tunnels, "tunnel", "tunnels"),
        addresses6: Table::new(mapping("TUNNELS6")?, limits.tunnels, "tunnel", "tunnels"),
        vlans,
        next_hops: Table::new(mapping("NEXT_HOPS")?, limits.next_hops, "next hop", "next_hops"),
        groups: Table::new(mapping("GROUPS")?, GROUPS, "group of next hops", "groups"),
        demux: Demux::new(mapping("DEMUX")?, buckets),
        tx_ports: TxPorts::new(tx_ports, generic_pin),
        routes: RouteTable::new(mapping("ROUTES")?, limits.route_blocks),
        routes6: RouteTable6::new(mapping("ROUTES6")?, limits.route6_nodes),
        hosts6,
        bridges,
        sequences,
        mismatches: mapping("MISMATCHES")?,
        counters: Counters::new(
            mapping("TUNNEL_COUNTERS")?,
            mapping("TUNNEL_DROPS")?,
            mapping("OUTCOMES")?,
            cpus,
        ),
    };
    Ok((maps, for_daemon))
}

/// The same map by another descriptor.
fn another(map: &Map, name: &'static str) -> Result<Map, LoadError> {
    let (data, of_kind): (_, fn(MapData) -> Map) = match map {
        Map::HashMap(data) => (data, Map::HashMap),
        Map::DevMap(data) => (data, Map::DevMap),
        Map::PerfEventArray(data) => (data, Map::PerfEventArray),
        _ => return Err(LoadError::Missing(name)),
    };
    let failed = |source| LoadError::Map { name, source };
    let descriptor = data.fd().as_fd().try_clone_to_owned().map_err(|e| failed(e.into()))?;
    MapData::from_fd(descriptor).map(of_kind).map_err(failed)
}

/// Maps an array into memory, if it is laid out as this build expects.
fn map_memory(map: &Map, size: &Size) -> Result<Mapping, LoadError> {
    let name = size.name;
    let Map::Array(data) = map else { return Err(LoadError::Missing(name)) };
    check_layout(data, size)?;
    Mapping::of_map(data, size.entries as usize * size.bytes)
        .map_err(|source| LoadError::Mapping { name, source })
}

fn check_layout(data: &MapData, size: &Size) -> Result<(), LoadError> {
    let name = size.name;
    let info = data.info().map_err(|source| LoadError::Map { name, source })?;
    let (found, found_size) = (info.max_entries(), info.value_size());
    let wanted_size = size.bytes as u32;
    if (found, found_size) != (size.entries, wanted_size) {
        let wanted = size.entries;
        return Err(LoadError::Layout { name, found, found_size, wanted, wanted_size });
    }
    Ok(())
}
