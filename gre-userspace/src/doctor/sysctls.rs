//! Settings of the kernel: forwarding, reverse path filters, and iptables for bridged frames.

use super::{Facts, Finding, Port};
use crate::{
    observed::{Link, RouteTarget, is_link_local},
    report::TunnelInfo,
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> =
        facts.ports().iter().flat_map(|port| port_forwarding(facts, port)).collect();
    findings.extend(facts.tunnels().flat_map(|tunnel| of_tunnel(facts, tunnel)));
    findings.extend(bridges(facts));
    findings
}

/// Whether an interface has an address of IPv4, or of IPv6 that is not for its link alone.
fn has_address(facts: &Facts, link: &Link, ipv4: bool) -> bool {
    let mut addresses = facts.snapshot.addresses.get(&link.ifindex).into_iter().flatten();
    addresses.any(|address| {
        let local = address.local.addr();
        local.is_ipv4() == ipv4 && !is_link_local(local)
    })
}

/// What arrives on a port is forwarded where the kernel would.
fn port_forwarding(facts: &Facts, port: &Port<'_>) -> Vec<Finding> {
    let link = port.link;
    // What is addressed to a bridge's member arrives on the bridge.
    if link.bridge_port.is_some() {
        return Vec::new();
    }
    let name = &link.name;
    let (all, here) =
        ("net.ipv4.ip_forward".to_owned(), format!("net.ipv4.conf.{name}.forwarding"));
    // Writing to the first sets it on all interfaces.
    let setting = if facts.ports().iter().all(|port| !port.link.forwarding) { all } else { here };
    let of4 = has_address(facts, link, true)
        .then(|| forwarding("forwarding", "IPv4", link, link.forwarding, &setting));
    let setting6 = "net.ipv6.conf.all.forwarding";
    let of6 = has_address(facts, link, false)
        .then(|| forwarding("forwarding6", "IPv6", link, link.forwarding6, setting6));
    of4.into_iter().chain(of6).collect()
}

fn forwarding(
    check: &'static str,
    version: &str,
    link: &Link,
    is_on: bool,
    setting: &str,
) -> Finding {
    let finding = if is_on {
        Finding::ok(check, format!("{version} is forwarded"))
    } else {
        Finding::warning(check, format!("forwarding of {version} is off"))
            .why("what arrives here for other hosts is dropped, by XDP and the kernel alike")
            .fix(format!("sysctl -w {setting}=1"))
    };
    finding.of(&link.name)
}

fn of_tunnel(facts: &Facts, tunnel: &TunnelInfo) -> Vec<Finding> {
    let device = tunnel.ifindex.and_then(|ifindex| facts.snapshot.links.get(&ifindex));
    // What is addressed to a bridge's member arrives on the bridge.
    let Some(device) = device.filter(|device| device.bridge_port.is_none()) else {
        return Vec::new();
    };
    let setting = format!("net.ipv4.conf.{}.forwarding", device.name);
    let mut findings = vec![forwarding("forwarding", "IPv4", device, device.forwarding, &setting)];
    if has_address(facts, device, false) {
        let setting = "net.ipv6.conf.all.forwarding";
        findings.push(forwarding("forwarding6", "IPv6", device, device.forwarding6, setting));
    }
    findings.push(reverse_path(facts, device));
    findings
}

/// Whether sources of what comes out of the tunnel must be routed back into it.
fn reverse_path(facts: &Facts, device: &Link) -> Finding {
    const CHECK: &str = "rp-filter";
    let name = &device.name;
    let fix = format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2");
    let finding = match device.rp_filter {
        0 => Finding::ok(CHECK, "rp_filter is off: any source may come out of it"),
        2 => Finding::ok(
            CHECK,
            "rp_filter is loose: sources that are routed anywhere may come out of it",
        ),
        _ if !leads_somewhere(facts, device) => Finding::error(
            CHECK,
            "rp_filter is strict, and nothing but its own prefix is routed into it",
        )
        .why("all else that comes out of the tunnel is dropped by the kernel")
        .fix(fix),
        _ => Finding::note(CHECK, "rp_filter is strict")
            .why("what comes out of the tunnel from sources that are not routed into it is dropped")
            .fix(fix),
    };
    finding.of(name)
}

