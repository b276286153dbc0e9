//! Tunnels and their ways through the underlay: what keeps them from being fast, MTUs from end to end,
//! and next hops.

use std::net::IpAddr;

use super::{Facts, Finding, configured};
use crate::{
    dataplane::{RESPECTED, is_device},
    observed::{Link, NeighbourState},
    report::TunnelInfo,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    facts.tunnels().flat_map(|tunnel| of_tunnel(facts, tunnel)).collect()
}

fn of_tunnel(facts: &Facts, tunnel: &TunnelInfo) -> Vec<Finding> {
    let mut findings = vec![state(tunnel)];
    findings.extend(mismatch(tunnel));
    findings.extend(neighbour(facts, tunnel));
    findings.extend(mtu(tunnel));
    findings.extend(learned(tunnel));
    findings.extend(too_narrow(tunnel));
    findings.extend(bridge_mtu(facts, tunnel));
    findings.into_iter().map(|finding| finding.of(&tunnel.name)).collect()
}

fn state(tunnel: &TunnelInfo) -> Finding {
    const CHECK: &str = "tunnel";
    let TunnelInfo { name, remote, .. } = tunnel;
    if tunnel.ifindex.is_none() {
        return Finding::error(CHECK, "its device is gone")
            .why("nothing goes through it")
            .fix(format!("xgre tunnel del {name}; and add it again, or xgre apply"));
    }
    if !tunnel.up {
        return Finding::warning(CHECK, "its device is down")
            .why("nothing goes through it")
            .fix(format!("ip link set {name} up"));
    }
    let names_remote = !matches!(remote.as_str(), "0.0.0.0" | "::");
    if names_remote && tunnel.underlay.is_none() {
        return Finding::error(CHECK, format!("no route leads to {remote}"))
            .why("what is sent into it is dropped (no-route)")
            .fix(format!("ip route get {remote}; ip route add {remote} via GATEWAY"));
    }
    match &tunnel.why_not {
        None => Finding::ok(CHECK, "it is up and accelerated"),
        // What that means is told with the rules.
        Some(why_not) if why_not.starts_with(RESPECTED) => {
            Finding::ok(CHECK, "it is up, and the kernel does its work")
        }
        Some(why_not) => Finding::warning(CHECK, format!("it is not accelerated: {why_not}"))
            .why("TC and the kernel do its work, which is several times slower")
            .fix(command_in(why_not).unwrap_or_else(|| format!("xgre tunnel show {name}"))),
    }
}

/// The command that a sentence names in backquotes.
fn command_in(sentence: &str) -> Option<String> {
    sentence.split('`').nth(1).map(str::to_owned)
}

fn mismatch(tunnel: &TunnelInfo) -> Option<Finding> {
    let mismatch = tunnel.mismatch.as_ref()?;
    let (packets, reason) = (mismatch.packets, &mismatch.reason);
    let (sends, expects) = (&mismatch.sends, &mismatch.expects);
    let found = format!("the peer sends {sends}, and {expects} is expected ({reason})");
    Some(
        Finding::error("mismatch", found)
            .why(format!("{packets} of its packets have been dropped"))
            .fix(&mismatch.fix),
    )
}

/// The next hop on the underlay, whose MAC address XDP needs.
fn neighbour(facts: &Facts, tunnel: &TunnelInfo) -> Option<Finding> {
    const CHECK: &str = "neighbour";
    let (via, underlay) = (tunnel.via.as_ref()?, tunnel.underlay.as_ref()?);
    let link = facts.link_named(underlay).filter(|link| link.mac.is_some() && !is_device(link))?;
    let ip: IpAddr = via.parse().ok()?;
    let mut neighbours = facts.snapshot.neighbours.iter();
    let found = neighbours.find(|found| (found.ifindex, found.ip) == (link.ifindex, ip));
    let hop = format!("the next hop, {via} on {underlay},");
    let ask = format!("ping -c 1 -I {underlay} {via}; ip neigh show {via} dev {underlay}");
    Some(match found.map(|found| found.state) {
        Some(NeighbourState::Valid | NeighbourState::Stale) => {
            Finding::ok(CHECK, format!("{hop} is resolved"))
        }
        Some(NeighbourState::Unresolved) => {
            let protocol = if ip.is_ipv4() { "ARP" } else { "neighbour discovery" };
            Finding::error(CHECK, format!("{hop} does not answer {protocol}"))
                .why("what is sent into the tunnel is lost")
                .fix(ask)
        }
        None => Finding::note(CHECK, format!("{hop} has not been asked for yet"))
            .why("XDP leaves packets to the kernel until it is resolved")
            .fix(ask),
    })
}

