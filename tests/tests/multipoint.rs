//! Tunnels with wildcards: one tunnel of the hub for both spokes, any local address, and several
//! tunnels between the same addresses.
//!
//! ```text
//!  host A ------ A =====(hub)=====\            /=====(hub)===== B ------ host B
//!  10.1.0.10   10.255.0.1          hub: mgre0              10.255.0.2    10.2.0.10
//!                                  10.255.0.3, remote any
//! ```
//! All three gateways are on one network; it is drawn in `tests::hub`.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    hub::{HOST_A, HOST_B, Hub, WAN_A, WAN_B, WAN_HUB},
    in_each_xdp_mode, ipv6,
    namespace::Namespace,
    process::wait_until,
    topology::{PC1, PC2, R1_WAN, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_none, ping_until_answered, tcp},
    xgre::{Daemon, stats, tunnel, xgre},
};

in_each_xdp_mode!(
    t1_a_route_names_the_remote_of_a_tunnel_without,
    t1_a_neighbour_names_the_remote_of_a_tunnel_without,
    t1_ipv6_routes_name_the_remote_by_its_compatible_address,
    l2_a_tunnel_with_any_local_address_takes_what_its_remote_sends,
    l4_a_tunnel_with_neither_address_takes_what_no_other_does,
    l1_tunnels_between_the_same_addresses_are_told_apart_by_their_keys,
    a_bound_tunnel_sends_and_takes_by_its_interface_alone,
);

struct Multipoint {
    lab: Hub,
    hub: Daemon,
    _spokes: [Daemon; 2],
    xdp: Xdp,
}

impl Multipoint {
    /// Spokes with a tunnel each, and the hub with one for both, of which nothing says where to.
    fn start(xdp: Xdp) -> Result<Self> {
        let lab = Hub::new()?;
        let spoke = |local, far| {
            Gateway::new(local, WAN_HUB)
                .name("hub")
                .options(&["key = 5"])
                .routes(&[far])
                .ports(&["wan", "lan"])
                .xdp(xdp)
        };
        let hub = Gateway::new(WAN_HUB, "any")
            .name("mgre0")
            .options(&["key = 5"])
            .ports(&["wan"])
            .xdp(xdp);
        let spokes = [
            Daemon::start(&lab.a, &spoke(WAN_A, "10.2.0.0/24"))?,
            Daemon::start(&lab.b, &spoke(WAN_B, "10.1.0.0/24"))?,
        ];
        let hub = Daemon::start(&lab.hub, &hub)?;
        Ok(Self { lab, hub, _spokes: spokes, xdp })
    }

    /// Spoke to spoke, spoke to hub and hub to spoke; counters of the legs add up.
    fn works(&self) -> Result<()> {
        let Self { lab, hub, xdp, .. } = self;
        ping_until_answered(&lab.host_a, HOST_B, SOON)?;
        ping_until_answered(&lab.host_b, HOST_A, SOON)?;
        wait_until("the hub's packets all take the expected tier", SOON, || {
            let before = hub.packets("mgre0")?;
            ping_all(&lab.host_a, HOST_B, 10)?;
            // Each ping and each answer goes in by one leg, and out by the other.
            let (found, expected) = (hub.packets("mgre0")? - before, Packets::pings(*xdp, 20));
            if found != expected {
                bail!("found {found:?}, expected {expected:?}");
            }
            Ok(())
        })?;
        for flow in [Flow::ToServer, Flow::ToClient] {
            tcp(&lab.host_a, &lab.host_b, HOST_B, Load::Seconds(1), flow)?;
        }
        for spoke in ["10.1.0.1", "10.2.0.1"] {
            ping_until_answered(&lab.hub, spoke, SOON)?;
            let before = hub.packets("mgre0")?;
            ping_all(&lab.hub, spoke, 20)?;
            let found = hub.packets("mgre0")? - before;
            assert_eq!((found.tx(), found.rx(), found.drops), (20, 20, 0), "to {spoke}");
        }
        ping_all(&lab.host_a, "10.255.0.3", 10)?;
        one_row(&lab.hub, "mgre0")
    }
}

/// The legs are one tunnel to those who look.
fn one_row(namespace: &Namespace, name: &str) -> Result<()> {
    let stats = stats(namespace)?;
    let named = |value: &Value| value["name"] == name;
    let rows = stats["tunnels"].as_array().context("no tunnels")?.iter().filter(|row| named(row));
    ensure!(rows.count() == 1, "{stats}");
    let shown = tunnel(namespace, name)?.with_context(|| format!("no {name}"))?;
    ensure!(shown["remote"] == "any" || shown["remote"] == "0.0.0.0", "{shown}");
    Ok(())
}