/// Whether more than the prefixes of its own addresses is routed into a device.
fn leads_somewhere(facts: &Facts, device: &Link) -> bool {
    let own = facts.snapshot.addresses.get(&device.ifindex);
    let is_own = |destination: ipnet::IpNet| {
        own.into_iter().flatten().any(|address| {
            let prefix = address.peer.unwrap_or(address.local);
            prefix.trunc() == destination
        })
    };
    facts.snapshot.routes.iter().any(|route| {
        let leads_there = matches!(route.target, RouteTarget::Unicast { ifindex, .. } if ifindex == device.ifindex);
        leads_there && route.destination.addr().is_ipv4() && !is_own(route.destination)
    })
}

/// Bridges that tunnels are in, and whose frames iptables see.
fn bridges(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "bridge-nf-call";
    let mut masters: Vec<_> = facts
        .tunnels()
        .filter_map(|tunnel| facts.snapshot.links.get(&tunnel.ifindex?))
        .filter_map(|device| device.bridge_port.and(device.master))
        .collect();
    masters.sort_unstable();
    masters.dedup();
    let bridges = masters.into_iter().filter_map(|master| facts.snapshot.links.get(&master));
    bridges
        .filter_map(|link| Some((link, link.bridge?)))
        .map(|(link, bridge)| {
            if !bridge.netfilter {
                return Finding::ok(CHECK, "iptables does not see its frames").of(&link.name);
            }
            let name = &link.name;
            Finding::warning(CHECK, "iptables sees its frames")
                .of(name)
                .why("the kernel's bridge forwards them all, and XDP none")
                .fix(format!(
                    "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0; \
                     ip link set {name} type bridge nf_call_iptables 0 nf_call_ip6tables 0"
                ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Severity,
            testing::{facts, troubles},
        },
        testing::{address, bridge, member},
    };

    #[test]
    fn a_gateway_that_forwards_is_fine() {
        assert_eq!(troubles(check(&facts())), []);
    }

    #[test]
    fn forwarding_that_is_off_is_told_for_all_ports_or_for_one() {
        let mut facts = facts();
        let fixes = |facts: &Facts| -> Vec<_> {
            check(facts).into_iter().filter_map(|finding| finding.fix).collect()
        };
        facts.snapshot.links.get_mut(&3).unwrap().forwarding = false;
        assert_eq!(troubles(check(&facts)), [("forwarding", "lan".into(), Severity::Warning)]);
        assert_eq!(fixes(&facts), ["sysctl -w net.ipv4.conf.lan.forwarding=1"]);
        facts.snapshot.links.get_mut(&2).unwrap().forwarding = false;
        assert_eq!(fixes(&facts), ["sysctl -w net.ipv4.ip_forward=1"; 2]);
    }

    #[test]
    fn ipv6_is_looked_at_where_there_are_addresses() {
        let mut facts = facts();
        facts.snapshot.links.get_mut(&3).unwrap().forwarding6 = false;
        assert_eq!(troubles(check(&facts)), []);
        let addresses = facts.snapshot.addresses.get_mut(&3).unwrap();
        addresses.push(address("fe80::1/64"));
        assert_eq!(troubles(check(&facts)), [], "every interface has one for its link");
        facts.snapshot.addresses.get_mut(&3).unwrap().push(address("2001:db8::1/64"));
        assert_eq!(troubles(check(&facts)), [("forwarding6", "lan".into(), Severity::Warning)]);
    }

    #[test]
    fn a_strict_reverse_path_filter_matters_by_what_is_routed_into_the_tunnel() {
        let mut facts = facts();
        let severity = |facts: &Facts| reverse_path(facts, &facts.snapshot.links[&4]).severity;
        for (filter, expected) in [(0, Severity::Ok), (1, Severity::Note), (2, Severity::Ok)] {
            facts.snapshot.links.get_mut(&4).unwrap().rp_filter = filter;
            assert_eq!(severity(&facts), expected, "{filter}");
        }
        facts.snapshot.links.get_mut(&4).unwrap().rp_filter = 1;
        facts.snapshot.routes.truncate(2);
        assert_eq!(severity(&facts), Severity::Error, "its own prefix is all that is left");
    }

    #[test]
    fn iptables_on_a_bridge_with_a_tunnel_is_a_warning() {
        let mut facts = facts();
        let links = &mut facts.snapshot.links;
        let device = member(links[&4].clone(), 10);
        let mut br0 = bridge(10, "br0");
        links.extend([(4, device), (10, br0.clone())]);
        assert_eq!(troubles(bridges(&facts)), []);
        br0.bridge.as_mut().unwrap().netfilter = true;
        facts.snapshot.links.insert(10, br0);
        assert_eq!(
            troubles(bridges(&facts)),
            [("bridge-nf-call", "br0".into(), Severity::Warning)]
        );
    }
}
