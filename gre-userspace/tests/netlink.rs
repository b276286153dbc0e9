//! The netlink layer against the kernel. Each test has a network namespace of its own, made for a
//! thread that ends with it, so nothing outside is touched; what is asserted was made by iproute2
//! or is read back by it.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    net::Ipv4Addr,
    panic::resume_unwind,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use gre_userspace::{
    model::Address,
    monitor,
    netlink::{Added, Kernel},
    observed::{
        Link, Neighbour, NeighbourState, Route, RouteTarget, Snapshot, xdp_features::NDO_XMIT,
    },
};
use ipnet::Ipv4Net;
use nix::{
    libc::{EEXIST, EPERM},
    sched::{CloneFlags, unshare},
    unistd::Uid,
};
use tokio::{sync::watch, time::timeout};

const MAIN: u32 = 254;
const LOCAL: u32 = 255;

#[test]
fn links_are_read_with_what_they_are_and_belong_to() {
    in_namespace(|kernel| async move {
        ip("link set lo up");
        ip("link add br0 type bridge");
        ip("link add veth0 mtu 1400 address 02:00:00:00:00:01 type veth peer name veth1");
        ip("link set veth0 master br0 alias the-alias up");

        let links = by_name(&kernel.snapshot().await.unwrap());

        let lo = &links["lo"];
        assert_eq!((lo.loopback, lo.up, lo.mac, &lo.kind), (true, true, None, &None));
        let veth0 = &links["veth0"];
        assert_eq!(veth0.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!((veth0.mtu, veth0.up, veth0.loopback), (1400, true, false));
        assert_eq!(veth0.kind.as_deref(), Some("veth"));
        assert_eq!(veth0.alias.as_deref(), Some("the-alias"));
        assert_eq!(veth0.link, Some(links["veth1"].ifindex));
        assert_eq!(veth0.master, Some(links["br0"].ifindex));
        assert_eq!(veth0.xdp, None);
        let veth1 = &links["veth1"];
        assert_eq!((veth1.up, veth1.link), (false, Some(veth0.ifindex)));
        assert_eq!(links["br0"].kind.as_deref(), Some("bridge"));
    });
}

#[test]
fn forwarding_and_rp_filter_are_those_in_effect() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        for (setting, value) in [
            ("all/forwarding", "0"),
            ("veth0/forwarding", "1"),
            ("all/rp_filter", "1"),
            ("veth0/rp_filter", "2"),
            ("veth1/rp_filter", "0"),
        ] {
            sysctl(setting, value);
        }

        let links = by_name(&kernel.snapshot().await.unwrap());

        assert_eq!((links["veth0"].forwarding, links["veth0"].rp_filter), (true, 2));
        assert_eq!((links["veth1"].forwarding, links["veth1"].rp_filter), (false, 1));
    });
}

#[test]
fn a_veth_can_be_redirected_to_once_its_peer_has_gro_on() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "").await.unwrap();
        // A veth driver works this out when the device is brought up.
        kernel.set_up(device.ifindex, true).await.unwrap();

        let links = kernel.snapshot().await.unwrap().links;

        let features = |link: &Link| link.xdp_features.expect("xdp-features, from Linux 6.3 on");
        let veth0 = links.values().find(|link| link.name == "veth0").unwrap();
        assert_eq!(features(veth0) & NDO_XMIT, 0);
        assert_eq!(features(&links[&device.ifindex]) & NDO_XMIT, NDO_XMIT);
        assert_eq!(features(&links[&device.peer_ifindex]) & NDO_XMIT, NDO_XMIT);
    });
}

#[test]
fn addresses_are_read_with_their_peers_in_the_kernels_order() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("addr add 192.0.2.9/24 dev veth0");
        ip("addr add 192.0.2.3/24 dev veth0");
        ip("addr add 10.0.0.1 peer 10.0.0.2/30 dev veth0");
        ip("addr add 2001:db8::1/64 dev veth0");

        let snapshot = kernel.snapshot().await.unwrap();

        // Primary addresses come before secondary ones.
        let veth0 = by_name(&snapshot)["veth0"].ifindex;
        let expected = [
            address("192.0.2.9/24", None),
            address("10.0.0.1/32", Some("10.0.0.2/30")),
            address("192.0.2.3/24", None),
        ];
        assert_eq!(snapshot.addresses, BTreeMap::from([(veth0, expected.to_vec())]));
    });
}

