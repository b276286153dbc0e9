//! The bridge
//!
//! ```text
//!   host0 ---- lan0 +-----+ lan1 ---- host1
//!                   | br0 |
//!                   +-----+ gretap1 ---- p-gretap1
//! ```
//!
//! as it is in the snapshot, and what the data plane makes of it where XDP runs on the LAN's members.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use gre_ebpf_common::wire::ethernet::Mac;
use gre_userspace::{
    dataplane::{self, Allocated, Attachment, DataPlane, Known},
    model::{Desired, Mode, Tunnel},
    monitor,
    netlink::Kernel,
    observed::{Snapshot, Station, StationKind},
};
use proptest::{
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use tokio::{sync::watch, time::timeout};

use crate::{by_name, in_namespace, ip, sysctl, until};

const HOST: &str = "02:00:00:00:01:01";

#[test]
fn addresses_are_followed_from_member_to_member_until_they_are_forgotten() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        let mut watched = monitor::watch(&kernel).await.unwrap();
        assert_eq!(stations(&watched.borrow()), []);

        // Learned from a frame.
        ip(&format!("link set host0 address {HOST}"));
        ip("addr add 192.0.2.1/24 dev host0");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:01:02 dev host0");
        UdpSocket::bind("192.0.2.1:0").unwrap().send_to(&[0], "192.0.2.2:9").unwrap();
        until_stations(&mut watched, &[(HOST, "lan0")]).await;
        let snapshot = kernel.snapshot().await.unwrap();
        let own: Vec<_> = snapshot.stations.iter().filter(|s| s.kind == StationKind::Own).collect();
        let links = by_name(&snapshot);
        for member in ["lan0", "lan1", "gretap1"] {
            let own_of = |station: &&&Station| Some(station.mac) == links[member].mac;
            assert!(own.iter().any(|station| own_of(&station)), "{member}'s own: {own:?}");
        }

        bridge(&format!("fdb replace {HOST} dev gretap1 master dynamic"));
        until_stations(&mut watched, &[(HOST, "gretap1")]).await;
        bridge("fdb add 02:00:00:00:01:09 dev lan1 master static");
        until_stations(&mut watched, &[(HOST, "gretap1"), ("02:00:00:00:01:09", "lan1")]).await;

        // In hundredths of a second.
        ip("link set br0 type bridge ageing_time 100");
        until_stations(&mut watched, &[("02:00:00:00:01:09", "lan1")]).await;
        bridge("fdb del 02:00:00:00:01:09 dev lan1 master");
        until_stations(&mut watched, &[]).await;
    });
}

#[test]
fn what_a_member_may_not_forward_is_left_to_the_kernel_at_once() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        bridge(&format!("fdb add {HOST} dev lan0 master static"));
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let [lan0, lan1, gretap1] = indexes(&watched.borrow());
        let all = BTreeSet::from([lan0, lan1, gretap1]);
        let without_it = BTreeSet::from([lan1, gretap1]);
        assert_eq!(members(&watched.borrow()), all);

        for (stop, resume) in [
            ("link set dev lan0 state 1", "link set dev lan0 state 3"),
            ("link set dev lan0 state 2", "link set dev lan0 state 3"),
            ("link set dev lan0 state 0", "link set dev lan0 state 3"),
            ("link set dev lan0 learning off", "link set dev lan0 learning on"),
            ("link set dev lan0 isolated on", "link set dev lan0 isolated off"),
            ("link set dev lan0 hairpin on", "link set dev lan0 hairpin off"),
            ("link set dev lan0 neigh_suppress on", "link set dev lan0 neigh_suppress off"),
        ] {
            bridge(stop);
            until_quoting(&mut watched, stop, |snapshot| {
                members(snapshot) == without_it && stations(snapshot).is_empty()
            })
            .await;
            bridge(resume);
            until_quoting(&mut watched, resume, |snapshot| members(snapshot) == all).await;
            if stations(&watched.borrow()).is_empty() {
                // The kernel has forgotten it, as it does when a member is disabled.
                bridge(&format!("fdb replace {HOST} dev lan0 master static"));
            }
            until_stations(&mut watched, &[(HOST, "lan0")]).await;
        }
    });
}

