//! Adds and removes tunnels, and keeps their devices as configured.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    dataplane,
    model::{Mode, Tunnel},
    observed::{Link, Snapshot},
    reconcile,
};

use super::{alias, change::taken_over, handle::Refusal, world::World};

/// The kernel shows a device within milliseconds; after this long something is wrong.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    /// Makes a tunnel: its device, addresses and routes, and its place in the maps.
    ///
    /// # Errors
    /// When it cannot be made as asked; then nothing of it is left.
    pub async fn add_tunnel(&mut self, tunnel: Tunnel) -> Result<(), Refusal> {
        self.check(&tunnel)?;
        let name = tunnel.name.clone();
        self.desired.tunnels.insert(name.clone(), tunnel.clone());
        if let Err(refusal) = self.make(&tunnel).await {
            self.undo(&name).await;
            return Err(refusal);
        }
        info!(tunnel = name, "added");
        Ok(())
    }

    fn check(&self, tunnel: &Tunnel) -> Result<(), Refusal> {
        let limit = self.desired.limits.tunnels as usize;
        if self.desired.tunnels.len() >= limit {
            return Err(Refusal::Invalid(format!(
                "No buffer space available: there are {limit} tunnels already; raise \
                 `limits.tunnels` in the config and start again"
            )));
        }
        if self.desired.tunnels.contains_key(&tunnel.name) {
            return Err(Refusal::Exists(format!("a tunnel is called \"{}\"", tunnel.name)));
        }
        if let Some(refusal) = clash(tunnel, self.desired.tunnels.values()) {
            return Err(refusal);
        }
        match device_named(&self.snapshot(), &tunnel.name) {
            Some(link) if !dataplane::is_device(link) => Err(Refusal::Exists(format!(
                "an interface is called \"{}\" and is not a tunnel of xgre",
                tunnel.name
            ))),
            _ => Ok(()),
        }
    }

    pub(super) async fn make(&mut self, tunnel: &Tunnel) -> Result<(), Refusal> {
        let name = &tunnel.name;
        let snapshot = self.snapshot();
        let mtu = tunnel.mtu.unwrap_or_else(|| reconcile::default_mtu(tunnel, &snapshot));
        let alias = alias::of(tunnel);
        match device_named(&snapshot, name) {
            // An earlier daemon left it, perhaps configured otherwise.
            Some(link) => {
                let old = alias::parse(name, link.alias.as_deref().unwrap_or_default());
                let mtu = old.map_or(mtu, |(_, old)| taken_over(link.mtu, &old, tunnel, mtu));
                if mtu != link.mtu {
                    self.kernel.set_mtu(link.ifindex, mtu).await.map_err(kernel)?;
                }
                self.kernel.set_alias(link.ifindex, &alias).await.map_err(kernel)?;
            }
            None => self
                .kernel
                .create_tunnel_device(
                    name,
                    &peer_name(name),
                    mtu,
                    &alias,
                    tunnel.mode.is_ethernet(),
                )
                .await
                .map(drop)
                .map_err(kernel)?,
        }
        if tunnel.mtu.is_none() {
            self.mtus.insert(name.clone(), mtu);
        }
        let snapshot = self.wait(name, true).await?;
        let ifindex = device_named(&snapshot, name).map(|link| link.ifindex).unwrap_or_default();
        self.finish_packets(ifindex, tunnel).await?;
        for address in &tunnel.addresses {
            self.kernel.add_address(ifindex, *address).await.map_err(kernel)?;
        }
        if tunnel.up {
            self.kernel.set_up(ifindex, true).await.map_err(kernel)?;
            for route in &tunnel.routes {
                self.kernel.add_route(*route, ifindex).await.map_err(kernel)?;
            }
            self.up.insert(name.clone());
        }
        self.follow().await;
        if self.attached.devices.contains_key(&ifindex) {
            return Ok(());
        }
        Err(Refusal::Kernel(format!("the program could not be attached to {name}; see the log")))
    }

    /// Numbers and checksums are given packet by packet, and a packet whose checksum is not there yet
    /// cannot go in fragments: the device then has to cut and to sum what it sends.
    pub(super) async fn finish_packets(
        &self,
        ifindex: u32,
        tunnel: &Tunnel,
    ) -> Result<(), Refusal> {
        let fragments = tunnel.mode == Mode::Gre && tunnel.ignore_df && !tunnel.pmtudisc;
        let finish = tunnel.ocsum || tunnel.oseq || fragments;
        self.kernel.finish_packets(ifindex, finish).await.map_err(kernel)
    }

    async fn undo(&mut self, name: &str) {
        self.forget(name);
        self.refresh();
        if let Some(link) =
            device_named(&self.snapshot(), name).filter(|link| dataplane::is_device(link))
            && let Err(error) = self.kernel.delete_link(link.ifindex).await
        {
            warn!("{error}");
        }
    }

    /// Removes a tunnel and its device.
    ///
    /// # Errors
    /// When there is none of that name, or the kernel will not let its device go.
    pub async fn delete_tunnel(&mut self, name: &str) -> Result<(), Refusal> {
        self.must_be_ours(name, "tunnel del")?;
        if !self.desired.tunnels.contains_key(name) {
            return Err(Refusal::NoSuchTunnel(name.to_owned()));
        }
        if let Some(link) = device_named(&self.snapshot(), name) {
            self.kernel.delete_link(link.ifindex).await.map_err(kernel)?;
            self.wait(name, false).await?;
        }
        self.forget(name);
        self.follow().await;
        info!(tunnel = name, "deleted");
        Ok(())
    }

    /// Waits until the device is there with its alias and peer, or gone, in the kernel's state as we
    /// follow it.
    async fn wait(&mut self, name: &str, there: bool) -> Result<Arc<Snapshot>, Refusal> {
        let desired = &self.desired;
        let arrived = self.snapshots.wait_for(|snapshot| {
            if there {
                dataplane::devices(desired, snapshot).contains_key(name)
            } else {
                device_named(snapshot, name).is_none()
            }
        });
        match timeout(PATIENCE, arrived).await {
            Ok(Ok(snapshot)) => Ok(snapshot.clone()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Kernel(format!(
                "the kernel did not report the change of {name} within {PATIENCE:?}"
            ))),
        }
    }

    /// Keeps the MTU of each tunnel in step with the underlay's, unless somebody set another, and
    /// gives a device that comes up its configured routes, which the kernel dropped when it went down.
    pub(super) async fn follow_underlay(&mut self, snapshot: &Snapshot) {
        let tunnels: Vec<_> = self.desired.tunnels.values().cloned().collect();
        for tunnel in tunnels {
            let Some(link) = device_named(snapshot, &tunnel.name) else { continue };
            if let Some(given) = self.mtus.get_mut(&tunnel.name) {
                let wanted = reconcile::default_mtu(&tunnel, snapshot);
                if link.mtu == *given && wanted != *given {
                    info!(tunnel = tunnel.name, mtu = wanted, "following the underlay's MTU");
                    *given = wanted;
                    if let Err(error) = self.kernel.set_mtu(link.ifindex, wanted).await {
                        warn!("{error}");
                    }
                }
            }
            let came_up = link.up && !self.up.contains(&tunnel.name);
            if link.up {
                self.up.insert(tunnel.name.clone());
            } else {
                self.up.remove(&tunnel.name);
            }
            for route in tunnel.routes.iter().filter(|_| came_up) {
                if let Err(error) = self.kernel.add_route(*route, link.ifindex).await {
                    warn!("{error}");
                }
            }
        }
    }

    /// The tunnels' devices in the kernel's newest state, with how each stands.
    pub(super) fn device_ifindex(&self, snapshot: &Snapshot, name: &str) -> Option<u32> {
        dataplane::devices(&self.desired, snapshot).get(name).map(|device| device.link.ifindex)
    }
}

