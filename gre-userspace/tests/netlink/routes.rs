use gre_userspace::{
    monitor,
    netlink::Added,
    observed::{Path, RouteTarget, Snapshot},
    rib::Rib,
};
use ipnet::IpNet;
use nix::libc::EEXIST;

use crate::{LOCAL, MAIN, by_name, in_namespace, ip, route, sysctl, until};

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
            "10.14.0.0/16 nexthop via 192.0.2.2 nexthop via 198.51.100.2 weight 7",
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
            prefsrc: None,
            mtu,
        };
        let veth1 = by_name(&snapshot)["veth1"].ifindex;
        let several = several((veth0, "192.0.2.2", 1), (veth1, "198.51.100.2", 7));
        let on_link = RouteTarget::Unicast {
            ifindex: veth0,
            gateway: None,
            prefsrc: Some([192, 0, 2, 1].into()),
            mtu: None,
        };
        let to = |destination: &str| -> Vec<_> {
            let destination: IpNet = destination.parse().unwrap();
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
            ("192.0.2.0/24", MAIN, on_link),
            ("10.10.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.11.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.12.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.13.0.0/16", MAIN, RouteTarget::Kernel),
            ("10.14.0.0/16", MAIN, several),
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

/// Two next hops, each an interface index, a gateway and a weight.
fn several(first: (u32, &str, u16), second: (u32, &str, u16)) -> RouteTarget {
    let path = |(ifindex, gateway, weight): (u32, &str, u16)| Path {
        ifindex,
        gateway: Some(gateway.parse().unwrap()),
        weight,
    };
    RouteTarget::Multipath { paths: vec![path(first), path(second)], prefsrc: None, mtu: None }
}

#[test]
fn plain_ipv6_routes_are_told_from_those_only_the_kernel_can_act_on() {
    in_namespace(|kernel| async move {
        for name in ["veth0", "veth1"] {
            ip(&format!("link add {name} type veth peer name {name}-peer"));
            ip(&format!("link set {name} addrgenmode none"));
            ip(&format!("link set {name}-peer up"));
            ip(&format!("link set {name} up"));
        }
        ip("link set lo up");
        ip("addr add 2001:db8::1/64 dev veth0 nodad");
        for route in [
            "2001:db8:1::/48 via 2001:db8::2",
            "2001:db8:1::/48 via 2001:db8::3 metric 50 mtu 1300",
            "2001:db8:2::/48 dev veth0 src 2001:db8::1",
            "2001:db8:3::/48 via fe80::9 dev veth0",
            "default via 2001:db8::fe",
            "blackhole 2001:db8:10::/48",
            "unreachable 2001:db8:11::/48",
            "prohibit 2001:db8:12::/48",
            "throw 2001:db8:13::/48",
            "2001:db8:14::/48 nexthop via 2001:db8::2 nexthop via fe80::2 dev veth1",
            "2001:db8:15::/48 encap seg6 mode inline segs 2001:db8::9 dev veth0",
            "2001:db8:16::/48 from 2001:db8:99::/48 via 2001:db8::2",
            "anycast 2001:db8:17::1 dev veth0",
            "2001:db8:40::/48 dev veth0 table 253",
            "2001:db8:50::/48 dev veth0 table 100",
            "2001:db8:51::/48 dev veth0 table 1000",
        ] {
            ip(&format!("-6 route add {route}"));
        }
        // Equal routes that the kernel does not make one of.
        ip("-6 route append 2001:db8:18::/48 dev veth0");
        ip("-6 route append 2001:db8:18::/48 dev veth1");
        ip("nexthop add id 7 via 2001:db8::7 dev veth0");
        ip("-6 route add 2001:db8:4::/48 nhid 7");
        // The kernel makes the route to an address of its own a moment after the address.
        let mut watched = monitor::watch(&kernel).await.unwrap();
        until(&mut watched, |snapshot| route(snapshot, "2001:db8::1/128").is_some()).await;

        let snapshot = kernel.snapshot().await.unwrap();

        let links = by_name(&snapshot);
        let to_veth = |ifindex, gateway: Option<&str>, prefsrc: Option<&str>, mtu| {
            let address = |text: &str| text.parse().unwrap();
            let (gateway, prefsrc) = (gateway.map(address), prefsrc.map(address));
            RouteTarget::Unicast { ifindex, gateway, prefsrc, mtu }
        };
        let (veth0, veth1) = (links["veth0"].ifindex, links["veth1"].ifindex);
        let unicast = |gateway, mtu| to_veth(veth0, gateway, None, mtu);
        let to = |destination: &str| -> Vec<_> {
            let destination: IpNet = destination.parse().unwrap();
            snapshot
                .routes
                .iter()
                .filter(|route| route.destination == destination)
                .map(|route| (route.table, route.metric, route.target.clone()))
                .collect()
        };
        assert_eq!(
            to("2001:db8:1::/48"),
            [
                (MAIN, 50, unicast(Some("2001:db8::3"), Some(1300))),
                (MAIN, 1024, unicast(Some("2001:db8::2"), None)),
            ]
        );
        assert_eq!(
            to("2001:db8:18::/48"),
            [(MAIN, 1024, unicast(None, None)), (MAIN, 1024, to_veth(veth1, None, None, None)),]
        );
        let several = several((veth0, "2001:db8::2", 1), (veth1, "fe80::2", 1));
        for (destination, table, metric, target) in [
            ("2001:db8:2::/48", MAIN, 1024, to_veth(veth0, None, Some("2001:db8::1"), None)),
            ("2001:db8:3::/48", MAIN, 1024, unicast(Some("fe80::9"), None)),
            ("2001:db8:4::/48", MAIN, 1024, unicast(Some("2001:db8::7"), None)),
            ("::/0", MAIN, 1024, unicast(Some("2001:db8::fe"), None)),
            ("2001:db8::/64", MAIN, 256, unicast(None, None)),
            ("2001:db8:10::/48", MAIN, 1024, RouteTarget::Kernel),
            ("2001:db8:11::/48", MAIN, 1024, RouteTarget::Kernel),
            ("2001:db8:12::/48", MAIN, 1024, RouteTarget::Kernel),
            ("2001:db8:13::/48", MAIN, 1024, RouteTarget::Kernel),
            ("2001:db8:14::/48", MAIN, 1024, several),
            ("2001:db8:15::/48", MAIN, 1024, RouteTarget::Kernel),
            ("2001:db8:16::/48", MAIN, 0, RouteTarget::Kernel),
            ("2001:db8:17::1/128", LOCAL, 1024, RouteTarget::Kernel),
            ("2001:db8::1/128", LOCAL, 0, RouteTarget::Kernel),
        ] {
            assert_eq!(to(destination), [(table, metric, target)], "{destination}");
        }
        assert_eq!(to("2001:db8:40::/48"), [], "IPv6 has no default table");
        assert_eq!(to("2001:db8:50::/48"), [], "of a table that no default rule looks in");
        assert_eq!(to("2001:db8:51::/48"), [], "of a table with a number above 255");

        let rib = Rib::new(&snapshot);
        let lookup = |address: &str| rib.lookup(address.parse().unwrap()).cloned();
        assert_eq!(lookup("2001:db8:1::9"), Some(unicast(Some("2001:db8::3"), Some(1300))));
        assert_eq!(lookup("2001:db8:18::9"), Some(RouteTarget::Kernel), "one of two");
        assert_eq!(lookup("2001:db8::1"), Some(RouteTarget::Kernel), "this host");
        assert_eq!(lookup("ff02::1"), Some(RouteTarget::Kernel), "multicast");
    });
}

#[test]
fn the_link_local_prefix_of_several_links_is_the_kernels_affair() {
    in_namespace(|kernel| async move {
        // The kernel would add the routes itself, but only a moment later.
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 addrgenmode none up");
        ip("link set veth1 addrgenmode none up");
        ip("-6 route append fe80::/64 dev veth0 metric 256");
        let link_local = "fe80::1".parse().unwrap();
        let one = kernel.snapshot().await.unwrap();
        let veth0 = by_name(&one)["veth0"].ifindex;
        let direct =
            RouteTarget::Unicast { ifindex: veth0, gateway: None, prefsrc: None, mtu: None };
        assert_eq!(Rib::new(&one).lookup(link_local), Some(&direct));

        ip("-6 route append fe80::/64 dev veth1 metric 256");

        let two = kernel.snapshot().await.unwrap();
        assert_eq!(Rib::new(&two).lookup(link_local), Some(&RouteTarget::Kernel));
    });
}

#[test]
fn a_route_whose_device_has_no_carrier_is_dead_where_sysctl_says_so() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("route add 10.2.0.0/16 dev veth0");
        let target = |snapshot: &Snapshot| route(snapshot, "10.2.0.0/16").unwrap().target.clone();

        sysctl("ipv4/conf/veth0/ignore_routes_with_linkdown", "0");
        let used = target(&kernel.snapshot().await.unwrap());
        sysctl("ipv4/conf/veth0/ignore_routes_with_linkdown", "1");
        let dead = target(&kernel.snapshot().await.unwrap());

        assert!(matches!(used, RouteTarget::Unicast { .. }), "{used:?}");
        assert_eq!(dead, RouteTarget::Kernel);
    });
}