#[test]
fn nothing_is_left_of_a_member_that_goes_nor_of_a_bridge() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let [lan0, lan1, gretap1] = indexes(&watched.borrow());
        let learn =
            |mac: &str, member| bridge(&format!("fdb add {mac} dev {member} master static"));
        let (on_b, in_tunnel) = ("02:00:00:00:01:02", "02:00:00:00:01:03");
        learn(HOST, "lan0");
        learn(on_b, "lan1");
        learn(in_tunnel, "gretap1");
        until_stations(&mut watched, &[(HOST, "lan0"), (on_b, "lan1"), (in_tunnel, "gretap1")])
            .await;

        ip("link set lan0 nomaster");
        until_stations(&mut watched, &[(on_b, "lan1"), (in_tunnel, "gretap1")]).await;
        until(&mut watched, |snapshot| {
            members(snapshot) == BTreeSet::from([lan1, gretap1])
                && snapshot.links[&lan0].bridge_port.is_none()
        })
        .await;

        ip("link set lan1 down");
        until(&mut watched, |snapshot| members(snapshot) == BTreeSet::from([gretap1])).await;
        until_stations(&mut watched, &[(in_tunnel, "gretap1")]).await;

        ip("link set br0 down");
        until(&mut watched, |s| members(s).is_empty() && stations(s).is_empty()).await;
        ip("link set br0 up");
        until(&mut watched, |snapshot| members(snapshot) == BTreeSet::from([gretap1])).await;

        ip("link del br0");
        until(&mut watched, |snapshot| {
            members(snapshot).is_empty()
                && stations(snapshot).is_empty()
                && snapshot.stations.is_empty()
                && snapshot.links[&gretap1].bridge_port.is_none()
        })
        .await;
    });
}

#[test]
fn what_concerns_all_of_a_bridge_is_followed() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let br0 = by_name(&watched.borrow())["br0"].ifindex;
        let settings = |snapshot: &Snapshot| snapshot.links[&br0].bridge.unwrap();
        let first = settings(&watched.borrow());
        assert_eq!((first.ageing_time, first.netfilter), (300_000, false));
        assert_eq!((first.vlan_filtering, first.multiple_spanning_trees), (false, false));

        ip("link set br0 type bridge ageing_time 0");
        until(&mut watched, |s| settings(s).ageing_time == 0 && members(s).is_empty()).await;
        ip("link set br0 type bridge ageing_time 2000");
        until(&mut watched, |s| settings(s).ageing_time == 20_000 && !members(s).is_empty()).await;

        // The kernel tells nobody of these.
        for setting in netfilter_settings() {
            sysctl(&setting, "1");
            until(&mut watched, |s| settings(s).netfilter && members(s).is_empty()).await;
            sysctl(&setting, "0");
            until(&mut watched, |s| !settings(s).netfilter && !members(s).is_empty()).await;
        }
        if !netfilter_settings().is_empty() {
            ip("link set br0 type bridge nf_call_iptables 1");
            until(&mut watched, |s| settings(s).netfilter && members(s).is_empty()).await;
        }
    });
}

#[test]
fn vlans_of_members_are_followed() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        let filter = Command::new("ip")
            .args("link set br0 type bridge vlan_filtering 1".split(' '))
            .output()
            .unwrap();
        if !filter.status.success() {
            let why = String::from_utf8(filter.stderr).unwrap();
            assert!(why.contains("Operation not supported"), "{why}");
            println!("skipped: this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)");
            let snapshot = kernel.snapshot().await.unwrap();
            assert_eq!(snapshot.bridge_vlans, BTreeMap::new());
            return;
        }
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let [lan0, ..] = indexes(&watched.borrow());
        let member = |snapshot: &Snapshot| compiled(snapshot).members[&lan0];
        assert!(member(&watched.borrow()).filters_vlans());
        assert_eq!(member(&watched.borrow()).pvid, 1, "as each member has at first");

        bridge("vlan add vid 5-9 dev lan0");
        bridge(&format!("fdb add {HOST} dev lan0 vlan 7 master static"));
        // VLAN, and whether frames leave without a tag.
        let vlans = |snapshot: &Snapshot| -> Vec<(u16, bool)> {
            let stations = compiled(snapshot).stations;
            stations.iter().map(|(at, station)| (at.vlan, station.untagged == 1)).collect()
        };
        until(&mut watched, |snapshot| vlans(snapshot) == [(7, false)]).await;
        bridge("vlan add vid 7 dev lan0 pvid untagged");
        until(&mut watched, |s| vlans(s) == [(7, true)] && member(s).pvid == 7).await;

        bridge("vlan set vid 7 dev lan0 state blocking");
        until(&mut watched, |s| vlans(s).is_empty() && member(s).pvid == 0).await;
        bridge("vlan set vid 7 dev lan0 state forwarding");
        until(&mut watched, |s| vlans(s) == [(7, true)] && member(s).pvid == 7).await;

        bridge("vlan del vid 7 dev lan0");
        until(&mut watched, |s| vlans(s).is_empty() && member(s).pvid == 0).await;
        ip("link set br0 type bridge vlan_filtering 0");
        until(&mut watched, |snapshot| !member(snapshot).filters_vlans()).await;
    });
}

