//! Bridges that tunnels of Ethernet belong to: which frames need not go through the kernel's bridge,
//! because all it would do is send them where their destination is.
//!
//! Where it would do more, or less, there is no entry, and the kernel forwards.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use gre_ebpf_common::{
    bridge::{self, Address, Member, Station},
    port,
    wire::ethernet::Mac,
};

use super::{Attachment, Compiler, devices, kernels};
use crate::{
    model::{Desired, Netfilter, Tunnel},
    observed::{Bridge, Link, Snapshot, StationKind, VlanRange},
};

/// EtherType of 802.1Q.
const VLAN_TAG: u16 = 0x8100;

/// The bridges that the device of a tunnel of Ethernet is a member of, by interface index.
pub fn bridges_of_tunnels(desired: &Desired, snapshot: &Snapshot) -> BTreeSet<u32> {
    let ours = devices(desired, snapshot)
        .into_iter()
        .filter(|(name, _)| desired.tunnels[name].mode.is_ethernet())
        .filter_map(|(_, device)| bridge_of(device.link));
    let kernels = kernels(desired, snapshot);
    let adopted = kernels.values().filter(|k| k.refused.is_none() && k.tunnel.mode.is_ethernet());
    let links = adopted
        .filter_map(|kernel| snapshot.links.values().find(|link| link.name == kernel.tunnel.name));
    ours.chain(links.filter_map(bridge_of)).collect()
}

fn bridge_of(link: &Link) -> Option<u32> {
    link.bridge_port.and(link.master)
}

/// A member whose frames are forwarded here.
struct Forwarding<'a> {
    bridge: u32,
    way: Way,
    /// Where the bridge filters by them.
    vlans: Option<&'a [VlanRange]>,
}

/// How frames leave a member.
#[derive(Clone, Copy)]
enum Way {
    Port { next_hop: u32 },
    Tunnel { id: u32, device: u32 },
}

impl<'a> Compiler<'a> {
    /// After ports and tunnels.
    pub(super) fn bridges(&mut self, desired: &Desired) {
        let snapshot = self.snapshot;
        let mut forwarding = BTreeMap::new();
        let bridges: BTreeSet<u32> = self
            .devices
            .iter()
            .filter(|(name, _)| self.is_accelerated_ethernet(desired, name))
            .filter_map(|(_, device)| bridge_of(device.link))
            .collect();
        for ifindex in bridges {
            let Some(link) = snapshot.links.get(&ifindex) else { continue };
            let Some(bridge) = &link.bridge else { continue };
            let (mut ready, mut obstacles) = (Vec::new(), BTreeMap::new());
            let of_it = |link: &&Link| link.master == Some(ifindex);
            for member in snapshot.links.values().filter(of_it) {
                let obstacle = self.bridge_obstacle(desired, link, bridge);
                if let Some(obstacle) = obstacle.or_else(|| self.member_obstacle(desired, member)) {
                    obstacles.insert(member.ifindex, obstacle);
                    continue;
                }
                // TC asks for the way of its frames, of those that are too long.
                let member_of = self.member(desired, ifindex, bridge, member);
                match self.without_xdp(member) {
                    Some(obstacle) => _ = obstacles.insert(member.ifindex, obstacle),
                    None => {
                        forwarding.insert(member.ifindex, member_of);
                        ready.push(member);
                    }
                }
            }
            self.explain(link, &ready, &obstacles);
        }
        self.stations(&forwarding);
    }

    fn is_accelerated_ethernet(&self, desired: &Desired, name: &str) -> bool {
        let tunnel = desired.tunnels.get(name);
        tunnel.is_some_and(|tunnel| tunnel.mode.is_ethernet()) && !self.refused.contains_key(name)
    }