#[test]
fn a_route_that_is_there_is_told_from_one_that_leads_elsewhere() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        let prefix: IpNet = "10.9.0.0/16".parse().unwrap();

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
fn an_ipv6_route_that_is_there_is_told_from_one_that_leads_elsewhere() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        let prefix: IpNet = "2001:db8:9::/48".parse().unwrap();
        let default: IpNet = "::/0".parse().unwrap();

        assert_eq!(kernel.add_route(prefix, device.ifindex).await.unwrap(), Added::Now);
        assert_eq!(kernel.add_route(prefix, device.ifindex).await.unwrap(), Added::Before);
        assert_eq!(
            ip("-6 route show 2001:db8:9::/48").trim(),
            "2001:db8:9::/48 dev tunnel0 metric 1024 pref medium"
        );
        let elsewhere = kernel.add_route(prefix, device.peer_ifindex).await.unwrap_err();
        assert_eq!(elsewhere.errno(), Some(EEXIST));
        assert!(elsewhere.to_string().contains("leads elsewhere"), "{elsewhere}");

        assert_eq!(kernel.add_route(default, device.ifindex).await.unwrap(), Added::Now);
        kernel.delete_route(default, device.ifindex).await.unwrap();
        kernel.delete_route(prefix, device.ifindex).await.unwrap();
        assert_eq!(ip("-6 route show dev tunnel0"), "");
    });
}
