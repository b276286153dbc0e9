//! Takes down what a daemon that has ended left forwarding, without loading anything: an earlier
//! version's maps and programs go as well.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{
    attach,
    control::server,
    dataplane::is_device,
    instance::Instance,
    netlink::{Classes, Kernel, NetlinkError},
    observed::Snapshot,
};

#[derive(Debug, Error)]
pub enum TeardownError {
    #[error(
        "an xgre daemon answers on {0}, and what it forwards is its own: stop it first, by \
         `systemctl stop xgre`"
    )]
    Running(PathBuf),
    #[error("taking the tunnels down: {0}")]
    Kernel(#[from] NetlinkError),
    #[error("removing the pins in {0}: {1}")]
    Pins(PathBuf, io::Error),
}

/// Removes the tunnels' devices, all programs and maps, and the runtime directory. Returns the names of
/// the tunnels; with nothing there, none.
///
/// # Errors
/// [`TeardownError`]; what could not be removed is left, and a second attempt takes it up.
pub async fn teardown(instance: &Instance) -> Result<Vec<String>, TeardownError> {
    if server::answers(&instance.socket) {
        return Err(TeardownError::Running(instance.socket.clone()));
    }
    let kernel = Kernel::connect()?;
    let snapshot = kernel.refresh(&Snapshot::default(), Classes::LINKS).await?;
    let (tunnels, others): (Vec<_>, Vec<_>) = snapshot.links.into_values().partition(is_device);
    for tunnel in &tunnels {
        kernel.delete_link(tunnel.ifindex).await?;
    }
    if instance.pins.exists() {
        others.iter().for_each(|link| attach::remove_filters(&link.name));
        attach::remove_pins(&instance.pins)
            .map_err(|error| TeardownError::Pins(instance.pins.clone(), error))?;
    }
    instance.remove();
    Ok(tunnels.into_iter().map(|tunnel| tunnel.name).collect())
}