#[test]
fn plain_routes_are_told_from_those_only_the_kernel_can_act_on() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        ip("addr add 192.0.2.1/24 dev veth0");
        ip("addr add 198.51.100.1/24 dev veth1");
        for route in [
            "10.1.0.0/16 via 192.0.2.2",
            "10.1.0.0/16 via 192.0.2.3 metric 50 mtu 1300",
            "10.1.0.0/16 tos 0x10 via 192.0.2.4",
            "10.2.0.0/16 dev veth0",
            "10.3.0.0/16 via 203.0.113.1 dev veth0 onlink",
            "default via 192.0.2.254",
            "blackhole 10.10.0.0/16",
            "unreachable 10.11.0.0/16",
            "prohibit 10.12.0.0/16",
            "throw 10.13.0.0/16",
            "10.14.0.0/16 nexthop via 192.0.2.2 nexthop via 198.51.100.2",
            "10.15.0.0/16 via inet6 fe80::1 dev veth0",
            "10.40.0.0/16 dev veth0 table 253",
            "10.50.0.0/16 dev veth0 table 100",
            "10.51.0.0/16 dev veth0 table 1000",
        ] {
            ip(&format!("route add {route}"));
        }
        ip("nexthop add id 7 via 192.0.2.7 dev veth0");
        ip("route add 10.4.0.0/16 nhid 7");
        ip("link set lo up");
        ip("nexthop add id 8 blackhole");
        ip("route add 10.16.0.0/16 nhid 8");

        let snapshot = kernel.snapshot().await.unwrap();

        let veth0 = by_name(&snapshot)["veth0"].ifindex;
        let unicast = |gateway: Option<&str>, mtu| RouteTarget::Unicast {
            ifindex: veth0,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            mtu,
        };
        let to = |destination: &str| -> Vec<_> {
            let destination: Ipv4Net = destination.parse().unwrap();
            snapshot
                .routes
                .iter()
                .filter(|route| route.destination == destination)
                .map(|route| (route.table, route.tos, route.metric, route.target.clone()))
                .collect()
        };
        assert_eq!(
            to("10.1.0.0/16"),
            [
                (MAIN, 0x10, 0, unicast(Some("192.0.2.4"), None)),
                (MAIN, 0, 0, unicast(Some("192.0.2.2"), None)),
                (MAIN, 0, 50, unicast(Some("192.0.2.3"), Some(1300))),
            ]
        );
        for (destination, table, target) in [
            ("10.2.0.0/16", MAIN, unicast(None, None)),
            ("10.3.0.0/16", MAIN, unicast(Some("203.0.113.1"), None)),
            ("10.4.0.0/16", MAIN, unicast(Some("192.0.2.7"), None)),
            ("0.0.0.0/0", MAIN, unicast(Some("192.0.2.254"), None)),
            ("192.0.2.0/24", MAIN, unicast(None, None)),
            ("10.10.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.11.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.12.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.13.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.14.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.15.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.16.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.40.0.0/16", 253, unicast(None, None)),
            ("192.0.2.1/32", LOCAL, RouteTarget::Kernel),
            ("192.0.2.255/32", LOCAL, RouteTarget::Kernel),
        ] {
            assert_eq!(to(destination), [(table, 0, 0, target)], "{destination}");
        }
        assert_eq!(to("10.50.0.0/16"), [], "of a table that no default rule looks in");
        assert_eq!(to("10.51.0.0/16"), [], "of a table with a number above 255");
    });
}

