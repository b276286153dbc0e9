//! Tunnels of the kernel's own, which users have accelerated by command. What they asked for is kept in a
//! file beside the control socket: it outlives the daemon, and goes with a teardown or the next boot, as the
//! devices themselves do.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use nix::net::if_::if_nametoindex;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    dataplane::{self, Device, Kernels},
    files,
    model::{Adoption, Tunnel},
    observed::{Link, Snapshot},
};

use super::{
    handle::Refusal,
    tunnels::{PATIENCE, device_named},
    world::World,
};

/// What commands have asked for, from the first to the last; none where there is no file.
pub(super) fn read(path: &Path) -> Vec<Adoption> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!("{}: {error}: adopting what the config says alone", path.display());
            return Vec::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!("{}: {error}: adopting what the config says alone", path.display());
        Vec::new()
    })
}

impl World {
    /// Adopts a tunnel of the kernel's own, or all of them, or gives it up.
    ///
    /// # Errors
    /// When there is no such tunnel, or what was asked for cannot be kept; then nothing has changed.
    pub async fn adopt(&mut self, adoption: Adoption, file: &Path) -> Result<(), Refusal> {
        if let Some(name) = adoption.name() {
            self.find_kernels(name).await?;
        }
        let (name, netfilter) = (adoption.name().unwrap_or(Adoption::ALL), adoption.netfilter);
        info!(tunnel = name, ?netfilter, "adopting");
        let told = adoption.after(&self.desired.told);
        let text = serde_json::to_vec(&told).map_err(|error| Refusal::Kernel(error.to_string()))?;
        files::replace(file, &text, 0o644).map_err(|error| {
            Refusal::Kernel(format!("cannot write {}: {error}", file.display()))
        })?;
        self.desired.told = told;
        self.follow().await;
        Ok(())
    }

    /// Refuses what is no GRE device of the kernel's.
    async fn find_kernels(&mut self, name: &str) -> Result<(), Refusal> {
        if self.desired.tunnels.contains_key(name) {
            return Err(Refusal::Invalid(format!("{name} is a tunnel of xgre's own already")));
        }
        // One that has just been made may not have been heard of.
        let there = |snapshot: &Arc<Snapshot>| device_named(snapshot, name).is_some();
        if if_nametoindex(name).is_ok() {
            let _ = timeout(PATIENCE, self.snapshots.wait_for(there)).await;
        }
        let snapshot = self.snapshot();
        match device_named(&snapshot, name) {
            None => Err(Refusal::NoSuchTunnel(name.to_owned())),
            Some(Link { tunnel: Some(kernel), .. }) if kernel.is_fallback() => {
                Err(Refusal::Invalid(format!(
                    "{name} is the kernel's own, for packets of no tunnel: there is nothing to forward"
                )))
            }
            Some(Link { tunnel: Some(_), .. }) => Ok(()),
            Some(link) => {
                let kind = link.kind.as_deref().unwrap_or("an interface");
                Err(Refusal::Invalid(format!(
                    "{name} is {kind}, and no GRE tunnel: `xgre adopt` lists those that there are"
                )))
            }
        }
    }

    /// A tunnel of ours or of the kernel's own.
    pub(super) fn tunnel(&self, name: &str) -> Option<&Tunnel> {
        let kernels = || self.kernels.get(name).map(|kernel| &kernel.tunnel);
        self.desired.tunnels.get(name).or_else(kernels)
    }

    /// Their devices, by name.
    pub(super) fn devices<'a>(&self, snapshot: &'a Snapshot) -> BTreeMap<String, Device<'a>> {
        let mut devices = dataplane::devices(&self.desired, snapshot);
        devices.extend(dataplane::devices_of_kernels(&self.kernels, snapshot));
        devices
    }

    /// Refuses to do with a tunnel of the kernel's own what is not xgre's to do: `verb` is of `ip tunnel`.
    pub(super) fn must_be_ours(&self, name: &str, verb: &str) -> Result<(), Refusal> {
        match self.kernels.get(name) {
            Some(Kernels { tunnel, .. }) => {
                let mode = tunnel.mode;
                Err(Refusal::Invalid(format!(
                    "{name} is a {mode} tunnel of the kernel's own: `ip {verb} {name}`, and xgre follows"
                )))
            }
            None => Ok(()),
        }
    }
}
