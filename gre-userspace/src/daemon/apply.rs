//! Makes tunnels and ports as a config file says: all of it, or nothing.

use tracing::{info, warn};

use crate::{
    dataplane,
    instance::Instance,
    model::{Desired, Tunnel},
    observed::is_link_local,
    plan::{Ports, Step, plan},
    reconcile,
};

use super::{
    change::taken_over,
    check,
    handle::Refusal,
    tunnels::{device_named, kernel},
    world::World,
};

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Now,
    /// Only says what would be done.
    Never,
}

impl World {
    /// Takes the steps that lead to `wanted`, and returns them.
    ///
    /// # Errors
    /// When it cannot be had; then what had been done is undone.
    pub async fn apply(
        &mut self,
        wanted: Desired,
        instance: &Instance,
        when: When,
    ) -> Result<Vec<Step>, Refusal> {
        check::can_be(&wanted, instance, &self.snapshot())
            .map_err(|error| Refusal::Invalid(format!("{error:#}")))?;
        let steps = plan(&self.desired, &wanted)
            .map_err(|impossible| Refusal::Invalid(impossible.to_string()))?;
        if when == When::Never {
            return Ok(steps);
        }
        for (done, step) in steps.iter().enumerate() {
            if let Err(refusal) = self.take(step).await {
                for step in steps[..done].iter().rev() {
                    self.take_back(step).await;
                }
                return Err(refusal);
            }
        }
        Ok(steps)
    }

    async fn take(&mut self, step: &Step) -> Result<(), Refusal> {
        self.service.alive();
        match step {
            Step::Ports { old, new } => self.change_ports(old, new).await,
            Step::Group { new, .. } => self.let_group(new.clone()).map_err(Refusal::Invalid),
            Step::Adopt { new, .. } => {
                self.desired.adopt = new.clone();
                self.follow().await;
                Ok(())
            }
            Step::Add(tunnel) => self.add_tunnel(tunnel.clone()).await,
            Step::Change { old, new } => self.reconfigure(old, new).await,
            Step::Delete(tunnel) => self.delete_tunnel(&tunnel.name).await,
        }
    }

    async fn take_back(&mut self, step: &Step) {
        if let Err(refusal) = self.take(&step.inverse()).await {
            warn!("undoing {:?}: {refusal}", step.told());
        }
    }

    async fn change_ports(&mut self, old: &Ports, new: &Ports) -> Result<(), Refusal> {
        let snapshot = self.snapshot();
        self.desired.ports = new.clone();
        let attached = self.attach(&snapshot);
        if attached.is_err() {
            self.desired.ports = old.clone();
            if let Err(error) = self.attach(&snapshot) {
                warn!("{error:#}");
            }
        }
        self.follow().await;
        attached.map_err(|error| Refusal::Kernel(format!("{error:#}")))
    }

    /// Makes a tunnel and its device what the config says now; what users have added to the device
    /// stays.
    async fn reconfigure(&mut self, old: &Tunnel, new: &Tunnel) -> Result<(), Refusal> {
        let changed = self.try_to_reconfigure(old, new).await;
        if changed.is_err()
            && let Err(refusal) = self.try_to_reconfigure(new, old).await
        {
            warn!(tunnel = old.name, "going back to what it was: {refusal}");
        }
        changed
    }

    async fn try_to_reconfigure(&mut self, old: &Tunnel, new: &Tunnel) -> Result<(), Refusal> {
        let snapshot = self.snapshot();
        let link = device_named(&snapshot, &old.name)
            .ok_or_else(|| Refusal::NoSuchTunnel(old.name.clone()))?;
        let default = reconcile::default_mtu(new, &snapshot);
        // Before it would follow the underlay's again.
        if new.mtu.is_some() {
            self.mtus.remove(&new.name);
        }
        self.set_options(link, old, new, taken_over(link.mtu, old, new, default)).await?;
        if new.mtu.is_none() && old.mtu.is_some() {
            self.mtus.insert(new.name.clone(), default);
        }
        for &address in old.addresses.iter().filter(|address| !new.addresses.contains(address)) {
            if let Err(error) = self.kernel.delete_address(link.ifindex, address).await {
                info!("{error}");
            }
        }
        for &address in new.addresses.iter().filter(|address| !old.addresses.contains(address)) {
            self.kernel.add_address(link.ifindex, address).await.map_err(kernel)?;
        }
        if new.up && !old.up {
            self.kernel.set_up(link.ifindex, true).await.map_err(kernel)?;
        }
        for &route in old.routes.iter().filter(|route| !new.routes.contains(route)) {
            if let Err(error) = self.kernel.delete_route(route, link.ifindex).await {
                info!("{error}");
            }
        }
        // One that is down gets them all when it comes up.
        if link.up || new.up && !old.up {
            for &route in new.routes.iter().filter(|route| !old.routes.contains(route)) {
                self.kernel.add_route(route, link.ifindex).await.map_err(kernel)?;
            }
        }
        self.follow().await;
        Ok(())
    }

    /// The tunnels as they would have to be configured to come back as they are: those of commands
    /// with the addresses that their devices have been given.
    pub fn running(&self) -> Vec<Tunnel> {
        let snapshot = self.snapshot();
        let devices = dataplane::devices(&self.desired, &snapshot);
        let as_it_is = |tunnel: &Tunnel| {
            let mut tunnel = tunnel.clone();
            if let Some(device) = devices.get(tunnel.name.as_str()) {
                let link = device.link;
                let given = self.mtus.get(&tunnel.name);
                if given != Some(&link.mtu) {
                    tunnel.mtu = Some(link.mtu);
                }
                if !tunnel.up {
                    let addresses = snapshot.addresses.get(&link.ifindex);
                    let by_hand = addresses.into_iter().flatten();
                    tunnel.addresses =
                        by_hand.filter(|a| !is_link_local(a.local.addr())).copied().collect();
                    tunnel.up = true;
                }
            }
            tunnel
        };
        self.desired.tunnels.values().map(as_it_is).collect()
    }
}