#[test]
fn a_route_whose_device_has_no_carrier_is_dead_where_sysctl_says_so() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("route add 10.2.0.0/16 dev veth0");
        let target = |snapshot: &Snapshot| route(snapshot, "10.2.0.0/16").unwrap().target.clone();

        sysctl("veth0/ignore_routes_with_linkdown", "0");
        let used = target(&kernel.snapshot().await.unwrap());
        sysctl("veth0/ignore_routes_with_linkdown", "1");
        let dead = target(&kernel.snapshot().await.unwrap());

        assert!(matches!(used, RouteTarget::Unicast { .. }), "{used:?}");
        assert_eq!(dead, RouteTarget::Kernel);
    });
}

#[test]
fn neighbours_are_read_with_what_their_state_means() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        let mac = "02:00:00:00:00:09";
        ip(&format!("neigh add 192.0.2.5 lladdr {mac} nud permanent dev veth0"));
        ip(&format!("neigh add 192.0.2.4 lladdr {mac} nud stale dev veth0"));
        ip(&format!("neigh add 192.0.2.3 lladdr {mac} nud reachable dev veth0"));
        ip("neigh add 192.0.2.2 nud failed dev veth0");
        ip(&format!("neigh add 2001:db8::5 lladdr {mac} nud permanent dev veth0"));

        let snapshot = kernel.snapshot().await.unwrap();

        let ifindex = by_name(&snapshot)["veth0"].ifindex;
        let neighbour = |last, mac, state| Neighbour {
            ifindex,
            ip: Ipv4Addr::new(192, 0, 2, last),
            mac,
            state,
        };
        let mac = Some([2, 0, 0, 0, 0, 9]);
        let of_the_test: Vec<_> = snapshot
            .neighbours
            .into_iter()
            .filter(|neighbour| !neighbour.ip.is_multicast())
            .collect();
        assert_eq!(
            of_the_test,
            [
                neighbour(2, None, NeighbourState::Unresolved),
                neighbour(3, mac, NeighbourState::Valid),
                neighbour(4, mac, NeighbourState::Stale),
                neighbour(5, mac, NeighbourState::Valid),
            ]
        );
    });
}

#[test]
fn a_stale_neighbour_is_made_sure_of_and_a_missing_one_looked_for() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        ip("addr add 192.0.2.1/24 dev veth0");
        ip("neigh add 192.0.2.4 lladdr 02:00:00:00:00:09 nud stale dev veth0");
        let ifindex = by_name(&kernel.snapshot().await.unwrap())["veth0"].ifindex;

        kernel.confirm_neighbour(ifindex, Ipv4Addr::new(192, 0, 2, 4)).await.unwrap();
        kernel.confirm_neighbour(ifindex, Ipv4Addr::new(192, 0, 2, 2)).await.unwrap();

        assert!(ip("neigh show 192.0.2.4").contains("DELAY"));
        assert!(ip("neigh show 192.0.2.2").contains("INCOMPLETE"));
        let snapshot = kernel.snapshot().await.unwrap();
        let state = |last| {
            let ip = Ipv4Addr::new(192, 0, 2, last);
            snapshot.neighbours.iter().find(|neighbour| neighbour.ip == ip).unwrap().state
        };
        assert_eq!(state(4), NeighbourState::Valid);
        assert_eq!(state(2), NeighbourState::Unresolved);
    });
}

#[test]
fn any_rule_but_the_three_default_ones_is_custom() {
    in_namespace(|kernel| async move {
        let custom = || async { kernel.snapshot().await.unwrap().custom_rules };
        assert!(!custom().await);

        for rule in ["from 10.0.0.0/8 table 100", "fwmark 1 table main", "pref 10 table local"] {
            ip(&format!("rule add {rule}"));
            assert!(custom().await, "{rule}");
            ip(&format!("rule del {rule}"));
            assert!(!custom().await, "after {rule}");
        }

        ip("-6 rule add from 2001:db8::/32 table 100");
        assert!(!custom().await, "an IPv6 rule");

        ip("rule del pref 32766");
        assert!(custom().await, "no look-up in the main table");
        ip("rule add pref 32766 fwmark 1 table main");
        assert!(custom().await, "three rules, but not the default ones");
    });
}

