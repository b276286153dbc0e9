//! Rules of netfilter that packets of tunnels meet on their way through the kernel, and would not meet
//! where XDP forwards them.

use super::{Facts, Finding};
use crate::{dataplane::meets, model::Netfilter, observed::FilterChain, report::TunnelInfo};

const CHECK: &str = "netfilter";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let chains = match &facts.filters {
        Ok(chains) => chains,
        Err(reason) => {
            return vec![
                Finding::note(CHECK, reason)
                    .why("rules that XDP would bypass are not told")
                    .fix("sudo xgre doctor"),
            ];
        }
    };
    if facts.daemon.is_err() {
        return vec![of_machine(chains)];
    }
    facts.tunnels().map(|tunnel| of_tunnel(facts, tunnel, chains)).collect()
}

/// Without tunnels there is only to say what they would meet.
fn of_machine(chains: &[FilterChain]) -> Finding {
    match chains.first() {
        None => Finding::ok(CHECK, "no rule of netfilter is on the way of forwarded packets"),
        Some(first) => Finding::note(CHECK, told(chains))
            .why(
                "tunnels whose packets would meet them are left to the kernel, unless they have \
                 netfilter = \"bypass\"",
            )
            .fix(first.listing()),
    }
}

fn of_tunnel(facts: &Facts, tunnel: &TunnelInfo, chains: &[FilterChain]) -> Finding {
    let is_port = |name: &str| facts.ports().iter().any(|port| port.link.name == name);
    let ethernet = matches!(tunnel.mode.as_str(), "gretap" | "ip6gretap");
    let met: Vec<_> = chains
        .iter()
        .filter(|chain| meets(chain, &tunnel.name, ethernet, is_port))
        .cloned()
        .collect();
    let name = &tunnel.name;
    let Some(first) = met.first() else {
        return Finding::ok(CHECK, "no rule of netfilter is on the way of its packets").of(name);
    };
    let change =
        |to: Netfilter| format!("{}; xgre tunnel change {name} netfilter {to}", first.listing());
    let finding = if tunnel.netfilter == Netfilter::Bypass.to_string() {
        Finding::note(CHECK, format!("it bypasses {}", told(&met)))
            .why(
                "neither these rules nor NAT nor conntrack see what XDP forwards; it has netfilter \
                 = \"bypass\"",
            )
            .fix(change(Netfilter::Respect))
    } else {
        Finding::warning(CHECK, format!("it is not accelerated: it respects {}", told(&met)))
            .why(
                "XDP would bypass these rules, and NAT and conntrack with them, so that TC and the \
                 kernel do its work, which is several times slower. Where its packets need none of \
                 them, let it bypass them",
            )
            .fix(change(Netfilter::Bypass))
    };
    finding.of(name)
}

fn told(chains: &[FilterChain]) -> String {
    let all: Vec<_> = chains.iter().map(ToString::to_string).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Severity,
            testing::{facts, troubles},
        },
        observed::{FilterFamily, FilterHook},
        testing::filter_chain,
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

    fn with_chain(family: FilterFamily, devices: &[&str]) -> Facts {
        let devices = devices.iter().map(ToString::to_string).collect();
        let hook =
            if family == FilterFamily::Netdev { FilterHook::Ingress } else { FilterHook::Forward };
        Facts {
            filters: Ok(vec![FilterChain { devices, ..filter_chain(family, hook) }]),
            ..facts()
        }
    }

    #[test]
    fn a_tunnel_that_respects_rules_is_slow_and_one_that_bypasses_them_is_noted() {
        let mut facts = with_chain(FilterFamily::Inet, &[]);
        let found = check(&facts).remove(0);
        assert_eq!(found.severity, Severity::Warning);
        let expected =
            "it is not accelerated: it respects chain c of table inet t (forward, 1 rule)";
        assert_eq!(found.found, expected);
        let fix = "nft list chain inet t c; xgre tunnel change tunnel0 netfilter bypass";
        assert_eq!(found.fix.unwrap(), fix);

        facts.daemon.as_mut().unwrap().tunnels[0].netfilter = "bypass".into();
        let found = check(&facts).remove(0);
        assert_eq!(found.severity, Severity::Note);
        assert_eq!(found.found, "it bypasses chain c of table inet t (forward, 1 rule)");
    }

    #[test]
    fn a_tunnel_meets_the_chains_of_its_kind_and_of_its_devices() {
        let meets = |facts: &Facts| check(facts)[0].severity == Severity::Warning;
        assert!(!meets(&with_chain(FilterFamily::Bridge, &[])), "it carries packets, not frames");
        assert!(!meets(&with_chain(FilterFamily::Netdev, &["eth9"])));
        for device in ["lan", "tunnel0"] {
            assert!(meets(&with_chain(FilterFamily::Netdev, &["eth9", device])), "{device}");
        }
        let gretap = |family| {
            let mut facts = with_chain(family, &[]);
            facts.daemon.as_mut().unwrap().tunnels[0].mode = "gretap".into();
            meets(&facts)
        };
        assert!(gretap(FilterFamily::Bridge));
        assert!(!gretap(FilterFamily::Ip), "it carries frames, not packets");
    }

    #[test]
    fn without_a_daemon_rules_are_only_noted() {
        let facts =
            Facts { daemon: Err("it does not run".into()), ..with_chain(FilterFamily::Ip, &[]) };
        assert_eq!(troubles(check(&facts)), [("netfilter", String::new(), Severity::Note)]);
    }
}