fn t1_a_route_names_the_remote_of_a_tunnel_without(xdp: Xdp) -> Result<()> {
    let lab = Multipoint::start(xdp)?;
    let Multipoint { lab: Hub { hub, a, b, .. }, .. } = &lab;
    // Until then there is nobody to send to, and the command line says what is missing.
    let missing = "ip route add PREFIX via REMOTE dev mgre0 onlink";
    // First the daemon hears that the device is up, which it has itself asked for.
    wait_until("the hub says what is missing", SOON, || {
        let shown = xgre(hub, "tunnel show mgre0")?;
        ensure!(shown.contains(missing), "no \"{missing}\" in\n{shown}");
        Ok(())
    })?;

    hub.ip("addr add 10.255.0.3/32 dev mgre0")?;
    for (spoke, own, wan, lan) in
        [(a, "10.255.0.1", WAN_A, "10.1.0.0/24"), (b, "10.255.0.2", WAN_B, "10.2.0.0/24")]
    {
        spoke.ip(&format!("addr add {own}/32 dev hub"))?;
        spoke.ip("route add 10.255.0.3/32 dev hub")?;
        for prefix in [lan, &format!("{own}/32")] {
            hub.ip(&format!("route add {prefix} via {wan} dev mgre0 onlink"))?;
        }
    }
    lab.works()
}

fn t1_a_neighbour_names_the_remote_of_a_tunnel_without(xdp: Xdp) -> Result<()> {
    let lab = Multipoint::start(xdp)?;
    let Multipoint { lab: Hub { hub, a, b, .. }, .. } = &lab;
    hub.ip("addr add 10.255.0.3/24 dev mgre0")?;
    for (spoke, own, mac, lan) in [
        (a, "10.255.0.1", "02:00:c6:33:64:01", "10.1.0.0/24"),
        (b, "10.255.0.2", "02:00:c6:33:64:02", "10.2.0.0/24"),
    ] {
        spoke.ip(&format!("addr add {own}/24 dev hub"))?;
        hub.ip(&format!("neigh replace {own} lladdr {mac} dev mgre0 nud permanent"))?;
        hub.ip(&format!("route add {lan} via {own} dev mgre0"))?;
    }
    lab.works()?;
    // The neighbours themselves, to which no gateway leads.
    for own in ["10.255.0.1", "10.255.0.2"] {
        ping_until_answered(&lab.lab.hub, own, SOON)?;
        ping_all(&lab.lab.hub, own, 10)?;
    }
    Ok(())
}

/// As the kernel's own tunnels take it: the remote's IPv4 address in an IPv4-compatible one.
fn t1_ipv6_routes_name_the_remote_by_its_compatible_address(xdp: Xdp) -> Result<()> {
    let lab = Multipoint::start(xdp)?;
    let Multipoint { lab: Hub { hub, a, b, .. }, .. } = &lab;
    for namespace in [hub, a, b] {
        ipv6::enable(namespace)?;
    }
    hub.ip("addr add 2001:db8:255::3/128 dev mgre0 nodad")?;
    for (spoke, own, wan) in [(a, "2001:db8:255::1", WAN_A), (b, "2001:db8:255::2", WAN_B)] {
        spoke.ip(&format!("addr add {own}/128 dev hub nodad"))?;
        spoke.ip("route add 2001:db8:255::/64 dev hub")?;
        hub.ip(&format!("route add {own}/128 via ::{wan} dev mgre0 onlink"))?;
        ping_until_answered(hub, own, SOON)?;
        let before = lab.hub.packets("mgre0")?;
        ping_all(hub, own, 20)?;
        let found = lab.hub.packets("mgre0")? - before;
        assert_eq!((found.tx(), found.rx(), found.drops), (20, 20, 0), "to {own}");
    }
    one_row(hub, "mgre0")
}

