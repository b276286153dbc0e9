//! Changes tunnels in place: the device stays, with its addresses, its routes and its counters.

use std::sync::Arc;

use gre_ebpf_common::sequence::Sequence;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    model::Tunnel,
    observed::{Link, Snapshot},
};

use super::{
    alias,
    handle::Refusal,
    tunnels::{PATIENCE, clash, kernel},
    world::World,
};

impl World {
    /// Gives the tunnel `name` the options of `new`.
    ///
    /// # Errors
    /// When they cannot be had; then the tunnel is as it was.
    pub async fn change_tunnel(&mut self, name: &str, new: Tunnel) -> Result<(), Refusal> {
        self.must_be_ours(name, "tunnel change")?;
        let no_such_tunnel = || Refusal::NoSuchTunnel(name.to_owned());
        let old = self.desired.tunnels.get(name).cloned().ok_or_else(no_such_tunnel)?;
        let tunnel = changed(&old, new)?;
        if let Some(refusal) = clash(&tunnel, self.desired.tunnels.values()) {
            return Err(refusal);
        }
        let snapshot = self.snapshot();
        let link = self
            .device_ifindex(&snapshot, name)
            .and_then(|ifindex| snapshot.links.get(&ifindex))
            .ok_or_else(no_such_tunnel)?;

        let mtu = adjusted(link.mtu, &old, &tunnel);
        self.set_options(link, &old, &tunnel, mtu).await?;
        info!(tunnel = name, "changed");
        Ok(())
    }

    /// Makes the tunnel `new` of `old`, and its device's MTU `mtu` bytes.
    pub(super) async fn set_options(
        &mut self,
        link: &Link,
        old: &Tunnel,
        new: &Tunnel,
        mtu: u32,
    ) -> Result<(), Refusal> {
        if mtu != link.mtu {
            self.kernel.set_mtu(link.ifindex, mtu).await.map_err(kernel)?;
        }
        let alias = alias::of(new);
        if let Err(error) = self.kernel.set_alias(link.ifindex, &alias).await {
            if mtu != link.mtu
                && let Err(error) = self.kernel.set_mtu(link.ifindex, link.mtu).await
            {
                warn!("{error}");
            }
            return Err(kernel(error));
        }
        self.finish_packets(link.ifindex, new).await?;
        // A device that followed the underlay's MTU goes on to.
        if let Some(given) = self.mtus.get_mut(&old.name).filter(|given| **given == link.mtu) {
            *given = mtu;
        }
        self.desired.tunnels.insert(new.name.clone(), new.clone());
        // The next change starts from this one's MTU, which was set before the alias.
        let shows = |snapshot: &Arc<Snapshot>| {
            let link = snapshot.links.get(&link.ifindex);
            link.is_none_or(|link| link.alias.as_ref() == Some(&alias))
        };
        if timeout(PATIENCE, self.snapshots.wait_for(shows)).await.is_err() {
            warn!(tunnel = new.name, "the kernel did not report its change within {PATIENCE:?}");
        }
        self.follow().await;
        Ok(())
    }

    /// Starts the sequence numbers of a tunnel anew in both directions.
    ///
    /// # Errors
    /// When there is no tunnel of that name, or it has none.
    pub fn reset_sequence(&mut self, name: &str) -> Result<(), Refusal> {
        self.must_be_ours(name, "tunnel change")?;
        match self.desired.tunnels.get(name) {
            None => Err(Refusal::NoSuchTunnel(name.to_owned())),
            Some(tunnel) if !tunnel.iseq && !tunnel.oseq => Err(Refusal::Invalid(format!(
                "{name} has no sequence numbers; `xgre tunnel change {name} seq` turns them on"
            ))),
            Some(_) => {
                if let Some(state) = self.states.get(name) {
                    for &id in state.legs.values().chain([&state.id]) {
                        self.maps.sequences.store(id, &Sequence::default());
                    }
                }
                info!(tunnel = name, "sequence numbers start anew");
                Ok(())
            }
        }
    }
}

/// `old` with the options of `new`, where that is possible.
fn changed(old: &Tunnel, new: Tunnel) -> Result<Tunnel, Refusal> {
    let refused = |reason: String| Err(Refusal::Invalid(reason));
    if new.name != old.name {
        return refused(format!(
            "a tunnel keeps its name: delete {} and add {}",
            old.name, new.name
        ));
    }
    if new.mode != old.mode {
        return refused(format!(
            "a tunnel keeps its mode: delete {0}, which is {1}, and add it as {2}",
            old.name, old.mode, new.mode
        ));
    }
    if new.mtu.is_some() || !new.addresses.is_empty() || !new.routes.is_empty() {
        return refused(format!(
            "MTU, addresses and routes are the device's: `ip link set {0} mtu N`, \
             `ip address add A dev {0}`, `ip route add R dev {0}`",
            old.name
        ));
    }
    Ok(Tunnel {
        mtu: old.mtu.map(|mtu| adjusted(mtu, old, &new)),
        addresses: old.addresses.clone(),
        routes: old.routes.clone(),
        up: old.up,
        ..new
    })
}

