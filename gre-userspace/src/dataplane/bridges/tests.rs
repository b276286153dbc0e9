use gre_ebpf_common::next_hop;

use super::*;
use crate::{
    dataplane::{Allocated, DataPlane, Known, TunnelState, compile},
    model::{Mode, Netfilter, Tunnel},
    observed::{
        FilterFamily, FilterHook, Neighbour, NeighbourState, Route, RouteTarget, Station as Entry,
        Vlan,
    },
    testing::{bridge, desired, filter_chain, link, member, tunnel, veth},
};

const LAN: u32 = 2;
const WAN: u32 = 3;
const DEVICE: u32 = 4;
/// A member without XDP.
const OTHER: u32 = 6;
const BRIDGE: u32 = 10;

/// A host behind each member.
const ON_LAN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const IN_TUNNEL: [u8; 6] = [2, 0, 0, 0, 1, 2];
const ON_OTHER: [u8; 6] = [2, 0, 0, 0, 1, 3];

fn entry(bridge: u32, vlan: u16, mac: [u8; 6], ifindex: u32) -> Entry {
    Entry { bridge, vlan, mac, ifindex, kind: StationKind::Host }
}

/// br0 joins a LAN, a tunnel and something without XDP; the tunnel's underlay is elsewhere.
fn snapshot() -> Snapshot {
    let [device, peer] = veth(DEVICE, "gretap1", "xgre config mode gretap");
    let links = [
        member(link(LAN, "lan"), BRIDGE),
        link(WAN, "wan"),
        member(device, BRIDGE),
        peer,
        member(link(OTHER, "other"), BRIDGE),
        bridge(BRIDGE, "br0"),
    ];
    let target = RouteTarget::Unicast { ifindex: WAN, gateway: None, prefsrc: None, mtu: None };
    let destination = "198.51.100.0/24".parse().unwrap();
    let remote = Neighbour {
        ifindex: WAN,
        ip: [198, 51, 100, 1].into(),
        mac: Some([2, 0, 0, 0, 9, 9]),
        state: NeighbourState::Valid,
    };
    Snapshot {
        links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
        routes: vec![Route { table: 254, destination, tos: 0, metric: 0, target }],
        neighbours: vec![remote],
        stations: vec![
            entry(BRIDGE, 0, ON_LAN, LAN),
            entry(BRIDGE, 0, IN_TUNNEL, DEVICE),
            entry(BRIDGE, 0, ON_OTHER, OTHER),
        ],
        ..Snapshot::default()
    }
}

fn gretap() -> Desired {
    desired([Tunnel { mode: Mode::Gretap, ..tunnel("gretap1") }])
}

fn compiled(snapshot: &Snapshot) -> (DataPlane, TunnelState) {
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let (plane, mut states) =
        compile(&gretap(), snapshot, &ports, &Known::default(), &mut Allocated::default());
    (plane, states.remove("gretap1").unwrap())
}

/// `snapshot()` after a change, compiled, and why the tunnel is not fast then.
fn changed(change: impl FnOnce(&mut Snapshot)) -> (DataPlane, Option<String>) {
    let mut snapshot = snapshot();
    change(&mut snapshot);
    let (plane, state) = compiled(&snapshot);
    (plane, state.why_not)
}

fn of(snapshot: &mut Snapshot, ifindex: u32) -> &mut Link {
    snapshot.links.get_mut(&ifindex).unwrap()
}

fn settings(snapshot: &mut Snapshot) -> &mut Bridge {
    of(snapshot, BRIDGE).bridge.as_mut().unwrap()
}

fn members(plane: &DataPlane) -> Vec<u32> {
    plane.members.keys().copied().collect()
}

/// VLAN, address and member of what is in the forwarding database, in its order.
fn places(plane: &DataPlane) -> Vec<(u16, Mac, u32)> {
    let stations = plane.stations.iter();
    stations.map(|(address, station)| (address.vlan, address.mac, station.member)).collect()
}

fn mac(mac: [u8; 6]) -> Mac {
    Mac::from_bytes(mac)
}

#[test]
fn hosts_behind_a_port_and_behind_a_tunnel_are_forwarded_to() {
    let (plane, state) = compiled(&snapshot());
    assert_eq!(state.why_not, None);
    let member = Member::new(BRIDGE, 0, bridge::Flags::default(), 30_000);
    assert_eq!(plane.members, [(LAN, member), (DEVICE, member)].into());

    let at = |mac| plane.stations[&Address::new(BRIDGE, 0, Mac::from_bytes(mac))];
    let next_hop = at(ON_LAN).next_hop;
    assert_eq!(at(ON_LAN), Station::behind_port(LAN, next_hop, false));
    let hop = &plane.next_hops[&next_hop];
    assert_eq!((hop.ifindex, hop.mtu, hop.ethernet), (LAN, 1500, [0; 3]));
    assert!(hop.flags.has(next_hop::Flags::RESOLVED));
    assert!(hop.flags.has(next_hop::Flags::NATIVE_REDIRECT));
    assert!(plane.tx_ports.contains(&LAN));

    let device = plane.tunnels[&state.id].device;
    assert_eq!(at(IN_TUNNEL), Station::behind_tunnel(DEVICE, state.id, device, false));
    assert_eq!(plane.stations.len(), 2, "what is behind another member is the kernel's");
}

