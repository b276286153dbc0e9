//! Ties tier 3 to the daemon: what it must know of the tunnels, and what it learns about paths.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::{
    dataplane::TunnelState,
    loader::ForDaemon,
    model::Tunnel,
    observed::Snapshot,
    report,
    slowpath::{
        handle::{Carried, PathMtu, SlowPath},
        io::{Inputs, Outputs, events::Events},
        oversize::Policy,
        tables::{Device, NO_UNDERLAY, Sources, TunnelEntry},
        task::{self, Shared},
    },
};

use super::world::World;

/// Starts tier 3. What it learns about paths comes out of the receiver.
///
/// # Errors
/// When a socket or a buffer cannot be had.
pub fn start(maps: ForDaemon) -> Result<(Shared, mpsc::UnboundedReceiver<PathMtu>)> {
    // Any number will do.
    let identification = RandomState::new().hash_one(0) as u32;
    let shared = Shared::new(SlowPath::new(identification));
    let inputs = Inputs::open(Events::open(maps.events)?)
        .context("opening sockets for ICMP errors from the underlay")?;
    let outputs = Outputs::open().context("opening raw sockets")?;
    let (sender, path_mtus) = mpsc::unbounded_channel();
    let running = task::run(shared.clone(), inputs, outputs, maps.sequences, sender);
    tokio::spawn(async move {
        if let Err(error) = running.await {
            error!("fragments and ICMP errors are not dealt with any more: {error}");
        }
    });
    Ok((shared, path_mtus))
}

impl World {
    /// Tells tier 3 which tunnels are up.
    pub(super) fn inform_slow_path(&self, snapshot: &Snapshot) {
        let devices = self.devices(snapshot);
        let mut entries = BTreeMap::new();
        for (name, state) in &self.states {
            let (Some(tunnel), Some(device)) = (self.tunnel(name), devices.get(name)) else {
                continue;
            };
            let link = device.link;
            if !link.up {
                continue;
            }
            let ends = Device {
                ifindex: link.ifindex,
                mac: link.mac.unwrap_or_default(),
                peer_ifindex: device.peer.map_or(0, |peer| peer.ifindex),
                peer_mac: device.peer.and_then(|peer| peer.mac).unwrap_or_default(),
            };
            let sources = sources(snapshot, link.ifindex);
            let legs = state.legs.iter().map(|(&remote, &id)| (id, remote, true));
            for (id, remote, leg) in legs.chain([(state.id, tunnel.remote, false)]) {
                if let Some(entry) = self.entry(tunnel, id, remote, leg, ends, sources) {
                    entries.insert(id, entry);
                }
            }
        }
        self.slow_path.lock().set_tunnels(entries);
    }

    fn entry(
        &self,
        tunnel: &Tunnel,
        id: u32,
        remote: IpAddr,
        leg: bool,
        device: Device,
        sources: Sources,
    ) -> Option<TunnelEntry> {
        let record = *self.maps.tunnels.values().get(&id)?;
        let next_hop = self.maps.next_hops.values().get(&record.next_hop);
        let local = match remote {
            IpAddr::V4(_) => in_memory_order(&record.addresses4().0.to_ne_bytes()),
            IpAddr::V6(_) => {
                let addresses = self.maps.addresses6.values().get(&id)?;
                in_memory_order(&addresses.local.map(u32::to_ne_bytes).concat())
            }
        };
        Some(TunnelEntry {
            record,
            name: tunnel.name.clone(),
            local: local?,
            remote,
            leg,
            received_key: tunnel.ikey,
            sent_key: tunnel.okey,
            underlay_mtu: next_hop.map_or(NO_UNDERLAY, |hop| hop.mtu.min(u16::MAX.into()) as u16),
            device,
            policy: Policy { pmtudisc: tunnel.pmtudisc, ignore_df: tunnel.ignore_df },
            sources,
        })
    }