/// R2's tunnel has any local address: the kernel would choose that of the way to the remote.
fn l2_a_tunnel_with_any_local_address_takes_what_its_remote_sends(xdp: Xdp) -> Result<()> {
    let [r1, _] = Gateway::both();
    let r2 = Gateway::new("any", R1_WAN)
        .address("172.16.168.1", "172.16.168.2")
        .routes(&["192.168.150.0/24"]);
    let gateways = Gateways::start(xdp, [r1, r2])?;
    gateways.settle()?;
    let Gateways { lab, .. } = &gateways;
    for (from, to) in [(&lab.pc1, PC2), (&lab.pc2, PC1)] {
        let found = gateways.during(|| ping_all(from, to, 20))?;
        assert_eq!(found, [gateways.ping_counts(20); 2], "to {to}");
    }
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::Seconds(1), flow)?;
    }
    Ok(())
}

fn l4_a_tunnel_with_neither_address_takes_what_no_other_does(xdp: Xdp) -> Result<()> {
    let [r1, _] = Gateway::both();
    let r2 = Gateway::new("any", "any").address("172.16.168.1", "172.16.168.2");
    let gateways = Gateways::start(xdp, [r1, r2])?;
    let Gateways { lab, .. } = &gateways;
    lab.r2.ip(&format!("route add 192.168.150.0/24 via {R1_WAN} dev tunnel0 onlink"))?;
    gateways.settle()?;
    let found = gateways.during(|| ping_all(&lab.pc1, PC2, 20))?;
    assert_eq!(found, [gateways.ping_counts(20); 2]);

    // One that fits better takes it all; its routes are what was lacking, so no answer comes back.
    xgre(&lab.r2, &format!("tunnel add better mode gre local {R2_WAN} remote {R1_WAN} ttl 245"))?;
    lab.r2.ip("link set better up")?;
    wait_until("the better match counts", SOON, || {
        let before = gateways.r2.packets("better")?;
        ping_all(&lab.pc1, PC2, 3)?;
        let found = (gateways.r2.packets("better")? - before).rx();
        ensure!(found == 3, "{found}");
        Ok(())
    })
}

fn l1_tunnels_between_the_same_addresses_are_told_apart_by_their_keys(xdp: Xdp) -> Result<()> {
    let configs = Gateway::both().map(|config| {
        let mut all = config.clone();
        for key in [0, 1, u32::MAX] {
            let name = format!("key{key}");
            let name = &name[..name.len().min(13)];
            all = all.and(config.clone().without_places().name(name).key(Some(key)));
        }
        all
    });
    let gateways = Gateways::start(xdp, configs)?;
    gateways.settle()?;
    let Gateways { lab, .. } = &gateways;
    for name in ["key0", "key1", "key4294967295", "tunnel0"] {
        lab.r1.ip(&format!("route replace 192.168.110.0/24 dev {name}"))?;
        lab.r2.ip(&format!("route replace 192.168.150.0/24 dev {name}"))?;
        wait_until(&format!("{name} carries all, and no other any"), SOON, || {
            for daemon in [&gateways.r1, &gateways.r2] {
                let all = ["key0", "key1", "key4294967295", "tunnel0"];
                let read = || -> Result<Vec<Packets>> {
                    all.iter().map(|name| daemon.packets(name)).collect()
                };
                let before = read()?;
                ping_all(&lab.pc1, PC2, 5)?;
                for ((after, before), of) in read()?.into_iter().zip(before).zip(all) {
                    let expected =
                        if of == name { gateways.ping_counts(5) } else { Packets::default() };
                    ensure!(after - before == expected, "{of}: {:?}", after - before);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// R2's tunnel is bound: to the interface that its packets arrive by, and then to another.
fn a_bound_tunnel_sends_and_takes_by_its_interface_alone(xdp: Xdp) -> Result<()> {
    let [r1, r2] = Gateway::both();
    let gateways = Gateways::start(xdp, [r1, r2.options(&["dev = \"wan\""])])?;
    gateways.settle()?;
    let Gateways { lab, .. } = &gateways;
    let found = gateways.during(|| ping_all(&lab.pc1, PC2, 20))?;
    assert_eq!(found, [gateways.ping_counts(20); 2]);
    let shown = xgre(&lab.r2, "tunnel show tunnel0")?;
    ensure!(shown.contains("dev wan"), "{shown}");

    // What is bound to another interface cannot be sent: no route leads to the remote there.
    xgre(&lab.r2, "tunnel change tunnel0 dev lan")?;
    ping_none(&lab.pc1, PC2)?;
    let shown = xgre(&lab.r2, "tunnel show tunnel0")?;
    let why = format!("no route to {R1_WAN} out of lan");
    ensure!(shown.contains(&why), "no \"{why}\" in\n{shown}");
    Ok(())
}
