//! The devices of tunnels, as `ip link` shows and sets them.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::warn;

use super::{
    handle::Refusal,
    tunnels::{PATIENCE, kernel},
    world::World,
};
use crate::{
    config::unfit,
    dataplane,
    model::{DeviceSettings, Tunnel},
    netlink::{LinkReport, link_reports},
    observed::{Link, Snapshot},
    report::LinkInfo,
};

/// Those of all tunnels, by name, read now.
///
/// # Errors
/// When the kernel does not tell.
pub async fn read(world: &World) -> Result<Vec<LinkInfo>, Refusal> {
    let snapshot = world.snapshot();
    let reports = link_reports().await.map_err(kernel)?;
    let devices = dataplane::devices(&world.desired, &snapshot);
    let is_shown = |name: &str| devices.contains_key(name) || world.kernels.contains_key(name);
    let named = |ifindex: u32| snapshot.links.get(&ifindex).map(|link| link.name.clone());
    let mut links: Vec<_> = reports
        .into_iter()
        .filter(|report| is_shown(&report.info.name))
        .map(|LinkReport { info, master }| LinkInfo {
            master: master.and_then(named),
            underlay_down: is_underlay_down(world, &snapshot, &info.name),
            ..info
        })
        .collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}

fn is_underlay_down(world: &World, snapshot: &Snapshot, tunnel: &str) -> bool {
    let dev = world.tunnel(tunnel).and_then(|tunnel| tunnel.dev.as_deref());
    let underlay = dev.and_then(|dev| snapshot.links.values().find(|link| link.name == dev));
    underlay.is_some_and(|underlay| !underlay.up)
}

impl World {
    /// Sets the device of a tunnel up or down, and its MTU and address.
    ///
    /// # Errors
    /// When there is no tunnel of that name, or a setting cannot be had.
    pub async fn set_link(&mut self, name: &str, settings: DeviceSettings) -> Result<(), Refusal> {
        self.must_be_ours(name, "link set")?;
        let no_such_tunnel = || Refusal::NoSuchTunnel(name.to_owned());
        let tunnel = self.desired.tunnels.get(name).ok_or_else(no_such_tunnel)?;
        if let Some(reason) = impossible(tunnel, settings) {
            return Err(Refusal::Invalid(reason));
        }
        let ifindex = self.device_ifindex(&self.snapshot(), name).ok_or_else(no_such_tunnel)?;
        self.kernel.set_device(ifindex, settings).await.map_err(kernel)?;
        let shows = |snapshot: &Arc<Snapshot>| {
            snapshot.links.get(&ifindex).is_none_or(|link| has(link, settings))
        };
        if timeout(PATIENCE, self.snapshots.wait_for(shows)).await.is_err() {
            warn!(tunnel = name, "the kernel did not report its change within {PATIENCE:?}");
        }
        self.follow().await;
        Ok(())
    }
}

fn impossible(tunnel: &Tunnel, settings: DeviceSettings) -> Option<String> {
    if settings.mac.is_some() && !tunnel.mode.is_ethernet() {
        let mode = tunnel.mode;
        return Some(format!(
            "{} is {mode}, which carries no Ethernet: leave `address` out",
            tunnel.name
        ));
    }
    let mtu = settings.mtu?;
    unfit(&Tunnel { mtu: Some(mtu), ..tunnel.clone() }).map(|unfit| unfit.reason)
}

fn has(link: &Link, settings: DeviceSettings) -> bool {
    settings.up.is_none_or(|up| link.up == up)
        && settings.mtu.is_none_or(|mtu| link.mtu == mtu)
        && settings.mac.is_none_or(|mac| link.mac == Some(mac))
}
