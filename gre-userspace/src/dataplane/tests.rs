use gre_ebpf_common::{
    demux::Kind,
    next_hop,
    route::{Entry, Slot},
};

use super::*;
use crate::{
    model::{Adopt, Mode, Netfilter, Tunnel},
    observed::{
        FilterChain, FilterFamily, FilterHook, Neighbour, Path, Route, RouteTarget, Rules,
        xdp_features,
    },
    rib::Via,
    testing::{bridge, desired, filter_chain, gre, link, member, tunnel, veth},
};

const LAN: u32 = 2;
const WAN: u32 = 3;
const DEVICE: u32 = 4;
const GATEWAY: &str = "192.0.2.254";

fn route(destination: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    Route {
        table: 254,
        destination: destination.parse().unwrap(),
        tos: 0,
        metric: 0,
        target: RouteTarget::Unicast { ifindex, gateway, prefsrc: None, mtu: None },
    }
}

fn neighbour(ifindex: u32, ip: &str) -> Neighbour {
    let mac = Some([2, 0, 0, 0, 9, 9]);
    Neighbour { ifindex, ip: ip.parse().unwrap(), mac, state: NeighbourState::Valid }
}

/// A gateway with a LAN 10.1.0.0/16, an underlay by way of [`GATEWAY`], and 10.2.0.0/16 in the
/// tunnel.
fn snapshot() -> Snapshot {
    let [device, peer] = veth(DEVICE, "tunnel0", "xgre config mode gre");
    let links = [link(LAN, "lan"), link(WAN, "wan"), device, peer];
    Snapshot {
        links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
        routes: vec![
            route("10.1.0.0/16", LAN, None),
            route("0.0.0.0/0", WAN, Some(GATEWAY)),
            route("10.2.0.0/16", DEVICE, None),
        ],
        neighbours: vec![neighbour(WAN, GATEWAY), neighbour(LAN, "10.1.2.3")],
        ..Snapshot::default()
    }
}

fn compiled(snapshot: &Snapshot) -> (DataPlane, TunnelState) {
    compiled_of(tunnel("tunnel0"), snapshot)
}

fn compiled_of(tunnel: Tunnel, snapshot: &Snapshot) -> (DataPlane, TunnelState) {
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let (plane, mut states) =
        compile(&desired([tunnel]), snapshot, &ports, &Known::default(), &mut Allocated::default());
    let state = states.remove("tunnel0").unwrap();
    (plane, state)
}

fn why_not(change: impl FnOnce(&mut Snapshot)) -> String {
    let mut snapshot = snapshot();
    change(&mut snapshot);
    compiled(&snapshot).1.why_not.expect("it is not accelerated")
}

#[test]
fn routes_lead_into_the_tunnel_to_neighbours_and_to_the_kernel() {
    let (plane, state) = compiled(&snapshot());
    assert_eq!(state.why_not, None);
    let entry = |start: [u8; 4], len| plane.routes[&(u32::from_be_bytes(start), len)];
    assert_eq!(entry([10, 2, 0, 0], 16), Entry::Tunnel(state.id));
    assert_eq!(entry([10, 1, 0, 0], 16), Entry::Punt, "each host is a next hop of its own");
    let Entry::NextHop(host) = entry([10, 1, 2, 3], 32) else { panic!("no host route") };
    let Entry::NextHop(gateway) = entry([0, 0, 0, 0], 0) else { panic!("no default route") };
    assert_eq!(plane.next_hops[&host].ifindex, LAN);
    assert_eq!(plane.next_hops[&gateway].ifindex, WAN);
    assert_eq!(plane.tunnels[&state.id].next_hop, gateway);
    assert_eq!(plane.tx_ports, [LAN, WAN, DEVICE + 1].into());
}

#[test]
fn each_tunnel_is_found_by_its_key_and_by_its_addresses() {
    let (plane, state) = compiled(&snapshot());
    let record = &plane.tunnels[&state.id];
    let (local, remote) = record.addresses4();
    let ends = tunnel::Ends::v4(local, remote);
    let keys = [Kind::KEYLESS, Kind::PAIR].map(|kind| (Key { ends, kind, link: 0 }, state.id));
    assert_eq!(plane.demux, keys.into());
}