    /// Takes in what tier 3 has learned, or forgotten, about a path.
    pub(super) async fn learn(&mut self, learned: PathMtu) {
        let PathMtu { tunnel, remote, mtu } = learned;
        match mtu {
            Some(mtu) => {
                info!(tunnel, %remote, mtu, "the path takes packets of this length only");
                self.known.path_mtus.insert((tunnel, remote), mtu);
            }
            None => {
                info!(tunnel, %remote, "trying longer packets on the path again");
                self.known.path_mtus.remove(&(tunnel, remote));
            }
        }
        self.follow().await;
    }

    /// What tier 3 has carried for a tunnel.
    pub(super) fn carried(&self, state: &TunnelState) -> Carried {
        let slow_path = self.slow_path.lock();
        let mut total = Carried::default();
        for id in state.legs.values().chain([&state.id]) {
            if let Some(carried) = slow_path.carried.get(id) {
                total.rx.packets += carried.rx.packets;
                total.rx.bytes += carried.rx.bytes;
                total.tx.packets += carried.tx.packets;
                total.tx.bytes += carried.tx.bytes;
            }
        }
        total
    }

    /// The path MTUs learned for a tunnel.
    pub(super) fn path_mtus_of(&self, state: &TunnelState) -> Vec<report::PathMtu> {
        let (slow_path, now) = (self.slow_path.lock(), Instant::now());
        let ids = state.legs.values().chain([&state.id]);
        ids.flat_map(|&id| slow_path.path_mtus_of(id, now))
            .map(|(remote, mtu, left)| report::PathMtu {
                remote: remote.to_string(),
                mtu: mtu.into(),
                expires_in: left.as_secs() as u32,
            })
            .collect()
    }

    /// The longest inner packet that the ways to all remotes carry in one outer packet.
    pub(super) fn payload_mtu(&self, state: &TunnelState) -> Option<u32> {
        let (slow_path, now) = (self.slow_path.lock(), Instant::now());
        let ids = state.legs.values().chain([&state.id]);
        ids.filter_map(|&id| slow_path.payload_mtu(id, now)).min().map(u32::from)
    }

    /// Says once of each tunnel that its path does not carry in one piece what IPv6 is promised, and
    /// once when it does (RFC 7676, 3.2).
    pub(super) fn tell_of_narrow_paths(&mut self, snapshot: &Snapshot) {
        let devices = self.devices(snapshot);
        let known = self.states.iter().filter_map(|(name, state)| {
            let device = devices.get(name)?.link.mtu;
            Some((name.clone(), device, self.payload_mtu(state)?))
        });
        for (tunnel, device, payload_mtu) in known.collect::<Vec<_>>() {
            if !report::fragments_ipv6(Some(device), Some(payload_mtu)) {
                if self.narrow.remove(&tunnel) {
                    info!(tunnel, payload_mtu, "IPv6 needs no outer fragments any more");
                }
            } else if self.narrow.insert(tunnel.clone()) {
                warn!(
                    tunnel,
                    payload_mtu,
                    "the path carries less than the 1280 bytes that IPv6 is promised: what is longer \
                     goes in outer fragments, which is slow; raise the underlay's MTU"
                );
            }
        }
    }
}

fn in_memory_order(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The addresses that ICMP errors to inner senders come from: the device's own; of IPv6 any that may
/// be told to others, since without one there is no answer.
fn sources(snapshot: &Snapshot, ifindex: u32) -> Sources {
    let of = |ifindex: u32| {
        let addresses = snapshot.addresses.get(&ifindex).into_iter().flatten();
        addresses.map(|address| address.local.addr())
    };
    let v4 = of(ifindex).find_map(|address| match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let tellable = |address: IpAddr| match address {
        IpAddr::V6(v6) if is_tellable(v6) => Some(v6),
        _ => None,
    };
    let others = snapshot.links.keys().flat_map(|&ifindex| of(ifindex));
    Sources { v4, v6: of(ifindex).chain(others).find_map(tellable) }
}

fn is_tellable(address: Ipv6Addr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local()
}