#[test]
fn a_tunnel_device_is_made_as_a_quiet_pair_and_deleted_whole() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "xgre tunnel").await.unwrap();

        let links = kernel.snapshot().await.unwrap().links;
        let (tunnel, peer) = (&links[&device.ifindex], &links[&device.peer_ifindex]);
        assert_eq!((tunnel.name.as_str(), peer.name.as_str()), ("tunnel0", "xgre-0"));
        assert_eq!((tunnel.link, peer.link), (Some(peer.ifindex), Some(tunnel.ifindex)));
        assert_eq!((tunnel.mtu, peer.mtu), (1476, 65_535));
        assert_eq!((tunnel.up, peer.up), (false, true));
        assert_eq!((tunnel.alias.as_deref(), peer.alias.as_deref()), (Some("xgre tunnel"), None));
        for name in ["tunnel0", "xgre-0"] {
            let details = ip(&format!("-d link show {name}"));
            assert!(details.contains("NOARP"), "{details}");
            assert!(details.contains("addrgenmode none"), "{details}");
        }
        kernel.set_up(device.ifindex, true).await.unwrap();
        assert_eq!(ip("-6 addr show"), "", "no link-local addresses");

        kernel.delete_link(device.ifindex).await.unwrap();
        let names: Vec<_> = by_name(&kernel.snapshot().await.unwrap()).into_keys().collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn a_tunnel_device_that_cannot_be_finished_leaves_nothing_behind() {
    in_namespace(|kernel| async move {
        let too_long = "x".repeat(300);

        let error =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, &too_long).await.unwrap_err();

        assert!(error.to_string().contains("the alias of the device tunnel0"), "{error}");
        let names: Vec<_> = by_name(&kernel.snapshot().await.unwrap()).into_keys().collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn a_tunnel_device_does_not_take_the_place_of_another_device() {
    in_namespace(|kernel| async move {
        ip("link add tunnel0 type bridge");

        let error = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "").await.unwrap_err();

        assert_eq!(error.errno(), Some(EEXIST));
        assert_eq!(
            error.to_string(),
            "cannot create the tunnel device tunnel0 with its peer xgre-0: File exists (os error \
             17); choose another name, or delete what has it"
        );
        let links = by_name(&kernel.snapshot().await.unwrap());
        assert_eq!(links["tunnel0"].kind.as_deref(), Some("bridge"));
        assert!(!links.contains_key("xgre-0"));
    });
}

#[test]
fn a_small_mtu_without_ipv6_is_no_obstacle() {
    in_namespace(|kernel| async move {
        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 576, "").await.unwrap();

        assert_eq!(kernel.snapshot().await.unwrap().links[&device.ifindex].mtu, 576);
    });
}

#[test]
fn a_links_settings_are_changed() {
    in_namespace(|kernel| async move {
        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "old").await.unwrap();

        kernel.set_mtu(device.ifindex, 1400).await.unwrap();
        kernel.set_alias(device.ifindex, "new").await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        kernel.set_up(device.peer_ifindex, false).await.unwrap();

        let links = kernel.snapshot().await.unwrap().links;
        let tunnel = &links[&device.ifindex];
        assert_eq!((tunnel.mtu, tunnel.alias.as_deref(), tunnel.up), (1400, Some("new"), true));
        assert!(!links[&device.peer_ifindex].up);

        let error = kernel.set_mtu(device.ifindex, 1).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot set the MTU of the device tunnel0 to 1: "), "{error}");
        assert!(error.contains("(mtu less than device minimum)"), "the kernel's words: {error}");
    });
}

