//! What keeps XDP from encapsulating for a tunnel, in words.

use gre_ebpf_common::next_hop;

use super::{Attachment, Compiler, Device, RESPECTED, TunnelState, hops::no_redirect};
use crate::{model::Tunnel, observed::Rules};

impl Compiler<'_> {
    /// The first thing to mend, if there is any.
    pub(super) fn why_not(
        &self,
        tunnel: &Tunnel,
        device: Device<'_>,
        state: &TunnelState,
    ) -> Option<String> {
        let name = &tunnel.name;
        if let Some(refused) = self.refused.get(name) {
            return Some(refused.clone());
        }
        if !device.link.up {
            return Some(format!("the device is down: `ip link set {name} up`"));
        }
        if let Some(chain) = self.respected(tunnel) {
            return Some(format!(
                "{RESPECTED}{chain} is on the way of its packets: `{}`; where they need none of \
                 its rules, `{}`",
                chain.listing(),
                match device.peer {
                    Some(_) => format!("xgre tunnel change {name} netfilter bypass"),
                    None => format!("xgre adopt {name} netfilter bypass"),
                }
            ));
        }
        // What a bridge forwards is not routed.
        let routed = device.link.bridge_port.is_none();
        if routed && let Some(member) = self.vrf_of(device.link).or_else(|| self.vrf_of_any()) {
            return Some(member.to_string());
        }
        if tunnel.remote.is_unspecified() {
            let no_leg = state.legs.is_empty().then(|| {
                format!(
                    "its remote is any, and no route names one: `ip route add PREFIX via REMOTE dev \
                     {name} onlink`"
                )
            });
            return no_leg.or_else(|| self.rules());
        }
        let remote = tunnel.remote;
        let Some(hop) = state.underlay else {
            let bound = tunnel.dev.as_ref().map(|dev| format!(" out of {dev}")).unwrap_or_default();
            return Some(format!("no route to {remote}{bound}: `ip route get {remote}`"));
        };
        if let Some(other) = self.tunnel_of.get(&hop.ifindex) {
            return Some(if other == name {
                format!("the route to {remote} leads into {name} itself")
            } else {
                format!("it runs inside {other}: the kernel encapsulates it")
            });
        }
        if self.snapshot.in_doubt {
            return Some(
                "changes of the kernel's tables were lost: it routes until they have been read anew".into(),
            );
        }
        if routed && let Some(why) = self.rules() {
            return Some(why);
        }
        let link = self.snapshot.links.get(&hop.ifindex)?;
        let id = self.plane.tunnels.get(&state.id)?.next_hop;
        let record = self.plane.next_hops.get(&id)?;
        if !record.flags.has(next_hop::Flags::RESOLVED) {
            return Some(format!("{} on {} is not resolved yet: `ip neigh`", hop.ip, link.name));
        }
        let attached = |attachment| self.ports.values().any(|port| *port == attachment);
        let native_only = attached(Attachment::Native) && !attached(Attachment::Generic);
        if native_only && !record.flags.has(next_hop::Flags::NATIVE_REDIRECT) {
            return Some(format!(
                "packets cannot be redirected out of {}: {}",
                link.name,
                no_redirect(link)
            ));
        }
        if !attached(Attachment::Native) && !attached(Attachment::Generic) {
            return Some("XDP is off on every port".into());
        }
        None
    }

    /// The rules because of which the kernel routes.
    fn rules(&self) -> Option<String> {
        match (self.snapshot.rules, self.a_vrf()) {
            (Rules::Kernels, _) => None,
            (Rules::Vrfs, Some(vrf)) => Some(format!(
                "the rule of VRF {} is in use: the kernel routes (`ip rule`, l3mdev)",
                vrf.name
            )),
            (Rules::Vrfs, None) => Some(
                "a VRF has left its rule behind: `ip rule del l3mdev`, `ip -6 rule del l3mdev`"
                    .into(),
            ),
            (Rules::Others, _) => {
                Some("policy routing rules are in use: the kernel routes (`ip rule`)".into())
            }
        }
    }
}