/// IP packets cannot go in without a MAC address.
#[test]
fn a_tunnel_of_ethernet_has_keys_of_its_own_and_routes_into_it_are_the_kernels() {
    let gretap = Tunnel { mode: Mode::Gretap, ..tunnel("tunnel0") };
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let mut allocated = Allocated::default();
    let (plane, states) =
        compile(&desired([gretap]), &snapshot(), &ports, &Known::default(), &mut allocated);
    let id = states["tunnel0"].id;
    assert_eq!(plane.routes[&(u32::from_be_bytes([10, 2, 0, 0]), 16)], Entry::Punt);
    assert!(plane.tunnels[&id].flags.has(tunnel::Flags::ETHERNET));
    let (local, remote) = plane.tunnels[&id].addresses4();
    let ends = tunnel::Ends::v4(local, remote);
    let kinds = [Kind::KEYLESS, Kind::PAIR].map(|kind| kind.of_ethernet(true));
    assert_eq!(plane.demux, kinds.map(|kind| (Key { ends, kind, link: 0 }, id)).into());
}

#[test]
fn with_rules_of_the_users_nothing_is_routed_here() {
    let mut snapshot = snapshot();
    snapshot.rules = Rules::Others;
    let (plane, state) = compiled(&snapshot);
    assert_eq!(plane.routes, Prefixes::new());
    assert!(state.why_not.is_some_and(|why| why.contains("ip rule")));
}

/// The kernel would look in the VRF's table.
#[test]
fn with_a_port_or_a_tunnel_in_a_vrf_nothing_is_routed_here_and_the_vrf_is_named() {
    const BLUE: u32 = 20;
    const BRIDGE: u32 = 21;
    let vrf = || Link { kind: Some("vrf".to_owned()), ..link(BLUE, "blue") };
    let in_vrf = |ifindex| {
        let mut snapshot = snapshot();
        snapshot.links.insert(BLUE, vrf());
        snapshot.links.get_mut(&ifindex).unwrap().master = Some(BLUE);
        snapshot
    };
    let mut behind_a_bridge = snapshot();
    let lan = member(behind_a_bridge.links[&LAN].clone(), BRIDGE);
    let br0 = Link { master: Some(BLUE), ..bridge(BRIDGE, "br0") };
    behind_a_bridge.links.extend([lan, br0, vrf()].map(|link| (link.ifindex, link)));

    for (snapshot, name) in [
        (in_vrf(DEVICE), "tunnel0"),
        (in_vrf(WAN), "wan"),
        (in_vrf(LAN), "lan"),
        (behind_a_bridge, "lan"),
    ] {
        // With the rule that the kernel makes for VRFs, and where somebody has taken it away.
        for rules in [Rules::Vrfs, Rules::Kernels] {
            let (plane, state) = compiled(&Snapshot { rules, rules6: rules, ..snapshot.clone() });
            assert_eq!(
                (plane.routes, plane.routes6),
                (Prefixes::new(), Prefixes6::new()),
                "{name}"
            );
            let why = format!("{name} is in VRF blue, whose table xgre does not mirror");
            assert_eq!(state.why_not, Some(why));
        }
    }
}

#[test]
fn the_rule_of_vrfs_leaves_routing_to_the_kernel_and_says_whose_it_is() {
    let of_any = Tunnel { remote: Mode::Gre.any(), ..tunnel("tunnel0") };
    let mut snapshot = snapshot();
    snapshot.routes.push(route("10.2.1.0/24", DEVICE, Some("198.51.100.1")));
    snapshot.rules = Rules::Vrfs;
    let left = "a VRF has left its rule behind: `ip rule del l3mdev`, `ip -6 rule del l3mdev`";
    let (plane, state) = compiled(&snapshot);
    assert_eq!(plane.routes, Prefixes::new());
    assert_eq!(state.why_not.as_deref(), Some(left));
    assert_eq!(compiled_of(of_any, &snapshot).1.why_not.as_deref(), Some(left), "also with legs");

    let blue = Link { kind: Some("vrf".to_owned()), ..link(20, "blue") };
    snapshot.links.insert(20, blue);
    let (plane, state) = compiled(&snapshot);
    assert_eq!(plane.routes, Prefixes::new());
    let in_use = "the rule of VRF blue is in use: the kernel routes (`ip rule`, l3mdev)";
    assert_eq!(state.why_not.as_deref(), Some(in_use));
}

