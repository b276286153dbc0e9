//! Starts: takes over what an earlier daemon left, without a packet noticing, and makes the rest.

use std::collections::BTreeMap;

use anyhow::{Error, Result, anyhow};
use gre_ebpf_common::tunnel::Tunnel as Record;
use tracing::{info, warn};

use crate::{
    dataplane::{RecordKey, is_device},
    model::{Desired, Tunnel},
    observed::Snapshot,
};

use super::{
    alias::{self, Origin},
    world::World,
};

impl World {
    /// Makes the configured tunnels and ports; a port that refuses XDP is an error now, and only a
    /// note later.
    ///
    /// # Errors
    /// When a tunnel or a port cannot be had as configured.
    pub async fn start(
        &mut self,
        desired: Desired,
        migrated: Option<Vec<(u32, Record)>>,
    ) -> Result<()> {
        let snapshot = self.snapshot();
        let Devices { left, unwanted } = Devices::of(&desired.tunnels, &snapshot);
        self.keep_numbers(&snapshot, migrated.as_deref().unwrap_or_default());

        // Tunnels that have a device are all there before the maps are written for the first time.
        let (existing, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            desired.tunnels.into_iter().partition(|(name, _)| has_device(&snapshot, name));
        self.desired = Desired { tunnels: existing.clone(), ..desired };
        self.desired.tunnels.extend(left);
        self.let_group(self.desired.control_group.clone()).map_err(Error::msg)?;
        if migrated.is_some() {
            self.prepare(&snapshot)?;
        }
        self.attach(&snapshot)?;
        self.follow().await;

        let failed = |name: &str| {
            let name = name.to_owned();
            move |refusal| anyhow!("tunnel \"{name}\": {refusal}")
        };
        for (name, tunnel) in &existing {
            self.service.alive();
            self.make(tunnel).await.map_err(failed(name))?;
        }
        for (name, tunnel) in new {
            self.service.alive();
            self.add_tunnel(tunnel).await.map_err(failed(&name))?;
        }
        for (name, ifindex) in unwanted {
            info!(tunnel = name, "not configured any more, deleted");
            if let Err(error) = self.kernel.delete_link(ifindex).await {
                warn!("{error}");
            }
        }
        if migrated.is_some() {
            self.settle()?;
        }
        Ok(())
    }

    /// Numbers in the maps keep their meaning: tunnels keep theirs, with their counters, and next
    /// hops get others than an earlier daemon's routes refer to. So do tunnels whose maps are another
    /// layout's.
    fn keep_numbers(&mut self, snapshot: &Snapshot, migrated: &[(u32, Record)]) {
        let own = self.maps.tunnels.values().iter().map(|(&id, tunnel)| (id, tunnel));
        for (id, tunnel) in migrated.iter().map(|(id, tunnel)| (*id, tunnel)).chain(own) {
            if let Some(link) = snapshot.links.get(&tunnel.ifindex) {
                let key = RecordKey::Tunnel(link.name.clone());
                self.allocated.tunnels.seed(key, id);
                self.counted.insert(id, link.name.clone());
            }
        }
        let migrated = migrated.iter().map(|(id, _)| *id).max();
        let tunnels = self.maps.tunnels.values().keys().next_back().copied().max(migrated);
        self.allocated.tunnels.keep(tunnels.map_or(0, |last| last + 1));
        // Next hop ids start at 1.
        let groups = self.maps.groups.values().keys().next_back();
        self.allocated.groups.keep(groups.map_or(0, |last| last + 1));
        let next_hops = self.maps.next_hops.values().keys().next_back();
        self.allocated.next_hops.keep(next_hops.copied().unwrap_or(0));
    }
}

/// Devices that an earlier daemon left and the configuration does not name.
struct Devices {
    /// Tunnels that a command made: they stay.
    left: BTreeMap<String, Tunnel>,
    /// The others, with their interface index.
    unwanted: Vec<(String, u32)>,
}

impl Devices {
    fn of(configured: &BTreeMap<String, Tunnel>, snapshot: &Snapshot) -> Self {
        let mut devices = Self { left: BTreeMap::new(), unwanted: Vec::new() };
        let others = snapshot
            .links
            .values()
            .filter(|link| is_device(link) && !configured.contains_key(&link.name));
        for link in others {
            let parsed = alias::parse(&link.name, link.alias.as_deref().unwrap_or_default());
            match parsed {
                Some((Origin::Command, tunnel))
                    if configured.values().all(|other| other.identity() != tunnel.identity()) =>
                {
                    devices.left.insert(link.name.clone(), tunnel);
                }
                _ => devices.unwanted.push((link.name.clone(), link.ifindex)),
            }
        }
        devices
    }
}

fn has_device(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.links.values().any(|link| link.name == name && is_device(link))
}
