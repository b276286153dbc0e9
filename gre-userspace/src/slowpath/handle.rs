//! What to do with each packet: no input, no output, no clock.

mod framed;
mod inward;
mod outward;
mod relay;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use gre_ebpf_common::event::Kind;

use self::{framed::Framed, outward::Frame};
use super::{
    io::events::HandedUp,
    limit::Limiter,
    packet,
    path_mtu::{Path, PathMtus},
    reason::{Counts, Reason},
    reassemble::Reassembler,
    sequence::Sequences,
    tables::{NO_UNDERLAY, Tables, TunnelEntry},
};
use crate::report::Traffic;

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    HandedUp(HandedUp),
    /// An ICMP error, with its IP header.
    IcmpV4(Vec<u8>),
    /// An ICMPv6 error, without.
    IcmpV6(Vec<u8>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send an IP packet to where the kernel routes it.
    Send(Vec<u8>),
    /// Send a frame out of an interface.
    SendFrame { ifindex: u32, frame: Vec<u8> },
    /// Write a path's MTU into the tunnel's record.
    PathMtu(PathMtu),
}

/// The longest outer packet that the way of a tunnel to a remote takes has become another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    /// The tunnel's name.
    pub tunnel: String,
    pub remote: IpAddr,
    /// Bytes; `None` where nothing is known any more.
    pub mtu: Option<u16>,
}

/// Packets and bytes of inner packets that the slow path carried for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    pub rx: Traffic,
    pub tx: Traffic,
}

#[derive(Debug, Default)]
pub struct SlowPath {
    tables: Tables,
    reassembler: Reassembler,
    path_mtus: PathMtus,
    limiter: Limiter,
    /// The last identification given to an outer packet.
    identification: u32,
    pub counts: Counts,
    /// By tunnel id.
    pub carried: BTreeMap<u32, Carried>,
}

impl SlowPath {
    /// `identification` is any number, so that a daemon's identifications differ from those of the
    /// one before it.
    pub fn new(identification: u32) -> Self {
        Self { identification, ..Self::default() }
    }

    /// The tunnels that are up, by id, in place of those known so far. What was learned for a tunnel
    /// whose remote is another now is forgotten.
    pub fn set_tunnels(&mut self, tunnels: BTreeMap<u32, TunnelEntry>) {
        self.tables = Tables::new(tunnels);
        let tables = &self.tables;
        self.path_mtus.retain(|path| {
            tables.get(path.tunnel).is_some_and(|tunnel| tunnel.remote == path.remote)
        });
        self.limiter.retain(|tunnel| tables.get(tunnel).is_some());
        self.carried.retain(|&tunnel, _| tables.get(tunnel).is_some());
    }

    /// Deals with one packet, which ends in one count.
    pub fn handle(&mut self, input: &Input, sequences: Sequences<'_>, now: Instant) -> Vec<Action> {
        match input {
            Input::HandedUp(packet) => self.handed_up(packet, sequences, now),
            Input::IcmpV4(packet) => self.icmp_v4(packet, now),
            Input::IcmpV6(message) => self.icmp_v6(message, now),
        }
    }

    fn handed_up(
        &mut self,
        packet: &HandedUp,
        sequences: Sequences<'_>,
        now: Instant,
    ) -> Vec<Action> {
        let Some((ethertype, network)) = packet::network_layer(&packet.frame) else {
            self.counts.add(Reason::FrameMalformed);
            return Vec::new();
        };
        match packet.kind {
            Kind::OuterFragment | Kind::OuterOptions => {
                self.inward(network, packet.ifindex, sequences, now)
            }
            Kind::Oversize | Kind::OtherProtocol | Kind::EncapsulationLimit => {
                let tunnel = packet.tunnel;
                if self.tables.get(tunnel).is_some_and(TunnelEntry::is_ethernet) {
                    let (ifindex, frame) = (packet.ifindex, &packet.frame[..]);
                    let framed = Framed { tunnel, ifindex, frame };
                    let result = self.encapsulate_frame(framed, sequences, now);
                    return self.concluded(result);
                }
                let frame = Frame { tunnel, ethertype, packet: network };
                self.outward(frame, sequences, now)
            }
        }
    }

    /// Path MTUs learned for a tunnel, by remote: bytes, and how long they are kept yet.
    pub fn path_mtus_of(&self, tunnel: u32, now: Instant) -> Vec<(IpAddr, u16, Duration)> {
        self.path_mtus.of_tunnel(tunnel, now).collect()
    }

    /// The longest inner packet that the way of a tunnel to its remote carries in one outer packet, in
    /// bytes, where there is a way.
    pub fn payload_mtu(&self, tunnel: u32, now: Instant) -> Option<u16> {
        let TunnelEntry { record, remote, underlay_mtu, .. } = self.tables.get(tunnel)?;
        if remote.is_unspecified() || *underlay_mtu == NO_UNDERLAY {
            return None;
        }
        let path = Path { tunnel, remote: *remote };
        Some(self.path_mtus.get(path, *underlay_mtu, now).saturating_sub(record.overhead))
    }

    /// Forgets what has become too old.
    pub fn expire(&mut self, now: Instant) -> Vec<Action> {
        self.reassembler.expire(now, &mut self.counts);
        let expired = self.path_mtus.expire(now);
        let told = expired.into_iter().filter_map(|Path { tunnel, remote }| {
            let tunnel = self.tables.get(tunnel)?.name.clone();
            Some(Action::PathMtu(PathMtu { tunnel, remote, mtu: None }))
        });
        told.collect()
    }

    /// When [`SlowPath::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        [self.reassembler.next_expiry(), self.path_mtus.next_expiry()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