/// Frames that a bridge forwards are not routed, whatever VRF the bridge is in.
#[test]
fn a_bridged_tunnel_is_fast_in_a_vrf() {
    const BRIDGE: u32 = 21;
    let mut snapshot = snapshot();
    for ifindex in [LAN, DEVICE] {
        let joined = member(snapshot.links[&ifindex].clone(), BRIDGE);
        snapshot.links.insert(ifindex, joined);
    }
    let blue = Link { kind: Some("vrf".to_owned()), ..link(20, "blue") };
    let br0 = Link { master: Some(20), ..bridge(BRIDGE, "br0") };
    snapshot.links.extend([blue, br0].map(|link| (link.ifindex, link)));
    snapshot.rules = Rules::Vrfs;
    let gretap = Tunnel { mode: Mode::Gretap, ..tunnel("tunnel0") };
    assert_eq!(compiled_of(gretap, &snapshot).1.why_not, None);
}

#[test]
fn what_keeps_a_tunnel_slow_is_told_with_what_to_do() {
    let down = why_not(|s| s.links.get_mut(&DEVICE).unwrap().up = false);
    assert_eq!(down, "the device is down: `ip link set tunnel0 up`");
    let unreachable = why_not(|s| s.routes.retain(|route| route.destination.prefix_len() > 0));
    assert_eq!(unreachable, "no route to 198.51.100.1: `ip route get 198.51.100.1`");
    let inside = why_not(|s| s.routes.push(route("198.51.100.0/24", DEVICE, None)));
    assert_eq!(inside, "the route to 198.51.100.1 leads into tunnel0 itself");
    let unresolved = why_not(|s| s.neighbours.clear());
    assert_eq!(unresolved, "192.0.2.254 on wan is not resolved yet: `ip neigh`");
    let driver = why_not(|s| s.links.get_mut(&WAN).unwrap().xdp_features = Some(0));
    assert!(driver.starts_with("packets cannot be redirected out of wan"), "{driver}");
}

/// Before Linux 6.3 nothing tells whether the other end of a veth takes redirected frames.
#[test]
fn a_veth_of_which_the_kernel_does_not_tell_is_trusted_where_native_xdp_was_asked_for() {
    let mut snapshot = snapshot();
    for link in snapshot.links.values_mut() {
        (link.kind, link.xdp_features) = (Some("veth".into()), None);
    }
    let wan = &snapshot.links[&WAN];
    assert!(is_unsure(wan) && can_redirect(wan, Some(Attachment::Native)));
    assert!(!can_redirect(wan, Some(Attachment::Generic)) && !can_redirect(wan, None));

    let (plane, state) = compiled(&snapshot);
    let native = |id: u32| plane.next_hops[&id].flags.has(next_hop::Flags::NATIVE_REDIRECT);
    let record = &plane.tunnels[&state.id];
    assert!(native(record.next_hop) && native(record.device));
    assert_eq!(state.why_not, None);
}

#[test]
fn frames_are_sent_out_of_a_bond_only_where_the_kernel_says_that_its_members_can() {
    let bond =
        |xdp_features| Link { kind: Some("bond".to_owned()), xdp_features, ..link(WAN, "bond0") };
    for attachment in [None, Some(Attachment::Native), Some(Attachment::Generic)] {
        assert!(can_redirect(&bond(Some(xdp_features::NDO_XMIT)), attachment));
        assert!(!can_redirect(&bond(Some(0)), attachment));
        assert!(!can_redirect(&bond(None), attachment), "before Linux 6.3");
    }
    assert!(is_of_several(&bond(None)) && !is_of_several(&link(WAN, "wan")));
}