#[test]
fn a_port_of_a_bridge_is_not_routed_by_its_own_address() {
    let (plane, _) = compiled(&snapshot());
    let lan = plane.ports[&LAN];
    assert_eq!(lan.mac, Mac::default());
    assert!(lan.flags.has(port::Flags::VALID) && lan.flags.has(port::Flags::BRIDGED));
    for flag in [port::Flags::FORWARDING, port::Flags::FORWARDING6] {
        assert!(!lan.flags.has(flag) && plane.ports[&WAN].flags.has(flag));
    }
    assert!(!plane.ports[&WAN].flags.has(port::Flags::BRIDGED));
    let device = plane.ports[&DEVICE];
    assert_eq!(device, port::Port::device_of(device.tunnel(), DEVICE));

    let (blocked, _) = changed(|s| of(s, LAN).bridge_port.as_mut().unwrap().forwarding = false);
    let lan = blocked.ports[&LAN];
    assert_eq!(lan.mac, Mac::default(), "nor is one that the bridge blocks");
    assert!(!lan.flags.has(port::Flags::BRIDGED) && !lan.flags.has(port::Flags::FORWARDING));
}

#[test]
fn what_makes_all_frames_the_kernels_is_told() {
    type Change = fn(&mut Snapshot);
    let changes: [(Change, &str); 6] = [
        (|s| of(s, BRIDGE).up = false, "bridge br0 is down: `ip link set br0 up`"),
        (|s| settings(s).ageing_time = 0, "bridge br0 does not remember addresses"),
        (|s| settings(s).netfilter = true, "iptables sees the frames of bridge br0"),
        (
            |s| s.filters = vec![filter_chain(FilterFamily::Bridge, FilterHook::Forward)],
            "netfilter is respected: chain c of table bridge t (forward, 1 rule)",
        ),
        (|s| settings(s).multiple_spanning_trees = true, "bridge br0 has a spanning tree for each"),
        (
            |s| (settings(s).vlan_filtering, settings(s).vlan_protocol) = (true, 0x88a8),
            "bridge br0 filters VLANs by tags other than 802.1Q's",
        ),
    ];
    for (change, why) in changes {
        let (plane, why_not) = changed(change);
        assert!(why_not.as_ref().is_some_and(|told| told.starts_with(why)), "{why}: {why_not:?}");
        assert_eq!((members(&plane), places(&plane)), (vec![], vec![]), "{why}");
        assert!(!plane.ports[&LAN].flags.has(port::Flags::BRIDGED), "{why}");
    }
    let (plane, _) = changed(|s| settings(s).vlan_protocol = 0x88a8);
    assert_eq!(members(&plane), [LAN, DEVICE], "without filtering no tags count");
}

#[test]
fn what_makes_a_members_frames_the_kernels_is_told() {
    type Change = fn(&mut Link);
    let changes: [(Change, &str); 4] = [
        (|link| link.up = false, "is down: `ip link set"),
        (|link| link.bridge_port.as_mut().unwrap().forwarding = false, "spanning tree blocks"),
        (|link| link.bridge_port.as_mut().unwrap().learning = false, "does not learn on"),
        (|link| link.bridge_port.as_mut().unwrap().special = Some("isolated"), "`isolated`"),
    ];
    for (change, why) in changes {
        for (ifindex, host, left) in [(LAN, IN_TUNNEL, DEVICE), (DEVICE, ON_LAN, LAN)] {
            let (plane, why_not) = changed(|s| change(of(s, ifindex)));
            assert_eq!(members(&plane), [left], "{why}");
            assert_eq!(places(&plane), [(0, mac(host), left)], "{why}");
            // What the device lacks is told first.
            let told = why_not.expect(why);
            assert!(told.contains(why) || told.contains("the device is down"), "{told}");
        }
    }
}

#[test]
fn a_vlan_device_on_a_member_gets_its_frames_first() {
    let (plane, why_not) = changed(|s| {
        let vlan = Some(Vlan { id: 7, protocol: 0x8100 });
        s.links.insert(20, Link { vlan, link: Some(LAN), ..link(20, "lan.7") });
    });
    assert_eq!(members(&plane), [DEVICE]);
    assert_eq!(why_not.as_deref(), Some("lan.7 takes frames of lan before the bridge"));
}