    /// What makes all frames of a bridge the kernel's, in words.
    fn bridge_obstacle(&self, desired: &Desired, link: &Link, bridge: &Bridge) -> Option<String> {
        let tunnels: Vec<_> = self.tunnels_of_bridge(desired, link.ifindex).collect();
        let respects = tunnels.iter().any(|tunnel| tunnel.netfilter == Netfilter::Respect);
        // Frames between other members would bypass its rules as well.
        let chain = tunnels.into_iter().find_map(|tunnel| self.respected(tunnel));
        bridge_obstacle(link, bridge, respects)
            .or_else(|| chain.map(|chain| format!("{chain} sees the frames of {}", link.name)))
    }

    /// The tunnels of Ethernet whose devices are members of a bridge.
    fn tunnels_of_bridge<'d>(
        &'d self,
        desired: &'d Desired,
        bridge: u32,
    ) -> impl Iterator<Item = &'d Tunnel> {
        desired.tunnels.values().filter(move |tunnel| {
            let master = self.devices.get(&tunnel.name).and_then(|device| device.link.master);
            self.is_accelerated_ethernet(desired, &tunnel.name) && master == Some(bridge)
        })
    }

    /// What makes a member's frames the kernel's, in words.
    fn member_obstacle(&self, desired: &Desired, member: &Link) -> Option<String> {
        let name = &member.name;
        let Some(port) = member.bridge_port else {
            return Some(format!("{name} is not in its bridge yet"));
        };
        if !member.up {
            return Some(format!("{name} is down: `ip link set {name} up`"));
        }
        if !port.forwarding {
            return Some(format!(
                "the bridge's spanning tree blocks {name}: `bridge link show dev {name}`"
            ));
        }
        if !port.learning {
            return Some(format!(
                "the bridge does not learn on {name}: `bridge link set dev {name} learning on`"
            ));
        }
        if let Some(special) = port.special {
            return Some(format!(
                "the kernel's bridge has more to do for {name}, which has `{special}`: `bridge -d \
                 link show dev {name}`"
            ));
        }
        let mut vlans = self.snapshot.links.values().filter(|link| link.vlan.is_some());
        if let Some(vlan) = vlans.find(|vlan| vlan.link == Some(member.ifindex)) {
            return Some(format!("{} takes frames of {name} before the bridge", vlan.name));
        }
        let is_port = member.vlan.is_none() && self.ports.contains_key(&member.ifindex);
        let is_ours = is_port || self.ethernet_tunnel(desired, member.ifindex).is_some();
        (!is_ours).then(|| without_xdp(name))
    }

    /// What makes a member's frames TC's, in words.
    fn without_xdp(&self, member: &Link) -> Option<String> {
        let is_off = self.ports.get(&member.ifindex) == Some(&Attachment::Off);
        is_off.then(|| without_xdp(&member.name))
    }

    /// The id of the tunnel of Ethernet whose device this is.
    fn ethernet_tunnel(&self, desired: &Desired, ifindex: u32) -> Option<u32> {
        let name = self.tunnel_of.get(&ifindex)?;
        let state = self.states.get(name)?;
        self.is_accelerated_ethernet(desired, name).then_some(state.id)
    }

    /// Makes the record of a member.
    fn member(
        &mut self,
        desired: &Desired,
        ifindex: u32,
        bridge: &Bridge,
        member: &Link,
    ) -> Forwarding<'a> {
        let way = match self.ethernet_tunnel(desired, member.ifindex) {
            Some(id) => Way::Tunnel { id, device: self.plane.tunnels[&id].device },
            None => Way::Port { next_hop: self.port_hop(member) },
        };
        if let (Way::Port { .. }, Some(port)) = (way, self.plane.ports.get_mut(&member.ifindex)) {
            port.flags = port.flags.with(port::Flags::BRIDGED, true);
        }
        let vlans = bridge.vlan_filtering.then(|| {
            self.snapshot.bridge_vlans.get(&member.ifindex).map_or(&[][..], Vec::as_slice)
        });
        let (flags, pvid) = match vlans {
            Some(vlans) => {
                let pvid = vlans.iter().find(|range| range.pvid && range.forwarding);
                (bridge::Flags::FILTERS_VLANS, pvid.map_or(0, |range| range.first))
            }
            None => (bridge::Flags::default(), 0),
        };
        let record = Member::new(ifindex, pvid, flags, refresh(bridge.ageing_time));
        self.plane.members.insert(member.ifindex, record);
        Forwarding { bridge: ifindex, way, vlans }
    }

    /// The addresses of hosts behind those members.
    fn stations(&mut self, forwarding: &BTreeMap<u32, Forwarding<'_>>) {
        for station in &self.snapshot.stations {
            let Some(member) = forwarding.get(&station.ifindex) else { continue };
            let mac = Mac::from_bytes(station.mac);
            let is_hosts = station.kind == StationKind::Host && !mac.is_group();
            if !is_hosts || station.bridge != member.bridge {
                continue;
            }
            let untagged = match member.vlans {
                None if station.vlan == 0 => false,
                Some(vlans) => match vlan(vlans, station.vlan) {
                    Some(range) => range.untagged,
                    None => continue,
                },
                None => continue,
            };
            let place = match member.way {
                Way::Port { next_hop } => Station::behind_port(station.ifindex, next_hop, untagged),
                Way::Tunnel { id, device } => {
                    Station::behind_tunnel(station.ifindex, id, device, untagged)
                }
            };
            let address = Address::new(station.bridge, station.vlan, mac);
            self.plane.stations.insert(address, place);
        }
    }

    /// Tells tunnels that nothing else keeps slow what the bridge does to their frames.
    fn explain(&mut self, bridge: &Link, ready: &[&Link], obstacles: &BTreeMap<u32, String>) {
        let alone = |ifindex: u32| {
            let is_alone = !ready.iter().any(|member| member.ifindex != ifindex);
            let other = obstacles.iter().find(|(other, _)| **other != ifindex);
            is_alone.then(|| match other {
                Some((_, obstacle)) => obstacle.clone(),
                None => format!(
                    "bridge {0} has no other member: `ip link set DEV master {0}`",
                    bridge.name
                ),
            })
        };
        for (&ifindex, name) in &self.tunnel_of {
            let is_member = self
                .snapshot
                .links
                .get(&ifindex)
                .is_some_and(|link| link.master == Some(bridge.ifindex));
            let Some(state) = self.states.get_mut(name).filter(|_| is_member) else { continue };
            if state.why_not.is_none() {
                state.why_not = obstacles.get(&ifindex).cloned().or_else(|| alone(ifindex));
            }
        }
    }
}