/// As the kernel's NBMA tunnels do; of a neighbour that nobody has made the kernel tells the device's
/// own address.
#[test]
fn t1_a_gateway_or_its_neighbour_entry_names_the_remote_of_a_tunnel_without() {
    let mut snapshot = snapshot();
    let own = snapshot.links[&DEVICE].mac;
    let at = |ip, mac| Neighbour { mac, ..neighbour(DEVICE, ip) };
    snapshot.neighbours.extend([
        at("198.51.100.1", own),
        at("172.16.0.2", Some([2, 0, 198, 51, 100, 2])),
        at("172.16.0.9", Some([2, 0, 198, 51, 100, 9])),
    ]);
    snapshot.routes = vec![
        route("0.0.0.0/0", WAN, Some(GATEWAY)),
        route("172.16.0.0/24", DEVICE, None),
        route("10.2.1.0/24", DEVICE, Some("198.51.100.1")),
        route("10.2.2.0/24", DEVICE, Some("172.16.0.2")),
    ];
    let any = Tunnel { remote: Mode::Gre.any(), ..tunnel("tunnel0") };
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let mut allocated = Allocated::default();
    let (plane, states) =
        compile(&desired([any]), &snapshot, &ports, &Known::default(), &mut allocated);

    let legs = &states["tunnel0"].legs;
    let remote = |last| IpAddr::from([198, 51, 100, last]);
    assert_eq!(legs.keys().copied().collect::<Vec<_>>(), [1, 2, 9].map(remote));
    let entry = |start: [u8; 4], len| plane.routes[&(u32::from_be_bytes(start), len)];
    assert_eq!(entry([10, 2, 1, 0], 24), Entry::Tunnel(legs[&remote(1)]));
    assert_eq!(entry([10, 2, 2, 0], 24), Entry::Tunnel(legs[&remote(2)]));
    assert_eq!(entry([172, 16, 0, 2], 32), Entry::Tunnel(legs[&remote(2)]));
    assert_eq!(entry([172, 16, 0, 9], 32), Entry::Tunnel(legs[&remote(9)]));
}

#[test]
fn state_of_the_kernel_becomes_flags() {
    let mut snapshot = snapshot();
    let device = snapshot.links.get_mut(&DEVICE).unwrap();
    (device.forwarding, device.rp_filter) = (false, 1);
    snapshot.links.get_mut(&LAN).unwrap().rp_filter = 2;
    let (plane, state) = compiled(&snapshot);
    let flags = plane.tunnels[&state.id].flags;
    assert!(flags.has(tunnel::Flags::UP) && !flags.has(tunnel::Flags::FORWARDING));
    assert!(flags.has(tunnel::Flags::REVERSE_PATH_STRICT));
    assert!(plane.ports[&LAN].flags.has(port::Flags::REVERSE_PATH_LOOSE));
    assert!(!plane.ports[&WAN].flags.has(port::Flags::REVERSE_PATH_LOOSE));
}

#[test]
fn while_the_routes_are_in_doubt_the_kernel_routes() {
    let forwards = |plane: &DataPlane, id| {
        let port = plane.ports[&LAN].flags;
        let device = plane.tunnels[&id].flags;
        [
            port.has(port::Flags::FORWARDING),
            port.has(port::Flags::FORWARDING6),
            device.has(tunnel::Flags::FORWARDING),
            device.has(tunnel::Flags::FORWARDING6),
        ]
    };
    let mut snapshot = snapshot();
    let (plane, state) = compiled(&snapshot);
    assert_eq!((forwards(&plane, state.id), state.why_not), ([true; 4], None));
    snapshot.in_doubt = true;
    let (plane, state) = compiled(&snapshot);
    assert_eq!(forwards(&plane, state.id), [false; 4]);
    let why_not = state.why_not.unwrap();
    assert!(why_not.contains("were lost"), "{why_not}");
}

/// 10.3.0.0/16 into the tunnel and by a host of the LAN.
fn multipath(weights: [u16; 2]) -> Route {
    let path = |ifindex, gateway: Option<&str>, weight| Path {
        ifindex,
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        weight,
    };
    let paths = vec![path(DEVICE, None, weights[0]), path(LAN, Some("10.1.2.3"), weights[1])];
    let target = RouteTarget::Multipath { paths, prefsrc: None, mtu: Some(1400) };
    Route { target, ..route("10.3.0.0/16", 0, None) }
}