#[test]
fn a_vlan_device_is_no_member_to_forward_for() {
    let vlan = Some(Vlan { id: 7, protocol: 0x8100 });
    let (plane, _) = changed(|s| (of(s, LAN).vlan, of(s, LAN).link) = (vlan, Some(WAN)));
    assert_eq!(members(&plane), [DEVICE]);
}

#[test]
fn without_xdp_a_port_is_a_member_that_tc_looks_at() {
    let compiled = |attachment| {
        let ports = [(LAN, attachment), (WAN, Attachment::Native)].into();
        compile(&gretap(), &snapshot(), &ports, &Known::default(), &mut Allocated::default())
    };
    assert_eq!(members(&compiled(Attachment::Generic).0), [LAN, DEVICE]);
    let (plane, states) = compiled(Attachment::Off);
    assert_eq!(members(&plane), [LAN, DEVICE]);
    assert_eq!(places(&plane), [(0, mac(IN_TUNNEL), DEVICE)], "XDP sends nothing to it");
    assert_eq!(
        states["gretap1"].why_not.as_deref(),
        Some("XDP does not run on lan: `xgre port show`")
    );
}

#[test]
fn a_bridge_without_a_tunnel_of_ethernet_is_the_kernels() {
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let tunnels = desired([tunnel("gretap1")]);
    let (plane, _) =
        compile(&tunnels, &snapshot(), &ports, &Known::default(), &mut Allocated::default());
    assert_eq!((members(&plane), places(&plane)), (vec![], vec![]), "IP tunnels carry no frames");

    let (plane, why_not) = changed(|s| {
        (of(s, DEVICE).master, of(s, DEVICE).bridge_port) = (None, None);
    });
    assert_eq!((members(&plane), why_not), (vec![], None));
}

#[test]
fn a_tunnel_alone_in_its_bridge_is_told_so() {
    let (_, why_not) = changed(|s| s.links.retain(|&ifindex, _| ![LAN, OTHER].contains(&ifindex)));
    assert_eq!(
        why_not.as_deref(),
        Some("bridge br0 has no other member: `ip link set DEV master br0`")
    );
}

