//! Loads the programs with maps that outlive the daemon, and attaches them to interfaces.
//!
//! Everything is pinned below [`Instance::pins`](crate::instance::Instance): `maps-LAYOUT/NAME`, and
//! `links/IFINDEX-HOOK`. A daemon that finds pins takes them over: maps keep their contents, links
//! get the new program in the place of the old one without a gap.

mod build;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{DevMap, Map, MapData, MapError, PerfEventArray, ProgramArray},
    pin::PinError,
    programs::{ProgramError, SchedClassifier, Xdp, tc::SchedClassifierLink},
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

pub use self::build::Build;
use self::build::Pins;
use crate::{
    attach::Hook,
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

pub struct Programs {
    pub(crate) ebpf: Ebpf,
    /// The XDP programs for ports in generic mode, once there is one.
    generic: Option<Ebpf>,
    pub(crate) pins: PathBuf,
    /// Where the maps are pinned.
    maps: PathBuf,
    build: Build,
    limits: Limits,
    /// TC attachments of kernels before 6.6, which cannot be pinned.
    pub(crate) filters: HashMap<(u32, Hook), SchedClassifierLink>,
}

pub(crate) const XDP: &str = "xgre_xdp";
/// Where XDP goes on, by their places in [`DETOURS`].
const XDP_ANY: &str = "xgre_xdp_any";
const XDP_FRAMES: &str = "xgre_xdp_frames";
const XDP_DETOURS: [&str; 2] = [XDP_ANY, XDP_FRAMES];
pub(crate) const TC_IN: &str = "xgre_tc_in";
pub(crate) const TC_OUT: &str = "xgre_tc_out";
pub(crate) const TC_DELIVER: &str = "xgre_tc_deliver";

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

/// Loads the programs, with the maps pinned below `pins` or new ones.
pub fn load(build: &Build, limits: &Limits, pins: &Path) -> Result<Loaded, LoadError> {
    if KernelVersion::current().is_ok_and(|version| version < OLDEST_KERNEL) {
        return Err(LoadError::OldKernel);
    }
    let found = Pins::find(pins, build).map_err(|e| LoadError::Files(pins.to_owned(), e))?;
    let loaded = load_beside(&found, build, limits, pins);
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
) -> Result<Loaded, LoadError> {
    let maps = &found.maps;
    for directory in [maps, &pins.join("links")] {
        fs::create_dir_all(directory).map_err(|e| LoadError::Files(directory.clone(), e))?;
    }
    let cpus = cpus()?;
    let sizes = sizes(limits, cpus);
    found.carry(build, &sizes)?;
    let mut ebpf = prepare(build.object, limits, cpus, maps, NATIVE)?;
    // The programs name their maps by descriptors, which the maps own.
    load_xdp(&mut ebpf)?;
    load_tc(&mut ebpf)?;
    lay_detours(&mut ebpf)?;
    let (filled, for_daemon) = take_maps(&mut ebpf, maps, &sizes, limits, cpus)?;
    let tunnels = found.tunnels(build, &sizes)?;
    let programs = Programs {
        ebpf,
        generic: None,
        pins: pins.to_owned(),
        maps: maps.clone(),
        build: *build,
        limits: *limits,
        filters: HashMap::new(),
    };
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

/// The same programs for generic mode, where they must not declare that they take frames in several
/// buffers: Linux then copies each packet, and forgets how long its Ethernet header is
/// (skb_pp_cow_data, since 6.9), so that TC behind XDP finds no frame. The declaration is the name of
/// their section.
fn for_generic_mode(object: &[u8]) -> Vec<u8> {
    const DECLARED: &[u8] = b"xdp.frags\0";
    let mut object = object.to_vec();
    let mut at = 0;
    while let Some(found) = object[at..].windows(DECLARED.len()).position(|name| name == DECLARED) {
        at += found + b"xdp".len();
        object[at] = 0;
    }
    object
}

fn load_xdp(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    for name in [XDP, XDP_ANY, XDP_FRAMES] {
        let program: &mut Xdp = program(ebpf, name)?;
        program.load().map_err(|source| LoadError::Program { name, source })?;
    }
    Ok(())
}

fn load_tc(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    for name in [TC_IN, TC_OUT, TC_DELIVER] {
        let program: &mut SchedClassifier = self::program(ebpf, name)?;
        program.load().map_err(|source| LoadError::Program { name, source })?;
    }
    Ok(())
}

/// Tells the XDP program where to go on. The map outlives the daemon as the others do, since an array
/// of programs is emptied when nobody holds it.
fn lay_detours(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let failed = |source| LoadError::Map { name: DETOURS, source };
    let map = ebpf.take_map(DETOURS).ok_or(LoadError::Missing(DETOURS))?;
    let mut detours = ProgramArray::try_from(map).map_err(failed)?;
    for (index, name) in (0..).zip(XDP_DETOURS) {
        let program: &mut Xdp = program(ebpf, name)?;
        let program = program.fd().map_err(|source| LoadError::Program { name, source })?;
        detours.set(index, program, 0).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, LoadError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })
}

fn take_maps(
    ebpf: &mut Ebpf,
    pins: &Path,
    sizes: &[Size],
    limits: &Limits,
    cpus: u32,
) -> Result<(Maps, ForDaemon), LoadError> {
    let events = ebpf.take_map(EVENTS).ok_or(LoadError::Missing(EVENTS))?;
    let events = PerfEventArray::try_from(events)
        .map_err(|source| LoadError::Map { name: EVENTS, source })?;
    let mut take = |name: &'static str| -> Result<(Map, &Size), LoadError> {
        let size = sizes.iter().find(|size| size.name == name).ok_or(LoadError::Missing(name))?;
        Ok((ebpf.take_map(name).ok_or(LoadError::Missing(name))?, size))
    };
    let (tx_ports, _) = take(TX_PORTS)?;
    let failed = |name| move |source| LoadError::Map { name, source };
    let tx_ports = DevMap::try_from(tx_ports).map_err(failed(TX_PORTS))?;
    let generic_pin = pins.join(TX_PORTS.to_owned() + GENERIC);
    let (vlans, size) = take("VLANS")?;
    let vlans = Vlans::new(vlans, size.entries).map_err(failed("VLANS"))?;
    let (hosts6, size) = take("HOSTS6")?;
    let hosts6 = Hosts6::new(hosts6, size.entries).map_err(failed("HOSTS6"))?;
    let (stations, fdb) = take("FDB")?;
    let (sequences, size) = take("SEQUENCES")?;
    for name in [HELD, FRAMES] {
        let (map, size) = take(name)?;
        let Map::Array(data) = &map else { return Err(LoadError::Missing(name)) };
        check_layout(data, size)?;
    }
    // One for the daemon's task that follows the kernel, one for the other.
    let for_daemon = ForDaemon { events, sequences: map_memory(&sequences, size)? };
    let sequences = map_memory(&sequences, size)?;
    let mut mapping = |name| {
        let (map, size) = take(name)?;
        map_memory(&map, size)
    };
    let members = mapping("BRIDGE_MEMBERS")?;
    let members = Table::new(members, limits.interfaces, "interface", "interfaces");
    let bridges = Bridges::new(members, stations, fdb.entries, mapping("BRIDGES_UNTIL")?)
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

impl Programs {
    /// Removes what only programs of another layout used, once all of them have been replaced.
    pub fn settle(&self) -> Result<(), LoadError> {
        build::remove_others(&self.pins, &self.maps)
            .map_err(|error| LoadError::Files(self.pins.clone(), error))
    }

    /// The XDP program for ports in generic mode; loads it and those that it goes on with if need be.
    pub(crate) fn generic_xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        if self.generic.is_none() {
            let object = for_generic_mode(self.build.object);
            let mut ebpf = prepare(&object, &self.limits, cpus()?, &self.maps, GENERIC)?;
            load_xdp(&mut ebpf)?;
            lay_detours(&mut ebpf)?;
            self.generic = Some(ebpf);
        }
        program(self.generic.as_mut().ok_or(LoadError::Missing(XDP))?, XDP)
    }

    /// The kernel's number of the XDP program of this build.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, XDP)
    }

    /// The XDP program for all but the plainest packets.
    pub fn xdp_frames(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, XDP_FRAMES)
    }

    pub fn xdp_any(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, XDP_ANY)
    }

    /// The TC program for the ingress of ports.
    pub fn tc_in(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, TC_IN)
    }

    /// The TC program for the egress of tunnel devices.
    pub fn tc_out(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, TC_OUT)
    }

    /// The TC program for the egress of their other ends.
    pub fn tc_deliver(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, TC_DELIVER)
    }
}