#[test]
fn a_route_with_several_next_hops_leads_to_a_group_of_them_which_like_routes_share() {
    let mut snapshot = snapshot();
    snapshot.routes.push(multipath([1, 3]));
    let destination = "10.4.0.0/16".parse().unwrap();
    snapshot.routes.push(Route { destination, ..multipath([1, 3]) });
    let destination = "10.5.0.0/16".parse().unwrap();
    snapshot.routes.push(Route { destination, ..multipath([1, 1]) });
    let (plane, state) = compiled(&snapshot);
    let at = |third: u32| plane.routes[&(0x0a00_0000 | third << 16, 16)];
    let Entry::Group(id) = at(3) else { panic!("{:?}", at(3)) };
    assert_eq!(at(4), Entry::Group(id));
    assert_ne!(at(5), Entry::Group(id));
    assert_eq!(plane.groups.len(), 2);

    let group = plane.groups[&id].0;
    let tunnel = Entry::Tunnel(state.id).to_word();
    assert_eq!(group.iter().filter(|&&word| word == tunnel).count(), 16);
    let Slot::Entry(Entry::NextHop(host)) = Slot::from_word(group[63]) else { panic!() };
    assert_eq!(group.iter().filter(|&&word| word == group[63]).count(), 48);
    assert_eq!((plane.next_hops[&host].ifindex, plane.next_hops[&host].mtu), (LAN, 1400));
}

#[test]
fn where_only_the_kernel_can_send_to_any_of_several_next_hops_it_is_asked() {
    let mut snapshot = snapshot();
    let mut route = multipath([1, 1]);
    let RouteTarget::Multipath { paths, .. } = &mut route.target else { panic!() };
    paths.remove(0);
    paths[0].gateway = None;
    snapshot.routes.push(route);
    let (plane, _) = compiled(&snapshot);
    assert_eq!(plane.routes[&(0x0a03_0000, 16)], Entry::Punt, "a host on a link");
    assert!(plane.groups.is_empty());
}

#[test]
fn an_underlay_with_several_next_hops_is_one_and_the_same_for_a_remote() {
    let mut snapshot = snapshot();
    let other = "192.0.2.253";
    snapshot.neighbours.push(neighbour(WAN, other));
    let path =
        |gateway: &str| Path { ifindex: WAN, gateway: Some(gateway.parse().unwrap()), weight: 1 };
    let paths = vec![path(GATEWAY), path(other)];
    snapshot.routes[1].target = RouteTarget::Multipath { paths, prefsrc: None, mtu: None };
    let (_, state) = compiled(&snapshot);
    assert_eq!(state.why_not, None);
    let ip = state.underlay.unwrap().ip.to_string();
    assert!([GATEWAY, other].contains(&ip.as_str()), "{ip}");
    assert_eq!(compiled(&snapshot).1.underlay, state.underlay);
}

#[test]
fn the_routes_own_mtu_limits_its_next_hop() {
    let mut snapshot = snapshot();
    let RouteTarget::Unicast { mtu, .. } = &mut snapshot.routes[1].target else { panic!() };
    *mtu = Some(1300);
    let (plane, state) = compiled(&snapshot);
    let record = &plane.tunnels[&state.id];
    assert_eq!(plane.next_hops[&record.next_hop].mtu, 1300);
}

/// The snapshot with one chain on its way.
fn filtered(family: FilterFamily, devices: &[&str]) -> Snapshot {
    let hook =
        if family == FilterFamily::Netdev { FilterHook::Ingress } else { FilterHook::Forward };
    let devices = devices.iter().map(ToString::to_string).collect();
    let chain = FilterChain { devices, ..filter_chain(family, hook) };
    Snapshot { filters: vec![chain], ..snapshot() }
}