/// Why a tunnel cannot be beside `others`, which it may be one of.
pub(super) fn clash<'a>(
    tunnel: &Tunnel,
    mut others: impl Iterator<Item = &'a Tunnel>,
) -> Option<Refusal> {
    let identity = tunnel.identity();
    let other = others.find(|other| other.name != tunnel.name && other.identity() == identity)?;
    Some(Refusal::Exists(format!("tunnel \"{}\" has the same local, remote and key", other.name)))
}

pub(super) fn device_named<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Link> {
    snapshot.links.values().find(|link| link.name == name)
}

/// The name of a device's other end, which nobody has to deal with: at most 15 bytes, as the
/// kernel's names are.
fn peer_name(name: &str) -> String {
    if name.len() <= 13 {
        return format!("p-{name}");
    }
    // Long names that start alike must not meet (FNV-1a).
    let hash = name
        .bytes()
        .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let start: String = name.chars().take(7).collect();
    format!("p-{}{:06x}", start, hash >> 8)
}

pub(super) fn kernel(error: crate::netlink::NetlinkError) -> Refusal {
    Refusal::Kernel(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_names_fit_the_kernel_and_differ() {
        let names = ["tunnel0", "exactly13byte", "a-long-name-012", "a-long-name-013"];
        let peers = names.map(peer_name);
        assert_eq!(peers[..2], ["p-tunnel0", "p-exactly13byte"]);
        assert!(peers.iter().all(|peer| peer.len() <= 15), "{peers:?}");
        assert_ne!(peers[2], peers[3]);
    }
}