/// One of those that hosts, users and a spanning tree cause.
#[derive(Debug, Clone)]
enum Event {
    Learn { host: u8, member: usize, kind: &'static str },
    Forget { host: u8, member: usize },
    Own { host: u8, member: usize },
    State { member: usize, state: u8 },
    Learning { member: usize, on: bool },
    Leave { member: usize },
    Join { member: usize },
}

const MEMBERS: [&str; 3] = ["lan0", "lan1", "gretap1"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (host, member) = (0..6u8, 0..MEMBERS.len());
    let at = (host, member.clone());
    let kind = prop_oneof![Just("dynamic"), Just("static"), Just("dynamic extern_learn")];
    let event = prop_oneof![
        8 => (at.clone(), kind).prop_map(|((host, member), kind)| Event::Learn { host, member, kind }),
        3 => at.clone().prop_map(|(host, member)| Event::Forget { host, member }),
        1 => at.prop_map(|(host, member)| Event::Own { host, member }),
        2 => (member.clone(), prop_oneof![Just(0), Just(1), Just(2), Just(3), Just(3)])
            .prop_map(|(member, state)| Event::State { member, state }),
        1 => (member.clone(), any::<bool>())
            .prop_map(|(member, on)| Event::Learning { member, on }),
        1 => member.clone().prop_map(|member| Event::Leave { member }),
        2 => member.prop_map(|member| Event::Join { member }),
    ];
    proptest::collection::vec(event, 30)
}

impl Event {
    /// What is refused, because the member is not in the bridge, changes nothing.
    fn happen(&self) {
        let mac = |host: u8| format!("02:00:00:00:02:{host:02x}");
        let _ = match self {
            Self::Learn { host, member, kind } => try_bridge(&format!(
                "fdb replace {} dev {} master {kind}",
                mac(*host),
                MEMBERS[*member]
            )),
            Self::Forget { host, member } => {
                try_bridge(&format!("fdb del {} dev {} master", mac(*host), MEMBERS[*member]))
            }
            Self::Own { host, member } => {
                let (mac, member) = (mac(*host), MEMBERS[*member]);
                try_bridge(&format!("fdb replace {mac} dev {member} master permanent"))
            }
            Self::State { member, state } => {
                try_bridge(&format!("link set dev {} state {state}", MEMBERS[*member]))
            }
            Self::Learning { member, on } => {
                let word = if *on { "on" } else { "off" };
                try_bridge(&format!("link set dev {} learning {word}", MEMBERS[*member]))
            }
            Self::Leave { member } => {
                ip(&format!("link set {} nomaster", MEMBERS[*member]));
                Ok(String::new())
            }
            Self::Join { member } => {
                ip(&format!("link set {} master br0", MEMBERS[*member]));
                Ok(String::new())
            }
        };
    }
}

#[test]
fn whatever_happens_the_stations_are_those_that_iproute2_shows() {
    in_namespace(|kernel| async move {
        make_bridge(&kernel).await;
        let mut watched = monitor::watch(&kernel).await.unwrap();
        let mut runner = TestRunner::default();
        let mut compared = 0;
        for _ in 0..4 {
            let events = events().new_tree(&mut runner).unwrap().current();
            for (happened, event) in events.iter().enumerate() {
                event.happen();
                let shown = shown_stations();
                compared += shown.len();
                until_quoting(&mut watched, &format!("{:?}", &events[..=happened]), |snapshot| {
                    stations(snapshot).into_iter().collect::<BTreeSet<_>>() == shown
                })
                .await;
            }
        }
        assert!(compared > 0, "nothing was ever forwarded");
    });
}

/// Address and member of what `bridge` shows as hosts behind members that forward, where the tunnel's
/// device is one of the members.
fn shown_stations() -> BTreeSet<(String, String)> {
    let json = |arguments: &str| -> Vec<serde_json::Value> {
        serde_json::from_str(&bridge(arguments)).unwrap()
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let links = json("-j -d link show");
    let is_joined = links.iter().any(|link| text(&link["ifname"]) == "gretap1");
    let forwards: BTreeSet<String> = links
        .iter()
        .filter(|link| text(&link["state"]) == "forwarding" && link["learning"] == true)
        .map(|link| text(&link["ifname"]))
        .filter(|_| is_joined)
        .collect();
    json("-j fdb show br br0")
        .iter()
        .filter(|entry| text(&entry["master"]) == "br0" && text(&entry["state"]) != "permanent")
        .map(|entry| (text(&entry["mac"]), text(&entry["ifname"])))
        .filter(|(_, member)| forwards.contains(member))
        .collect()
}

/// br0 with its members, all up.
async fn make_bridge(kernel: &Kernel) {
    for setting in netfilter_settings() {
        sysctl(&setting, "0");
    }
    ip("link add br0 type bridge");
    ip("link set br0 addrgenmode none up");
    for (member, other) in [("lan0", "host0"), ("lan1", "host1")] {
        ip(&format!("link add {member} type veth peer name {other}"));
        ip(&format!("link set {other} addrgenmode none up"));
        ip(&format!("link set {member} addrgenmode none master br0 up"));
    }
    let alias = "xgre config mode gretap";
    kernel.create_tunnel_device("gretap1", "p-gretap1", 1462, alias, true).await.unwrap();
    ip("link set gretap1 master br0 up");
}

/// Settings with which iptables see the frames of all bridges; none without br_netfilter.
fn netfilter_settings() -> Vec<String> {
    let settings =
        ["iptables", "ip6tables"].map(|tables| format!("bridge/bridge-nf-call-{tables}"));
    if Path::new("/proc/sys/net/bridge").exists() {
        settings.into()
    } else {
        println!("not tried: this kernel has no br_netfilter, so that netfilter sees no bridge");
        Vec::new()
    }
}

fn indexes(snapshot: &Snapshot) -> [u32; 3] {
    let links = by_name(snapshot);
    MEMBERS.map(|name| links[name].ifindex)
}

/// What the data plane is made of it where XDP runs on the LAN's members.
fn compiled(snapshot: &Snapshot) -> DataPlane {
    let ends = [[192, 0, 2, 1].into(), [198, 51, 100, 1].into()];
    let gretap = Tunnel::new("gretap1", Mode::Gretap, ends[0], ends[1]);
    let tunnels = [("gretap1".to_owned(), gretap)].into();
    let desired = Desired { tunnels, ..Desired::default() };
    let links = by_name(snapshot);
    let ports = ["lan0", "lan1"].map(|name| (links[name].ifindex, Attachment::Native)).into();
    dataplane::compile(&desired, snapshot, &ports, &Known::default(), &mut Allocated::default()).0
}

fn members(snapshot: &Snapshot) -> BTreeSet<u32> {
    compiled(snapshot).members.into_keys().collect()
}

/// Address and member's name.
fn stations(snapshot: &Snapshot) -> Vec<(String, String)> {
    let plane = compiled(snapshot);
    let written = |mac: Mac| {
        let find = |station: &&Station| Mac::from_bytes(station.mac) == mac;
        let octets = snapshot.stations.iter().find(find).unwrap().mac;
        octets.map(|octet| format!("{octet:02x}")).join(":")
    };
    plane
        .stations
        .iter()
        .map(|(at, station)| (written(at.mac), snapshot.links[&station.member].name.clone()))
        .collect()
}

async fn until_stations(watched: &mut watch::Receiver<Arc<Snapshot>>, expected: &[(&str, &str)]) {
    let expected: BTreeSet<(String, String)> =
        expected.iter().map(|&(mac, member)| (mac.to_owned(), member.to_owned())).collect();
    let named = format!("{expected:?}");
    until_quoting(watched, &named, |snapshot| {
        stations(snapshot).into_iter().collect::<BTreeSet<_>>() == expected
    })
    .await;
}

/// As [`until`], naming what was waited for.
async fn until_quoting(
    watched: &mut watch::Receiver<Arc<Snapshot>>,
    what: &str,
    condition: impl Fn(&Snapshot) -> bool,
) {
    let published = watched.wait_for(|snapshot| condition(snapshot));
    let found = matches!(timeout(Duration::from_secs(20), published).await, Ok(Ok(_)));
    assert!(found, "{what}: not published in 20 s; the last: {:?}", watched.borrow().stations);
}

/// Runs `bridge` in the thread's namespace and returns what it prints.
fn bridge(arguments: &str) -> String {
    try_bridge(arguments).unwrap_or_else(|errors| panic!("bridge {arguments}: {errors}"))
}

fn try_bridge(arguments: &str) -> Result<String, String> {
    let output = Command::new("bridge").args(arguments.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