#[test]
fn a_tunnel_that_respects_rules_is_left_to_the_kernel_in_both_directions() {
    let (plane, state) = compiled(&filtered(FilterFamily::Inet, &[]));
    assert_eq!(
        state.why_not.as_deref(),
        Some(
            "netfilter is respected: chain c of table inet t (forward, 1 rule) is on the way of its \
             packets: `nft list chain inet t c`; where they need none of its rules, `xgre tunnel \
             change tunnel0 netfilter bypass`"
        )
    );
    let record = &plane.tunnels[&state.id];
    assert!(record.flags.has(tunnel::Flags::UP), "packets still find it");
    let forwards = tunnel::Flags::FORWARDING.and(tunnel::Flags::FORWARDING6);
    assert!(!record.flags.has(forwards), "what comes out of it is the kernel's to forward");
    let hop = &plane.next_hops[&record.next_hop];
    assert!(!hop.flags.has(next_hop::Flags::RESOLVED), "XDP does not send to it");
    assert_eq!(hop.ifindex, WAN, "TC does");
    let (free, fast) = compiled(&snapshot());
    let Entry::NextHop(gateway) = plane.routes[&(0, 0)] else { panic!("no default route") };
    assert_eq!(
        plane.next_hops[&gateway], free.next_hops[&free.tunnels[&fast.id].next_hop],
        "what others send there is as fast as ever"
    );
}

#[test]
fn only_rules_on_the_way_are_respected() {
    let why_not = |family, devices: &[&str]| compiled(&filtered(family, devices)).1.why_not;
    for family in [FilterFamily::Inet, FilterFamily::Ip, FilterFamily::Ip6] {
        assert!(why_not(family, &[]).is_some(), "{family:?}");
    }
    assert_eq!(why_not(FilterFamily::Bridge, &[]), None);
    assert_eq!(why_not(FilterFamily::Netdev, &["eth9"]), None);
    for device in ["lan", "wan", "tunnel0"] {
        assert!(why_not(FilterFamily::Netdev, &[device]).is_some(), "{device}");
    }
}

#[test]
fn a_tunnel_that_bypasses_rules_is_as_fast_as_without() {
    let bypassing = Tunnel { netfilter: Netfilter::Bypass, ..tunnel("tunnel0") };
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let all = |snapshot: &Snapshot| {
        let desired = desired([bypassing.clone()]);
        compile(&desired, snapshot, &ports, &Known::default(), &mut Allocated::default())
    };
    assert_eq!(all(&filtered(FilterFamily::Inet, &[])), all(&snapshot()));
}

/// The device of a tunnel of the kernel's own, in place of ours.
fn kernels(adopt: Adopt) -> (Desired, Snapshot) {
    let mut snapshot = snapshot();
    snapshot.links.remove(&(DEVICE + 1));
    let device = Link { tunnel: Some(Box::new(gre("gre1"))), mac: None, ..link(DEVICE, "gre1") };
    snapshot.links.insert(DEVICE, device);
    (Desired { adopt, ..desired([]) }, snapshot)
}

fn compiled_of_kernels(adopt: Adopt) -> (DataPlane, TunnelState) {
    let (desired, snapshot) = kernels(adopt);
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let allocated = &mut Allocated::default();
    let (plane, mut states) = compile(&desired, &snapshot, &ports, &Known::default(), allocated);
    (plane, states.remove("gre1").unwrap())
}

#[test]
fn an_adopted_tunnel_forwards_and_leaves_the_rest_to_its_device() {
    let (plane, state) = compiled_of_kernels(Adopt::of_names(["gre1"]));
    assert_eq!(state.why_not, None);
    let record = plane.tunnels[&state.id];
    let flags = tunnel::Flags::ADOPTED.and(tunnel::Flags::UP).and(tunnel::Flags::FORWARDING);
    assert_eq!(record.flags.only(flags), flags);
    assert_eq!((record.ifindex, record.device), (DEVICE, 0), "XDP has no way to the device");
    assert!(plane.next_hops[&record.next_hop].flags.has(next_hop::Flags::RESOLVED));
    assert_eq!(plane.routes[&(u32::from_be_bytes([10, 2, 0, 0]), 16)], Entry::Tunnel(state.id));
    let of_device = |ifindex: &u32| ![LAN, WAN].contains(ifindex);
    assert_eq!(plane.ports.keys().find(|&ifindex| of_device(ifindex)), None);
    assert_eq!(plane.demux.values().collect::<BTreeSet<_>>(), [&state.id].into());
}