fn without_xdp(name: &str) -> String {
    format!("XDP does not run on {name}: `xgre port show`")
}

/// What makes all frames of a bridge the kernel's, in words. `respects` says that one of its tunnels
/// respects netfilter.
fn bridge_obstacle(link: &Link, bridge: &Bridge, respects: bool) -> Option<String> {
    let name = &link.name;
    if !link.up {
        return Some(format!("bridge {name} is down: `ip link set {name} up`"));
    }
    if bridge.ageing_time == 0 {
        return Some(format!(
            "bridge {name} does not remember addresses: `ip link set {name} type bridge ageing_time \
             30000`"
        ));
    }
    if bridge.netfilter && respects {
        return Some(format!(
            "iptables sees the frames of bridge {name}: `sysctl -w \
             net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0`"
        ));
    }
    if bridge.multiple_spanning_trees {
        return Some(format!("bridge {name} has a spanning tree for each VLAN (mst_enable)"));
    }
    (bridge.vlan_filtering && bridge.vlan_protocol != VLAN_TAG)
        .then(|| format!("bridge {name} filters VLANs by tags other than 802.1Q's"))
}

/// The VLAN among a member's, if it may be forwarded there.
fn vlan(vlans: &[VlanRange], vlan: u16) -> Option<&VlanRange> {
    vlans.iter().find(|range| range.forwarding && (range.first..=range.last).contains(&vlan))
}

/// After how many milliseconds the kernel must see a frame of an address again that it forgets after
/// `ageing_time` milliseconds: often enough, and rarely where that is long.
fn refresh(ageing_time: u64) -> u32 {
    (ageing_time / 10).clamp(1000, 30_000).min(ageing_time / 3).max(1) as u32
}
