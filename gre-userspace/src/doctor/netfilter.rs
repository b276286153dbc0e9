//! Rules of netfilter that packets of tunnels would meet on their way through the kernel, and do not
//! where XDP forwards them.

use super::{Facts, Finding};
use crate::observed::{FilterChain, FilterFamily};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "netfilter";
    let chains = match &facts.filters {
        Ok(chains) => chains,
        Err(reason) => {
            return vec![
                Finding::note(CHECK, reason)
                    .why("rules that XDP bypasses are not told")
                    .fix("sudo xgre doctor"),
            ];
        }
    };
    let findings: Vec<_> = chains
        .iter()
        .filter(|chain| is_on_the_way(facts, chain))
        .map(|chain| {
            Finding::warning(CHECK, chain.to_string())
                .why("it does not see packets that XDP forwards: neither its rules nor NAT apply to them")
                .fix(chain.listing())
        })
        .collect();
    if findings.is_empty() {
        let found = "no rule of netfilter is on the way of forwarded packets";
        return vec![Finding::ok(CHECK, found)];
    }
    findings
}

/// Whether packets of tunnels come by a chain at all.
fn is_on_the_way(facts: &Facts, chain: &FilterChain) -> bool {
    let is_ours = |name: &String| {
        facts.ports().iter().any(|port| port.link.name == *name)
            || facts.tunnels().any(|tunnel| tunnel.name == *name)
    };
    match chain.family {
        FilterFamily::Bridge => facts.ports().iter().any(|port| port.link.bridge_port.is_some()),
        _ if !chain.devices.is_empty() => chain.devices.iter().any(is_ours),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Severity,
            testing::{facts, troubles},
        },
        observed::FilterHook,
        testing::{filter_chain, member},
    };

    #[test]
    fn without_rules_nothing_is_bypassed() {
        assert_eq!(troubles(check(&facts())), []);
    }

    #[test]
    fn who_may_not_see_the_rules_is_told() {
        let mut facts = facts();
        facts.filters = Err("Operation not permitted".into());
        assert_eq!(troubles(check(&facts)), [("netfilter", String::new(), Severity::Note)]);
    }

    #[test]
    fn each_chain_on_the_way_is_told_with_the_command_that_shows_it() {
        let mut facts = facts();
        facts.filters = Ok(vec![filter_chain(FilterFamily::Inet, FilterHook::Forward)]);
        let found = check(&facts).remove(0);
        assert_eq!(found.severity, Severity::Warning);
        let expected = "chain c of table inet t (forward, 1 rule)";
        assert_eq!((&*found.found, &*found.fix.unwrap()), (expected, "nft list chain inet t c"));
    }

    #[test]
    fn chains_of_other_devices_and_of_bridges_without_a_port_are_not_on_the_way() {
        let mut facts = facts();
        let found = |facts: &Facts| troubles(check(facts)).len();
        let of_device = |device: &str| {
            let chain = filter_chain(FilterFamily::Netdev, FilterHook::Ingress);
            Ok(vec![FilterChain { devices: vec![device.into()], ..chain }])
        };
        facts.filters = of_device("eth9");
        assert_eq!(found(&facts), 0);
        for device in ["lan", "tunnel0"] {
            facts.filters = of_device(device);
            assert_eq!(found(&facts), 1, "{device}");
        }
        facts.filters = Ok(vec![filter_chain(FilterFamily::Bridge, FilterHook::Forward)]);
        assert_eq!(found(&facts), 0);
        let lan = member(facts.snapshot.links[&3].clone(), 10);
        facts.snapshot.links.insert(3, lan);
        assert_eq!(found(&facts), 1);
    }
}