#[test]
fn one_that_is_left_alone_has_a_record_by_which_nothing_is_forwarded() {
    let (plane, state) = compiled_of_kernels(Adopt::default());
    assert_eq!(state.why_not.as_deref(), Some("not adopted: `xgre adopt gre1`"));
    let record = plane.tunnels[&state.id];
    assert!(record.flags.has(tunnel::Flags::ADOPTED));
    assert!(!record.flags.has(tunnel::Flags::FORWARDING.and(tunnel::Flags::FORWARDING6)));
    assert!(!plane.next_hops[&record.next_hop].flags.has(next_hop::Flags::RESOLVED));
}

#[test]
fn what_an_adopted_tunnel_respects_is_bypassed_by_another_command() {
    let (desired, mut snapshot) = kernels(Adopt::of_names(["gre1"]));
    snapshot.filters = vec![filter_chain(FilterFamily::Ip, FilterHook::Forward)];
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let allocated = &mut Allocated::default();
    let (_, states) = compile(&desired, &snapshot, &ports, &Known::default(), allocated);
    let why_not = states["gre1"].why_not.as_deref().unwrap();
    assert!(why_not.ends_with("`xgre adopt gre1 netfilter bypass`"), "{why_not}");
}

/// The kernel's device goes by the neighbour's entry, and not by what is behind `via`.
#[test]
fn the_remotes_of_an_adopted_tunnel_are_those_of_its_neighbours() {
    let (desired, mut snapshot) = kernels(Adopt::of_names(["gre1"]));
    let device = snapshot.links.get_mut(&DEVICE).unwrap().tunnel.as_mut().unwrap();
    device.tunnel.remote = Mode::Gre.any();
    snapshot.routes.push(route("10.3.0.0/16", DEVICE, Some("198.51.100.9")));
    let mapped = |ip, [a, b, c, d]: [u8; 4]| Neighbour {
        mac: Some([2, 0, a, b, c, d]),
        ..neighbour(DEVICE, ip)
    };
    // What nobody has set is the device's own address, which is its local one.
    snapshot
        .neighbours
        .extend([mapped("10.9.0.1", [198, 51, 100, 1]), mapped("198.51.100.9", [192, 0, 2, 1])]);
    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let allocated = &mut Allocated::default();
    let (_, states) = compile(&desired, &snapshot, &ports, &Known::default(), allocated);
    let remotes: Vec<_> = states["gre1"].legs.keys().copied().collect();
    assert_eq!(remotes, [IpAddr::from([198, 51, 100, 1])]);
}

#[test]
fn the_kernels_own_answer_counts_where_its_tables_do_not_tell_all() {
    let bound = Tunnel { dev: Some("lan".into()), ..tunnel("tunnel0") };
    let ruled = Snapshot { rules: Rules::Others, ..snapshot() };
    assert_eq!(questions(&desired([tunnel("tunnel0")]), &snapshot()), []);
    let of_bound = questions(&desired([bound.clone()]), &snapshot());
    let of_ruled = questions(&desired([tunnel("tunnel0")]), &ruled);
    assert_eq!((of_bound[0].link, of_ruled[0].link), (LAN, 0));

    let ports = [(LAN, Attachment::Native), (WAN, Attachment::Native)].into();
    let underlay = |tunnel: Tunnel, answers: &[(Question, Option<Via>)]| {
        let known = Known { underlays: answers.iter().copied().collect(), ..Known::default() };
        let allocated = &mut Allocated::default();
        let (_, states) = compile(&desired([tunnel]), &snapshot(), &ports, &known, allocated);
        states["tunnel0"].underlay
    };
    assert_eq!(underlay(bound.clone(), &[]), None, "the best route of all leaves elsewhere");
    let gateway = "10.1.2.3".parse().unwrap();
    let via = Via { ifindex: LAN, gateway: Some(gateway), prefsrc: None, mtu: Some(1400) };
    let hop = Hop { ifindex: LAN, ip: gateway, mtu: Some(1400) };
    assert_eq!(underlay(bound, &[(of_bound[0], Some(via))]), Some(hop));
    assert_eq!(underlay(tunnel("tunnel0"), &[(of_ruled[0], None)]), None);
}