#[test]
fn only_addresses_of_hosts_are_forwarded_to() {
    for kind in [StationKind::Own, StationKind::Locked] {
        let (plane, _) = changed(|s| s.stations[0].kind = kind);
        assert_eq!(places(&plane), [(0, mac(IN_TUNNEL), DEVICE)], "{kind:?}");
    }
    let (plane, _) = changed(|s| s.stations[0].mac = [1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(places(&plane), [(0, mac(IN_TUNNEL), DEVICE)], "a group's");
}

#[test]
fn an_address_that_moves_is_then_elsewhere_alone() {
    let (plane, _) = changed(|s| s.stations[0].ifindex = DEVICE);
    assert_eq!(places(&plane), [(0, mac(ON_LAN), DEVICE), (0, mac(IN_TUNNEL), DEVICE)]);
    let (plane, _) = changed(|s| s.stations[0].ifindex = OTHER);
    assert_eq!(places(&plane), [(0, mac(IN_TUNNEL), DEVICE)]);
}

#[test]
fn two_bridges_have_addresses_of_their_own() {
    const LAN2: u32 = 7;
    let two = |s: &mut Snapshot| {
        s.links.insert(11, bridge(11, "br1"));
        s.links.insert(LAN2, member(link(LAN2, "lan2"), 11));
        // Behind a member that has since joined the other bridge.
        s.stations.push(entry(11, 0, ON_LAN, LAN));
        s.stations.push(entry(11, 0, ON_LAN, LAN2));
    };
    let (plane, _) = changed(two);
    assert_eq!(members(&plane), [LAN, DEVICE], "only one has a tunnel");
    assert_eq!(places(&plane), [(0, mac(ON_LAN), LAN), (0, mac(IN_TUNNEL), DEVICE)]);

    let mut snapshot = snapshot();
    two(&mut snapshot);
    let [device, peer] = veth(12, "gretap2", "xgre config mode gretap");
    snapshot.links.extend([(12, member(device, 11)), (13, peer)]);
    let of_ethernet = |name, key| Tunnel { mode: Mode::Gretap, ikey: key, ..tunnel(name) };
    let tunnels = desired([of_ethernet("gretap1", None), of_ethernet("gretap2", Some(2))]);
    let ports = [LAN, WAN, LAN2].map(|port| (port, Attachment::Native)).into();
    let (plane, _) =
        compile(&tunnels, &snapshot, &ports, &Known::default(), &mut Allocated::default());
    assert_eq!(members(&plane), [LAN, DEVICE, LAN2, 12]);
    let bridges: Vec<_> = plane.members.values().map(|member| member.bridge).collect();
    assert_eq!(bridges, [BRIDGE, BRIDGE, 11, 11]);
    let at = |bridge| plane.stations[&Address::new(bridge, 0, mac(ON_LAN))].member;
    assert_eq!([at(BRIDGE), at(11)], [LAN, LAN2]);
}

const fn range(first: u16, last: u16, pvid: bool, untagged: bool) -> VlanRange {
    VlanRange { first, last, pvid, untagged, forwarding: true }
}

/// VLANs 1, untagged and for untagged frames, and 5 to 9, with tags.
fn filtering(snapshot: &mut Snapshot) {
    settings(snapshot).vlan_filtering = true;
    let vlans = vec![range(1, 1, true, true), range(5, 9, false, false)];
    snapshot.bridge_vlans = [(LAN, vlans.clone()), (DEVICE, vlans)].into();
    for vlan in [1, 4, 5, 9, 10] {
        snapshot.stations.push(entry(BRIDGE, vlan, ON_LAN, LAN));
    }
}

#[test]
fn with_filtering_each_vlan_of_a_member_has_addresses_of_its_own() {
    let (plane, why_not) = changed(filtering);
    assert_eq!(why_not, None);
    let record = Member::new(BRIDGE, 1, bridge::Flags::FILTERS_VLANS, 30_000);
    assert_eq!(plane.members, [(LAN, record), (DEVICE, record)].into());
    assert_eq!(places(&plane), [1, 5, 9].map(|vlan| (vlan, mac(ON_LAN), LAN)));
    let untagged = |vlan| plane.stations[&Address::new(BRIDGE, vlan, mac(ON_LAN))].untagged;
    assert_eq!([1, 5, 9].map(untagged), [1, 0, 0]);

    let (plane, _) = changed(|s| {
        filtering(s);
        settings(s).vlan_filtering = false;
    });
    assert_eq!(places(&plane), [(0, mac(ON_LAN), LAN), (0, mac(IN_TUNNEL), DEVICE)]);
    assert_eq!(plane.members[&LAN].pvid, 0, "without filtering there is none");
}

#[test]
fn a_member_without_vlans_has_none() {
    let (plane, _) = changed(|s| {
        filtering(s);
        s.bridge_vlans.remove(&LAN);
    });
    assert_eq!((plane.members[&LAN].pvid, places(&plane)), (0, vec![]));
}

#[test]
fn a_vlan_that_is_blocked_is_as_if_the_member_were_not_in_it() {
    let (plane, _) = changed(|s| {
        filtering(s);
        s.bridge_vlans.get_mut(&LAN).unwrap()[0].forwarding = false;
    });
    assert_eq!(plane.members[&LAN].pvid, 0);
    assert_eq!(places(&plane), [5, 9].map(|vlan| (vlan, mac(ON_LAN), LAN)));
}

#[test]
fn the_kernel_sees_an_address_often_enough_to_remember_it() {
    for (ageing_time, expected) in [
        (300_000, 30_000),
        (1_000_000_000, 30_000),
        (100_000, 10_000),
        (10_000, 1000),
        (3000, 1000),
        (1500, 500),
        (10, 3),
        (1, 1),
    ] {
        let (plane, _) = changed(|s| settings(s).ageing_time = ageing_time);
        assert_eq!(plane.members[&LAN].refresh, expected, "{ageing_time} ms");
    }
}

#[test]
fn each_port_keeps_its_next_hop() {
    let mut allocated = Allocated::default();
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let mut hop = |snapshot: &Snapshot| {
        let (plane, _) = compile(&gretap(), snapshot, &ports, &Known::default(), &mut allocated);
        plane.stations[&Address::new(BRIDGE, 0, mac(ON_LAN))].next_hop
    };
    let first = hop(&snapshot());
    let mut more = snapshot();
    more.routes.clear();
    more.neighbours.clear();
    more.stations.push(entry(BRIDGE, 0, [2, 0, 0, 0, 1, 9], LAN));
    assert_eq!(hop(&more), first);
}

#[test]
fn a_tunnel_that_bypasses_netfilter_is_bridged_past_its_rules() {
    let bypassing =
        Tunnel { netfilter: Netfilter::Bypass, mode: Mode::Gretap, ..tunnel("gretap1") };
    let mut filtered = snapshot();
    filtered.filters = vec![filter_chain(FilterFamily::Bridge, FilterHook::Forward)];
    settings(&mut filtered).netfilter = true;
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let desired = desired([bypassing]);
    let (plane, states) =
        compile(&desired, &filtered, &ports, &Known::default(), &mut Allocated::default());
    assert_eq!(states["gretap1"].why_not, None);
    assert_eq!(members(&plane), [LAN, DEVICE]);
}