#[test]
fn an_address_that_is_there_is_told_from_one_in_its_way() {
    in_namespace(|kernel| async move {
        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "").await.unwrap();
        let plain = address("10.0.0.1/24", None);
        let with_peer = address("10.1.0.1/32", Some("10.1.0.2/24"));
        let other_peer = address("10.1.0.1/32", Some("10.1.0.3/24"));
        let add = |address| kernel.add_address(device.ifindex, address);

        assert_eq!(add(plain).await.unwrap(), Added::Now);
        assert_eq!(add(plain).await.unwrap(), Added::Before);
        assert_eq!(add(with_peer).await.unwrap(), Added::Now);
        assert_eq!(add(with_peer).await.unwrap(), Added::Before);
        assert_eq!(add(other_peer).await.unwrap_err().errno(), Some(EEXIST));

        let addresses = kernel.snapshot().await.unwrap().addresses;
        assert_eq!(addresses[&device.ifindex], [plain, with_peer]);
        assert!(!ip("addr show tunnel0").contains("brd 10."), "no broadcast address");

        kernel.delete_address(device.ifindex, with_peer).await.unwrap();
        kernel.delete_address(device.ifindex, plain).await.unwrap();
        assert_eq!(kernel.snapshot().await.unwrap().addresses, BTreeMap::new());
        let error = kernel.delete_address(device.ifindex, plain).await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot delete the address 10.0.0.1/24 of the device tunnel0: "),
            "{error}"
        );
        assert!(error.ends_with("`ip addr show` lists the addresses there are"), "{error}");
    });
}

#[test]
fn a_route_that_is_there_is_told_from_one_that_leads_elsewhere() {
    in_namespace(|kernel| async move {
        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "").await.unwrap();
        let prefix: Ipv4Net = "10.9.0.0/16".parse().unwrap();

        let down = kernel.add_route(prefix, device.ifindex).await.unwrap_err();
        assert!(down.to_string().ends_with("`ip link set` the device `up` first"), "{down}");
        kernel.set_up(device.ifindex, true).await.unwrap();
        assert_eq!(kernel.add_route(prefix, device.ifindex).await.unwrap(), Added::Now);
        assert_eq!(kernel.add_route(prefix, device.ifindex).await.unwrap(), Added::Before);
        assert_eq!(ip("route show 10.9.0.0/16").trim(), "10.9.0.0/16 dev tunnel0 scope link");

        let elsewhere = kernel.add_route(prefix, device.peer_ifindex).await.unwrap_err();
        assert_eq!(elsewhere.errno(), Some(EEXIST));
        assert!(elsewhere.to_string().contains("leads elsewhere"), "{elsewhere}");

        let default = "0.0.0.0/0".parse().unwrap();
        assert_eq!(kernel.add_route(default, device.ifindex).await.unwrap(), Added::Now);
        kernel.delete_route(default, device.ifindex).await.unwrap();
        kernel.delete_route(prefix, device.ifindex).await.unwrap();
        assert_eq!(ip("route show"), "");
    });
}

#[test]
fn a_watched_route_appears_and_disappears_within_50_ms() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        let mut watched = monitor::watch(&kernel).await.unwrap();
        settle(&mut watched).await;

        let mut delays = Vec::new();
        for _ in 0..10 {
            ip("route add 10.2.0.0/16 dev veth0");
            let added = Instant::now();
            until(&mut watched, |snapshot| route(snapshot, "10.2.0.0/16").is_some()).await;
            delays.push(added.elapsed());

            ip("route del 10.2.0.0/16");
            let deleted = Instant::now();
            until(&mut watched, |snapshot| route(snapshot, "10.2.0.0/16").is_none()).await;
            delays.push(deleted.elapsed());
        }
        println!("{delays:?}");
        // The median: one is as long as whatever else the machine is doing makes it.
        delays.sort();
        assert!(delays[delays.len() / 2] < Duration::from_millis(50), "{delays:?}");
    });
}

#[test]
fn a_link_going_down_takes_its_routes_out_of_the_snapshot() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        ip("addr add 192.0.2.1/24 dev veth0");
        ip("route add 10.2.0.0/16 via 192.0.2.2");
        let mut watched = monitor::watch(&kernel).await.unwrap();
        assert!(route(&watched.borrow(), "10.2.0.0/16").is_some());

        ip("link set veth0 down");

        until(&mut watched, |snapshot| {
            route(snapshot, "10.2.0.0/16").is_none()
                && route(snapshot, "192.0.2.0/24").is_none()
                && !by_name(snapshot)["veth0"].up
        })
        .await;
    });
}

