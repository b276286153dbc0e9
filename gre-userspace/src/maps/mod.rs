//! The maps of the data plane, kept equal to a [`DataPlane`].

pub mod bridges;
pub mod counters;
pub mod demux;
pub mod hash;
pub mod mapping;
pub mod routes;
pub mod routes6;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use aya::maps::{DevMap, Map, MapData, MapError, xdp::XdpMapError};
use gre_ebpf_common::{
    group::Group,
    mismatch::Mismatch,
    next_hop::NextHop,
    pod::Plain,
    port::Port,
    sequence::Sequence,
    tunnel::{Addresses6, Tunnel},
};
use thiserror::Error;

use crate::dataplane::DataPlane;

use self::{
    bridges::Bridges,
    counters::Counters,
    demux::{Demux, Full},
    hash::{Hosts6, Vlans},
    mapping::Mapping,
    routes::RouteTable,
    routes6::RouteTable6,
};

#[derive(Debug, Error)]
pub enum MapsError {
    #[error("making interface {ifindex} a redirect target: {source}")]
    TxPort { ifindex: u32, source: XdpMapError },
    #[error("{what} {index} is beyond `limits.{limit}` = {len}: raise it in the config")]
    Limit { what: &'static str, index: u32, limit: &'static str, len: u32 },
    #[error("{wanted} {what} are more than `limits.{limit}` = {len}: raise it in the config")]
    Count { what: &'static str, wanted: usize, limit: &'static str, len: u32 },
    #[error("writing map {map}: {source}")]
    Hash { map: &'static str, source: MapError },
    #[error(transparent)]
    Demux(#[from] Full),
}

/// An array, and what is in it that is not zero.
pub struct Table<V> {
    map: Mapping,
    len: u32,
    what: &'static str,
    limit: &'static str,
    values: BTreeMap<u32, V>,
}

impl<V: Plain> Table<V> {
    /// Takes over an array of `len` values of which `limit` is the name in the config, with what
    /// an earlier daemon left in it.
    pub fn new(map: Mapping, len: u32, what: &'static str, limit: &'static str) -> Self {
        let values = (0..len)
            .map(|index| (index, map.load::<V>(index)))
            .filter(|(_, value)| *value != V::default())
            .collect();
        Self { map, len, what, limit, values }
    }

    /// What is in it that is not zero, by index.
    pub fn values(&self) -> &BTreeMap<u32, V> {
        &self.values
    }

    fn check(&self, wanted: &BTreeMap<u32, V>) -> Result<(), MapsError> {
        match wanted.last_key_value() {
            Some((&index, _)) if index >= self.len => {
                Err(MapsError::Limit { what: self.what, index, limit: self.limit, len: self.len })
            }
            _ => Ok(()),
        }
    }

    /// Writes what is new or differs.
    fn fill(&mut self, wanted: &BTreeMap<u32, V>) {
        for (&index, value) in wanted {
            if self.values.get(&index) != Some(value) {
                self.map.store(index, value);
                self.values.insert(index, *value);
            }
        }
    }

    /// Zeroes what is not wanted any more.
    fn prune(&mut self, wanted: &BTreeMap<u32, V>) {
        self.values.retain(|index, _| {
            let keep = wanted.contains_key(index);
            if !keep {
                self.map.store(*index, &V::default());
            }
            keep
        });
    }
}

pub struct Maps {
    pub ports: Table<Port>,
    pub vlans: Vlans,
    pub tunnels: Table<Tunnel>,
    pub addresses6: Table<Addresses6>,
    pub next_hops: Table<NextHop>,
    pub groups: Table<Group>,
    pub demux: Demux,
    pub tx_ports: TxPorts,
    pub routes: RouteTable,
    pub routes6: RouteTable6,
    pub hosts6: Hosts6,
    pub bridges: Bridges,
    pub counters: Counters,
    /// By tunnel id; the programs write it.
    pub sequences: Mapping,
    /// By tunnel id; the programs write it.
    pub mismatches: Mapping,
}

impl Maps {
    /// Makes the maps say what `plane` says, or changes nothing. What is referred to is there
    /// before what refers to it, and goes after it.
    pub fn apply(&mut self, plane: DataPlane) -> Result<(), MapsError> {
        self.ports.check(&plane.ports)?;
        self.tunnels.check(&plane.tunnels)?;
        self.addresses6.check(&plane.addresses6)?;
        self.next_hops.check(&plane.next_hops)?;
        self.vlans.check(plane.vlans.len())?;
        self.hosts6.check(plane.hosts6.len())?;
        self.bridges.check(&plane)?;

        // First: addresses move while routes stay.
        self.bridges.prune(&plane)?;
        self.next_hops.fill(&plane.next_hops);
        self.addresses6.fill(&plane.addresses6);
        self.tunnels.fill(&plane.tunnels);
        self.groups.fill(&plane.groups);
        self.tx_ports.fill(&plane.tx_ports)?;
        self.bridges.fill(&plane)?;
        self.ports.fill(&plane.ports);
        self.vlans.fill(&plane.vlans)?;
        self.hosts6.fill(&plane.hosts6)?;
        self.demux.replace(&plane.demux)?;
        self.routes.replace(plane.routes);
        self.routes6.replace(plane.routes6);
        self.hosts6.prune(&plane.hosts6)?;
        self.vlans.prune(&plane.vlans)?;
        self.ports.prune(&plane.ports);
        self.tx_ports.prune(&plane.tx_ports)?;
        self.groups.prune(&plane.groups);
        self.tunnels.prune(&plane.tunnels);
        self.addresses6.prune(&plane.addresses6);
        self.next_hops.prune(&plane.next_hops);
        Ok(())
    }

    /// The sequence numbers of a tunnel.
    pub fn sequence(&self, tunnel: u32) -> Sequence {
        self.sequences.load(tunnel)
    }

    /// What a tunnel's peer sends and the tunnel does not take.
    pub fn mismatch(&self, tunnel: u32) -> Mismatch {
        self.mismatches.load(tunnel)
    }

    /// Forgets what a tunnel has counted, numbered and refused, before its id is given to another.
    pub fn reset(&self, tunnel: u32) {
        self.counters.reset(tunnel);
        self.sequences.store(tunnel, &Sequence::default());
        self.mismatches.store(tunnel, &Mismatch::default());
    }
}

/// The redirect targets.
pub struct TxPorts {
    /// That of programs for native mode, and that of programs for generic mode once there are such.
    maps: Vec<DevMap<MapData>>,
    generic_pin: PathBuf,
    filled: BTreeSet<u32>,
}

impl TxPorts {
    pub fn new(native: DevMap<MapData>, generic_pin: PathBuf) -> Self {
        Self { maps: vec![native], generic_pin, filled: BTreeSet::new() }
    }

    /// Writes all of them each time: the kernel takes a device out when it goes, and another may
    /// since have come with its index.
    fn fill(&mut self, wanted: &BTreeSet<u32>) -> Result<(), MapsError> {
        if self.maps.len() == 1 && self.generic_pin.exists() {
            let generic = MapData::from_pin(&self.generic_pin).map(Map::DevMap);
            let failed = |source| MapsError::Hash { map: "TX_PORTS", source };
            self.maps.push(generic.and_then(DevMap::try_from).map_err(failed)?);
        }
        for &ifindex in wanted {
            match self.set(ifindex, ifindex) {
                // The device went after the snapshot was taken; the next snapshot says so.
                Err(error) if is_invalid(&error) => {}
                result => result.map_err(|source| MapsError::TxPort { ifindex, source })?,
            }
        }
        self.filled.extend(wanted);
        Ok(())
    }

    fn prune(&mut self, wanted: &BTreeSet<u32>) -> Result<(), MapsError> {
        let gone: Vec<_> = self.filled.difference(wanted).copied().collect();
        for ifindex in gone {
            self.set(ifindex, 0).map_err(|source| MapsError::TxPort { ifindex, source })?;
            self.filled.remove(&ifindex);
        }
        Ok(())
    }

    /// An interface index of 0 empties the slot.
    fn set(&mut self, slot: u32, ifindex: u32) -> Result<(), XdpMapError> {
        self.maps.iter_mut().try_for_each(|map| map.set(slot, ifindex, None, 0))
    }
}

fn is_invalid(error: &XdpMapError) -> bool {
    matches!(
        error,
        XdpMapError::MapError(aya::maps::MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::libc::EINVAL)
    )
}