/// The device's MTU against what the path takes.
fn mtu(tunnel: &TunnelInfo) -> Option<Finding> {
    const CHECK: &str = "mtu";
    let (mtu, payload) = (tunnel.mtu?, tunnel.payload_mtu?);
    let overhead = configured(tunnel)?.overhead();
    let underlay = payload + overhead;
    let sum = format!("the path takes {underlay} bytes, {overhead} of them for headers");
    if mtu <= payload {
        return Some(Finding::ok(CHECK, format!("its MTU is {mtu}: {sum}")));
    }
    let name = &tunnel.name;
    let found = format!("its MTU is {mtu}, and in one piece {payload} bytes get through: {sum}");
    let fix = format!("ip link set dev {name} mtu {payload}");
    // As whoever bridges full frames asks for.
    if !tunnel.pmtudisc && is_ethernet(tunnel) {
        return Some(
            Finding::note(CHECK, found).why("longer frames go in outer fragments, by TC").fix(fix),
        );
    }
    Some(
        Finding::warning(CHECK, found)
            .why(
                "XDP leaves longer packets to TC and the daemon, which cut them or tell their senders by \
                 ICMP",
            )
            .fix(fix),
    )
}

fn is_ethernet(tunnel: &TunnelInfo) -> bool {
    matches!(tunnel.mode.as_str(), "gretap" | "ip6gretap")
}

/// What routers have said of the path.
fn learned(tunnel: &TunnelInfo) -> Vec<Finding> {
    let finding = |path: &crate::report::PathMtu| {
        let (remote, mtu, seconds) = (&path.remote, path.mtu, path.expires_in);
        Finding::note(
            "path-mtu",
            format!(
                "a router says that the path to {remote} takes {mtu} bytes (for {seconds} s more)"
            ),
        )
        .why("a link on the way has a smaller MTU than the underlay here")
        .fix(format!("ip route get {remote}; tracepath -n {remote}"))
    };
    tunnel.path_mtus.iter().map(finding).collect()
}

fn too_narrow(tunnel: &TunnelInfo) -> Option<Finding> {
    if !tunnel.fragments_ipv6() {
        return None;
    }
    let (payload, underlay) = (tunnel.payload_mtu?, tunnel.underlay.as_deref().unwrap_or("DEV"));
    let needed = 1280 + configured(tunnel)?.overhead();
    Some(
        Finding::warning(
            "path-ipv6",
            format!("the path carries {payload} of the 1280 bytes that IPv6 is promised"),
        )
        .why("IPv6 packets that are longer go in outer fragments, which is slow (RFC 7676, 3.2)")
        .fix(format!("ip link set dev {underlay} mtu {needed}; xgre tunnel probe {}", tunnel.name)),
    )
}

