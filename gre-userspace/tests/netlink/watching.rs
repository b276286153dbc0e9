use std::{
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gre_userspace::{
    monitor,
    observed::{RouteTarget, Rules, Snapshot, xdp_features::NDO_XMIT},
};
use tokio::{sync::watch, time::timeout};

use crate::{MAIN, by_name, in_namespace, ip, route, sysctl, until};

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

        let neighbour = IpAddr::from([192, 0, 2, 5]);
        ip("neigh add 192.0.2.5 lladdr 02:00:00:00:00:09 nud permanent dev veth0");
        until(&mut watched, |snapshot| snapshot.neighbours.iter().any(|n| n.ip == neighbour)).await;

        ip("rule add from 10.0.0.0/8 table 100");
        until(&mut watched, |snapshot| snapshot.rules == Rules::Others).await;

        sysctl("ipv4/conf/veth0/forwarding", "1");
        until(&mut watched, |snapshot| by_name(snapshot)["veth0"].forwarding).await;
        sysctl("ipv4/conf/all/rp_filter", "2");
        until(&mut watched, |snapshot| by_name(snapshot)["veth0"].rp_filter == 2).await;

        ip("nexthop add id 7 via 192.0.2.7 dev veth0");
        ip("route add 10.4.0.0/16 nhid 7");
        until(&mut watched, |snapshot| {
            gateway(snapshot, "10.4.0.0/16") == Some([192, 0, 2, 7].into())
        })
        .await;
        ip("nexthop replace id 7 via 192.0.2.8 dev veth0");
        until(&mut watched, |snapshot| {
            gateway(snapshot, "10.4.0.0/16") == Some([192, 0, 2, 8].into())
        })
        .await;
        // The kernel says nothing of the routes that go along.
        ip("nexthop del id 7");
        until(&mut watched, |snapshot| route(snapshot, "10.4.0.0/16").is_none()).await;

        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        until(&mut watched, |snapshot| {
            snapshot.links.get(&device.peer_ifindex).is_some_and(|link| {
                link.xdp_features.is_some_and(|features| features & NDO_XMIT != 0)
            })
        })
        .await;
        kernel.delete_link(device.ifindex).await.unwrap();
        until(&mut watched, |snapshot| !snapshot.links.contains_key(&device.ifindex)).await;
    });
}

#[test]
fn what_changes_for_ipv6_is_published() {
    in_namespace(|kernel| async move {
        make_carrying_pair();
        let mut watched = monitor::watch(&kernel).await.unwrap();

        ip("addr add 2001:db8::1/64 dev veth0 nodad");
        until(&mut watched, |snapshot| {
            !snapshot.addresses.is_empty()
                && route(snapshot, "2001:db8::/64").is_some()
                && route(snapshot, "2001:db8::1/128").is_some()
        })
        .await;

        let neighbour: IpAddr = "2001:db8::5".parse().unwrap();
        ip("neigh add 2001:db8::5 lladdr 02:00:00:00:00:09 nud permanent dev veth0");
        until(&mut watched, |snapshot| snapshot.neighbours.iter().any(|n| n.ip == neighbour)).await;

        ip("-6 route add 2001:db8:1::/48 via 2001:db8::2");
        until(&mut watched, |snapshot| route(snapshot, "2001:db8:1::/48").is_some()).await;
        ip("-6 route del 2001:db8:1::/48");
        until(&mut watched, |snapshot| route(snapshot, "2001:db8:1::/48").is_none()).await;

        ip("nexthop add id 7 via 2001:db8::7 dev veth0");
        ip("-6 route add 2001:db8:4::/48 nhid 7");
        until(&mut watched, |snapshot| {
            gateway(snapshot, "2001:db8:4::/48") == Some("2001:db8::7".parse().unwrap())
        })
        .await;
        ip("nexthop replace id 7 via 2001:db8::8 dev veth0");
        until(&mut watched, |snapshot| {
            gateway(snapshot, "2001:db8:4::/48") == Some("2001:db8::8".parse().unwrap())
        })
        .await;

        ip("-6 rule add from 2001:db8::/32 table 100");
        until(&mut watched, |snapshot| snapshot.rules6 == Rules::Others).await;

        sysctl("ipv6/conf/all/forwarding", "1");
        until(&mut watched, |snapshot| by_name(snapshot)["veth0"].forwarding6).await;
        sysctl("ipv6/conf/veth1/disable_ipv6", "1");
        until(&mut watched, |snapshot| !by_name(snapshot)["veth1"].forwarding6).await;
        sysctl("ipv6/conf/veth1/disable_ipv6", "0");
        until(&mut watched, |snapshot| by_name(snapshot)["veth1"].forwarding6).await;

        ip("link set veth0 down");
        until(&mut watched, |snapshot| {
            route(snapshot, "2001:db8::/64").is_none()
                && route(snapshot, "2001:db8:4::/48").is_none()
        })
        .await;
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
        ip("-6 route add 2001:db8:50::/48 dev veth0 table 100");
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

/// veth0 and veth1, both up, without the link-local addresses that the kernel would only use some
/// two seconds later.
fn make_carrying_pair() {
    ip("link add veth0 type veth peer name veth1");
    ip("link set veth0 addrgenmode none up");
    ip("link set veth1 addrgenmode none up");
}

fn gateway(snapshot: &Snapshot, destination: &str) -> Option<IpAddr> {
    match route(snapshot, destination)?.target {
        RouteTarget::Unicast { gateway, .. } => gateway,
        RouteTarget::Multipath { .. } | RouteTarget::Kernel => None,
    }
}

/// Waits until nothing has been published for a while: devices that were just set up go on
/// changing for a moment.
async fn settle(watched: &mut watch::Receiver<Arc<Snapshot>>) {
    while timeout(Duration::from_millis(300), watched.changed()).await.is_ok() {}
}