#[test]
fn everything_that_is_watched_is_published() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        let mut watched = monitor::watch(&kernel).await.unwrap();

        ip("addr add 192.0.2.1/24 dev veth0");
        until(&mut watched, |snapshot| {
            !snapshot.addresses.is_empty() && route(snapshot, "192.0.2.0/24").is_some()
        })
        .await;

        let neighbour = Ipv4Addr::new(192, 0, 2, 5);
        ip("neigh add 192.0.2.5 lladdr 02:00:00:00:00:09 nud permanent dev veth0");
        until(&mut watched, |snapshot| snapshot.neighbours.iter().any(|n| n.ip == neighbour)).await;

        ip("rule add from 10.0.0.0/8 table 100");
        until(&mut watched, |snapshot| snapshot.custom_rules).await;

        sysctl("veth0/forwarding", "1");
        until(&mut watched, |snapshot| by_name(snapshot)["veth0"].forwarding).await;
        sysctl("all/rp_filter", "2");
        until(&mut watched, |snapshot| by_name(snapshot)["veth0"].rp_filter == 2).await;

        ip("nexthop add id 7 via 192.0.2.7 dev veth0");
        ip("route add 10.4.0.0/16 nhid 7");
        until(&mut watched, |snapshot| gateway(snapshot, "10.4.0.0/16") == Some([192, 0, 2, 7]))
            .await;
        ip("nexthop replace id 7 via 192.0.2.8 dev veth0");
        until(&mut watched, |snapshot| gateway(snapshot, "10.4.0.0/16") == Some([192, 0, 2, 8]))
            .await;

        let device = kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "").await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        until(&mut watched, |snapshot| {
            [device.ifindex, device.peer_ifindex].iter().all(|ifindex| {
                snapshot.links.get(ifindex).is_some_and(|link| {
                    link.xdp_features.is_some_and(|features| features & NDO_XMIT != 0)
                })
            })
        })
        .await;
        kernel.delete_link(device.ifindex).await.unwrap();
        until(&mut watched, |snapshot| !snapshot.links.contains_key(&device.ifindex)).await;
    });
}

#[test]
fn what_makes_no_difference_is_not_published() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        let mut watched = monitor::watch(&kernel).await.unwrap();
        settle(&mut watched).await;

        ip("link set veth0 txqueuelen 77");
        ip("route add 10.50.0.0/16 dev veth0 table 100");
        assert!(
            timeout(Duration::from_millis(200), watched.changed()).await.is_err(),
            "published: {:#?}",
            watched.borrow()
        );

        ip("link set veth1 mtu 1400");
        until(&mut watched, |snapshot| by_name(snapshot)["veth1"].mtu == 1400).await;
    });
}

#[test]
fn ten_thousand_routes_arrive_whole() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let batch: String = (0..10_000u32)
            .map(|n| format!("route add 10.{}.{}.0/24 dev veth0\n", n / 256, n % 256))
            .collect();
        let file = std::env::temp_dir().join(format!("xgre-routes-{}", std::process::id()));
        fs::write(&file, batch).unwrap();
        ip(&format!("-batch {}", file.display()));
        fs::remove_file(&file).unwrap();

        until(&mut watched, |snapshot| {
            snapshot.routes.iter().filter(|route| route.destination.prefix_len() == 24).count()
                == 10_000
        })
        .await;

        let started = Instant::now();
        let snapshot = kernel.snapshot().await.unwrap();
        println!("read {} routes in {:?}", snapshot.routes.len(), started.elapsed());
        assert_eq!(watched.borrow().routes, snapshot.routes);
    });
}