/// Members of the bridge that a tunnel of Ethernet joins, and the bridge itself.
fn bridge_mtu(facts: &Facts, tunnel: &TunnelInfo) -> Option<Finding> {
    const CHECK: &str = "bridge-mtu";
    let device = facts.snapshot.links.get(&tunnel.ifindex?)?;
    let bridge = device.bridge_port.and(device.master)?;
    let is_of_it = |link: &&Link| {
        link.ifindex != device.ifindex && (link.ifindex == bridge || link.master == Some(bridge))
    };
    let longest = facts.snapshot.links.values().filter(is_of_it).max_by_key(|link| link.mtu)?;
    if longest.mtu <= device.mtu {
        return Some(Finding::ok(
            CHECK,
            format!("no member of its bridge has a larger MTU than it, {}", device.mtu),
        ));
    }
    let (name, mtu) = (&tunnel.name, longest.mtu);
    let fragments = if tunnel.pmtudisc {
        format!("xgre tunnel change {name} nopmtudisc; ")
    } else {
        String::new()
    };
    let cut = format!("{fragments}ip link set dev {name} mtu {mtu}");
    Some(
        Finding::warning(
            CHECK,
            format!(
                "its MTU is {}, and {} in the same bridge has {mtu}",
                device.mtu, longest.name
            ),
        )
        .why(
            "the kernel's bridge drops longer frames without a word; only senders that XDP knows are \
             told. With the command they go in outer fragments; or give the hosts the smaller MTU \
             (DHCP option 26), or clamp their TCP (mss = \"auto\")",
        )
        .fix(cut),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Severity,
            testing::{facts, troubles, with_tunnel},
        },
        report::{Mismatch, PathMtu},
        testing::{bridge, member},
    };

    /// What is not fine of tunnel0.
    fn of(facts: &Facts) -> Vec<(&'static str, Severity)> {
        troubles(check(facts)).into_iter().map(|(check, _, severity)| (check, severity)).collect()
    }

    fn fix(facts: &Facts, wanted: &str) -> String {
        let found = check(facts).into_iter().find(|finding| finding.check == wanted);
        found.and_then(|finding| finding.fix).unwrap()
    }

    #[test]
    fn a_tunnel_whose_path_takes_its_mtu_is_fine() {
        assert_eq!(of(&facts()), []);
        let found = check(&facts()).into_iter().find(|found| found.check == "mtu").unwrap();
        let expected = "its MTU is 1476: the path takes 1500 bytes, 24 of them for headers";
        assert_eq!(found.found, expected);
    }

    #[test]
    fn what_keeps_a_tunnel_from_working_is_told_first() {
        let gone = with_tunnel(|tunnel| tunnel.ifindex = None);
        assert_eq!(of(&gone), [("tunnel", Severity::Error)]);
        let down = with_tunnel(|tunnel| tunnel.up = false);
        assert_eq!(of(&down), [("tunnel", Severity::Warning)]);
        assert_eq!(fix(&down, "tunnel"), "ip link set tunnel0 up");
        let lost = with_tunnel(|tunnel| (tunnel.underlay, tunnel.via) = (None, None));
        assert_eq!(of(&lost), [("tunnel", Severity::Error)]);
        let wildcard = with_tunnel(|tunnel| {
            (tunnel.underlay, tunnel.via, tunnel.remote) = (None, None, "0.0.0.0".into());
        });
        assert_eq!(of(&wildcard), []);
        let slow = with_tunnel(|tunnel| {
            tunnel.why_not =
                Some("policy routing rules are in use: the kernel routes (`ip rule`)".into());
        });
        assert_eq!(of(&slow), [("tunnel", Severity::Warning)]);
        assert_eq!(fix(&slow, "tunnel"), "ip rule");
    }

    #[test]
    fn a_mismatch_is_an_error_with_the_daemons_own_command() {
        let facts = with_tunnel(|tunnel| {
            tunnel.mismatch = Some(Mismatch {
                reason: "key-mismatch".into(),
                sends: "key 42".into(),
                expects: "no key".into(),
                since: 0,
                last: 0,
                packets: 5,
                fix: "xgre tunnel change tunnel0 key 42".into(),
            });
        });
        assert_eq!(of(&facts), [("mismatch", Severity::Error)]);
        assert_eq!(fix(&facts, "mismatch"), "xgre tunnel change tunnel0 key 42");
    }

    #[test]
    fn a_next_hop_that_does_not_answer_is_an_error_and_one_not_asked_a_note() {
        let mut facts = facts();
        facts.snapshot.neighbours[0].state = NeighbourState::Stale;
        assert_eq!(of(&facts), []);
        facts.snapshot.neighbours[0].state = NeighbourState::Unresolved;
        assert_eq!(of(&facts), [("neighbour", Severity::Error)]);
        facts.snapshot.neighbours.clear();
        assert_eq!(of(&facts), [("neighbour", Severity::Note)]);
        assert!(fix(&facts, "neighbour").starts_with("ping -c 1 -I wan 192.0.2.254"));
    }

    #[test]
    fn an_mtu_beyond_the_paths_is_told_with_the_one_that_fits() {
        let facts = with_tunnel(|tunnel| tunnel.mtu = Some(1477));
        assert_eq!(of(&facts), [("mtu", Severity::Warning)]);
        assert_eq!(fix(&facts, "mtu"), "ip link set dev tunnel0 mtu 1476");
        let bridged = with_tunnel(|tunnel| {
            (tunnel.mode, tunnel.pmtudisc, tunnel.mtu) = ("gretap".into(), false, Some(1500));
        });
        assert_eq!(of(&bridged), [("mtu", Severity::Note)]);
    }

    #[test]
    fn what_routers_have_said_is_passed_on() {
        let facts = with_tunnel(|tunnel| {
            let remote = "198.51.100.1".to_owned();
            tunnel.path_mtus = vec![PathMtu { remote, mtu: 1290, expires_in: 9 }];
            (tunnel.payload_mtu, tunnel.mtu) = (Some(1266), Some(1280));
        });
        let expected = [
            ("mtu", Severity::Warning),
            ("path-mtu", Severity::Note),
            ("path-ipv6", Severity::Warning),
        ];
        assert_eq!(of(&facts), expected);
        assert!(fix(&facts, "path-ipv6").starts_with("ip link set dev wan mtu 1304;"));
    }

    #[test]
    fn a_bridge_with_a_larger_mtu_than_the_tunnels_device_is_a_warning() {
        let mut facts = with_tunnel(|tunnel| {
            (tunnel.mode, tunnel.mtu, tunnel.payload_mtu) =
                ("gretap".into(), Some(1462), Some(1462));
        });
        let links = &mut facts.snapshot.links;
        let (device, lan) = (member(links[&4].clone(), 10), member(links[&3].clone(), 10));
        let br0 = Link { mtu: 1462, ..bridge(10, "br0") };
        links.extend([(3, lan), (4, Link { mtu: 1462, ..device }), (10, br0)]);
        assert_eq!(of(&facts), [("bridge-mtu", Severity::Warning)]);
        assert_eq!(
            fix(&facts, "bridge-mtu"),
            "xgre tunnel change tunnel0 nopmtudisc; ip link set dev tunnel0 mtu 1500"
        );
        facts.snapshot.links.get_mut(&3).unwrap().mtu = 1462;
        assert_eq!(of(&facts), []);
    }
}