/// The device's MTU after the change, in bytes: what encapsulation adds more or less goes off it or
/// comes back, as in the kernel (ipgre_link_update).
fn adjusted(mtu: u32, old: &Tunnel, new: &Tunnel) -> u32 {
    // IPv6 inside needs as much.
    let smallest = if new.mode.is_over_ipv6() { 1280 } else { 68 };
    let adjusted = (mtu + old.overhead()).saturating_sub(new.overhead());
    adjusted.max(smallest.min(mtu))
}

/// The MTU, in bytes, of a device that an earlier daemon left as `old` and that is `new` now; what
/// users have set otherwise stays, unless the configured MTU is another. `default` is that of `new`.
pub(super) fn taken_over(mtu: u32, old: &Tunnel, new: &Tunnel, default: u32) -> u32 {
    match (old.mtu, new.mtu) {
        (None, None) => adjusted(mtu, old, new),
        (Some(before), Some(now)) if before == now => mtu,
        (_, Some(now)) => now,
        (Some(_), None) => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Mode,
        testing::{address, tunnel},
    };

    #[test]
    fn a_change_takes_the_options_and_leaves_what_is_the_devices() {
        let mut old = tunnel("tunnel0");
        old.mtu = Some(1400);
        old.addresses = vec![address("172.16.168.1/30")];
        old.routes = vec!["10.0.0.0/8".parse().unwrap()];
        let mut new = tunnel("tunnel0");
        (new.up, new.ttl, new.okey, new.ocsum) = (false, 9, Some(1), true);
        let expected =
            Tunnel { mtu: Some(1392), ttl: 9, okey: Some(1), ocsum: true, ..old.clone() };
        assert_eq!(changed(&old, new), Ok(expected));
    }

    #[test]
    fn name_mode_and_what_is_the_devices_are_not_changed() {
        let old = tunnel("tunnel0");
        let refusal = |new| changed(&old, new).unwrap_err().to_string();
        assert_eq!(
            refusal(tunnel("tunnel1")),
            "a tunnel keeps its name: delete tunnel0 and add tunnel1"
        );
        assert_eq!(
            refusal(Tunnel { mode: Mode::Ip6gre, ..old.clone() }),
            "a tunnel keeps its mode: delete tunnel0, which is gre, and add it as ip6gre"
        );
        let devices = "MTU, addresses and routes are the device's: `ip link set tunnel0 mtu N`, `ip \
                       address add A dev tunnel0`, `ip route add R dev tunnel0`";
        let prefix = "10.0.0.0/8".parse().unwrap();
        for new in [
            Tunnel { mtu: Some(1400), ..old.clone() },
            Tunnel { addresses: vec![address("10.0.0.1/8")], ..old.clone() },
            Tunnel { routes: vec![prefix], ..old.clone() },
        ] {
            assert_eq!(refusal(new), devices);
        }
    }

    #[test]
    fn a_device_taken_over_gets_the_mtu_of_what_it_is_now() {
        let plain = tunnel("tunnel0");
        let keyed = Tunnel { okey: Some(1), ..plain.clone() };
        let at = |mtu| Tunnel { mtu: Some(mtu), ..keyed.clone() };
        assert_eq!(taken_over(1476, &plain, &keyed, 1472), 1472);
        assert_eq!(taken_over(1414, &plain, &plain, 1476), 1414, "the user's");
        assert_eq!(taken_over(1414, &at(1400), &at(1400), 1472), 1414, "the user's");
        assert_eq!(taken_over(1414, &at(1400), &at(1300), 1472), 1300);
        assert_eq!(taken_over(1476, &plain, &at(1400), 1472), 1400);
        assert_eq!(taken_over(1400, &at(1400), &keyed, 1472), 1472);
    }

    #[test]
    fn the_mtu_follows_the_overhead_down_to_the_smallest() {
        let plain = tunnel("tunnel0");
        let full = Tunnel { okey: Some(1), ocsum: true, oseq: true, ..plain.clone() };
        assert_eq!(adjusted(1476, &plain, &full), 1464);
        assert_eq!(adjusted(1464, &full, &plain), 1476);
        assert_eq!(adjusted(70, &plain, &full), 68);

        let any = Mode::Ip6gre.any();
        let plain = Tunnel::new("tunnel0", Mode::Ip6gre, any, any);
        let limited = Tunnel { encap_limit: Some(4), ..plain.clone() };
        assert_eq!(adjusted(1456, &plain, &limited), 1448);
        assert_eq!(adjusted(1284, &plain, &limited), 1280);
        assert_eq!(
            adjusted(1200, &plain, &limited),
            1200,
            "the user's own, smaller than IPv6 takes"
        );
    }
}