#[test]
fn more_changes_than_the_buffer_holds_are_made_up_for() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        ip("link add veth2 type veth peer name veth3");
        let mut watched = monitor::watch(&kernel).await.unwrap();
        settle(&mut watched).await;

        // This thread runs the task that listens as well, so nothing is read until `ip` is done.
        let batch: String = (0..100_000u32)
            .map(|n| {
                let (a, b, c) = (n >> 16, n >> 8 & 255, n & 255);
                format!("route add 10.{a}.{b}.{c}/32 dev veth0\n")
            })
            .chain(["link set veth2 mtu 1300\n".into()])
            .collect();
        let file = std::env::temp_dir().join(format!("xgre-overrun-{}", std::process::id()));
        fs::write(&file, batch).unwrap();
        ip(&format!("-batch {}", file.display()));
        fs::remove_file(&file).unwrap();

        // The last notification was among the lost ones.
        until(&mut watched, |snapshot| {
            by_name(snapshot)["veth2"].mtu == 1300
                && snapshot.routes.iter().filter(|route| route.table == MAIN).count() >= 100_000
        })
        .await;
    });
}

#[test]
fn without_privileges_the_error_says_what_is_missing() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        let ifindex = by_name(&kernel.snapshot().await.unwrap())["veth0"].ifindex;
        drop_network_privileges();

        let unprivileged = Kernel::connect().unwrap();
        let error = unprivileged.set_mtu(ifindex, 1400).await.unwrap_err();

        assert_eq!(error.errno(), Some(EPERM));
        assert!(error.to_string().ends_with("or give the daemon CAP_NET_ADMIN"), "{error}");
    });
}

/// Runs `test` in a thread with a network namespace and a runtime of its own.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Kernel) -> F + Send + 'static) {
    assert!(
        Uid::effective().is_root(),
        "these tests make network namespaces: run them as root, e.g. with `sudo -E cargo test`"
    );
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { test(Kernel::connect().unwrap()).await });
    })
    .join();
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Makes the calling thread another user, for good. Only this thread: the system call itself, not
/// the C library's function, which would change all of them.
fn drop_network_privileges() {
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(result, 0, "setresuid: {}", std::io::Error::last_os_error());
}

/// veth0 and veth1, both up.
fn make_carrying_pair() {
    ip("link add veth0 type veth peer name veth1");
    ip("link set veth0 up");
    ip("link set veth1 up");
}

/// Runs iproute2 in the thread's namespace and returns what it prints.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sets net.ipv4.conf.SETTING, written with a slash, of the thread's namespace.
fn sysctl(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{setting}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn by_name(snapshot: &Snapshot) -> BTreeMap<String, Link> {
    snapshot.links.values().map(|link| (link.name.clone(), link.clone())).collect()
}

fn address(local: &str, peer: Option<&str>) -> Address {
    Address { local: local.parse().unwrap(), peer: peer.map(|peer| peer.parse().unwrap()) }
}

fn route<'a>(snapshot: &'a Snapshot, destination: &str) -> Option<&'a Route> {
    let destination: Ipv4Net = destination.parse().unwrap();
    snapshot.routes.iter().find(|route| route.destination == destination)
}

fn gateway(snapshot: &Snapshot, destination: &str) -> Option<[u8; 4]> {
    match route(snapshot, destination)?.target {
        RouteTarget::Unicast { gateway, .. } => gateway.map(|gateway| gateway.octets()),
        RouteTarget::Kernel => None,
    }
}

/// Waits for a published snapshot that `condition` holds of.
async fn until(
    watched: &mut watch::Receiver<Arc<Snapshot>>,
    condition: impl Fn(&Snapshot) -> bool,
) {
    let published = watched.wait_for(|snapshot| condition(snapshot));
    let found = matches!(timeout(Duration::from_secs(20), published).await, Ok(Ok(_)));
    let last = watched.borrow();
    assert!(
        found,
        "not published in 20 s; the last had {} routes and {:#?}",
        last.routes.len(),
        last.links
    );
}

/// Waits until nothing has been published for a while: devices that were just set up go on
/// changing for a moment.
async fn settle(watched: &mut watch::Receiver<Arc<Snapshot>>) {
    while timeout(Duration::from_millis(300), watched.changed()).await.is_ok() {}
}
