//! Gathers the facts: the only file of the doctor, with those below it, that asks the kernel and the
//! daemon.

mod ethtool;
mod machine;
mod programs;

use std::collections::BTreeMap;

use nix::libc::EPERM;

use super::{DaemonFacts, DeviceFacts, Facts};
use crate::{
    control::client::{Client, ClientError},
    instance::Instance,
    loader,
    model::Desired,
    netlink::{Kernel, NetlinkError},
    observed::Snapshot,
    reconcile,
};

/// Everything about the network namespace that this runs in.
///
/// # Errors
/// When the kernel does not tell its links, addresses or routes.
pub async fn facts(instance: &Instance) -> Result<Facts, NetlinkError> {
    let kernel = Kernel::connect()?;
    let snapshot = kernel.snapshot_without_filters().await?;
    let daemon = daemon(instance).await;
    let loaded = programs::loaded();
    Ok(Facts {
        is_root: nix::unistd::geteuid().is_root(),
        pinned: loader::is_running(&instance.pins),
        kernel: machine::kernel(programs::compiled(&loaded)),
        bpffs: machine::bpffs(instance),
        files: machine::open_files(instance, daemon.is_ok()),
        filters: kernel.filter_chains().await.map_err(|error| unread(&error)),
        devices: devices(&snapshot, daemon.as_ref().ok(), &loaded).await,
        daemon: daemon.map_err(|error| first_line(&error.to_string())),
        snapshot,
    })
}

/// Why the chains of netfilter could not be read.
fn unread(error: &NetlinkError) -> String {
    match error.errno() {
        Some(EPERM) => "only root may read the rules of netfilter".to_owned(),
        _ => error.to_string(),
    }
}

/// Of an error: what comes after it is what to do.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

async fn daemon(instance: &Instance) -> Result<DaemonFacts, ClientError> {
    let mut client = Client::connect(&instance.socket).await?;
    Ok(DaemonFacts {
        tunnels: client.tunnels().await?,
        ports: client.ports().await?,
        stats: client.stats().await?,
    })
}

/// What drivers say of ports and of the devices of tunnels, and what is attached there.
async fn devices(
    snapshot: &Snapshot,
    daemon: Option<&DaemonFacts>,
    loaded: &programs::Loaded,
) -> BTreeMap<u32, DeviceFacts> {
    let ifindices: Vec<u32> = match daemon {
        Some(daemon) => {
            let tunnels = daemon.tunnels.iter().filter_map(|tunnel| tunnel.ifindex);
            daemon.ports.iter().map(|port| port.ifindex).chain(tunnels).collect()
        }
        None => reconcile::ports(&Desired::default(), snapshot).into_keys().collect(),
    };
    let mut devices = BTreeMap::new();
    for ifindex in ifindices {
        let Some(link) = snapshot.links.get(&ifindex) else { continue };
        let mut device = ethtool::device(&link.name);
        device.programs = programs::on(link, loaded).await;
        devices.insert(ifindex, device);
    }
    devices
}
