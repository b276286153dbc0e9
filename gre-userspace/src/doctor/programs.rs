//! What else wants the packets: programs and filters of others on the ports, and the kernel's own GRE.

use super::{Facts, Finding, Port, configured};
use crate::model::Tunnel;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.ports().iter().flat_map(on_port).collect();
    findings.extend(kernel_tunnels(facts));
    findings
}

/// Foreign programs and filters on a port; TC's are asked after ours, or before.
fn on_port(port: &Port<'_>) -> Vec<Finding> {
    let name = &port.link.name;
    let foreign: Vec<_> = port.device.programs.iter().filter(|p| !p.is_ours()).collect();
    if foreign.is_empty() {
        return vec![Finding::ok("foreign-program", "no program of others is attached").of(name)];
    }
    let finding = |program: &&super::AttachedProgram| {
        let (hook, called) = (program.hook, &program.name);
        let id = program.id.map(|id| format!(" (id {id})")).unwrap_or_default();
        let found = format!("`{called}`{id} is attached to {hook}");
        if hook == "xdp" {
            return Finding::error("foreign-program", found)
                .of(name)
                .why("an interface has one XDP program: xgre forwards in TC and the kernel here")
                .fix(format!(
                    "ip link set dev {name} xdp off && ip link set dev {name} xdpgeneric off"
                ));
        }
        let direction = hook.strip_prefix("tc ").unwrap_or(hook);
        Finding::warning("foreign-program", found)
            .of(name)
            .why(
                "packets that XDP forwards do not pass it; of the others it may take some before xgre \
                 sees them",
            )
            .fix(format!("tc filter show dev {name} {direction}; bpftool net show dev {name}"))
    };
    foreign.iter().map(finding).collect()
}

/// Tunnels of the kernel's own: those between the same addresses as one of ours, and those that could be
/// faster.
fn kernel_tunnels(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "kernel-gre";
    let links = facts.snapshot.links.values();
    let kernels: Vec<&Tunnel> = links
        .filter_map(|link| link.tunnel.as_deref())
        .filter(|kernel| !kernel.is_fallback())
        .map(|kernel| &kernel.tunnel)
        .collect();
    let ours = facts.tunnels().filter(|tunnel| tunnel.adopted.is_none()).filter_map(configured);
    let alike = ours.flat_map(|ours| {
        let found = kernels.iter().filter(|theirs| theirs.identity() == ours.identity());
        found.map(|theirs| (ours.name.clone(), &theirs.name)).collect::<Vec<_>>()
    });
    let findings: Vec<_> = alike
        .map(|(ours, name)| {
            let found = format!("the kernel's tunnel {name} has the same ends and key");
            Finding::error(CHECK, found)
                .of(&ours)
                .why(
                    "packets that come in on a port of xgre never reach it, and those that come in \
                     elsewhere are its",
                )
                .fix(format!("ip link del {name}"))
        })
        .collect();
    if !findings.is_empty() {
        return findings;
    }
    let left_alone = facts.tunnels().filter(|tunnel| tunnel.adopted == Some(false)).count();
    let found = match (kernels.len(), left_alone) {
        (0, _) => "the kernel has no GRE tunnels of its own".to_owned(),
        (n, 0) => format!(
            "the kernel has {n} GRE tunnel(s) of its own, none with the ends of one of xgre's"
        ),
        (n, left_alone) => format!(
            "the kernel has {n} GRE tunnel(s) of its own, {left_alone} of which xgre leaves alone: \
             `xgre adopt all` accelerates them"
        ),
    };
    vec![Finding::ok(CHECK, found)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            AttachedProgram, Severity,
            testing::{facts, severities},
        },
        model::Mode,
        observed::{KernelTunnel, Link},
        testing::{link, tunnel},
    };

    #[test]
    fn programs_of_xgre_are_fine_and_others_are_told_with_name_and_number() {
        let mut facts = facts();
        let program = |hook, id, name: &str| AttachedProgram { hook, id, name: name.into() };
        let wan = facts.devices.get_mut(&2).unwrap();
        wan.programs =
            vec![program("xdp", Some(5), "xgre_xdp"), program("tc ingress", Some(6), "xgre_tc_in")];
        assert!(severities(check(&facts)).iter().all(|(_, severity)| *severity == Severity::Ok));

        let wan = facts.devices.get_mut(&2).unwrap();
        wan.programs =
            vec![program("xdp", Some(7), "xdp_filter"), program("tc ingress", None, "flower")];
        let found = check(&facts);
        assert_eq!(found[0].severity, Severity::Error);
        assert_eq!(found[0].found, "`xdp_filter` (id 7) is attached to xdp");
        assert_eq!(found[1].severity, Severity::Warning);
        assert_eq!(found[1].found, "`flower` is attached to tc ingress");
        assert!(found[1].fix.as_ref().unwrap().starts_with("tc filter show dev wan ingress"));
    }

    #[test]
    fn a_tunnel_of_the_kernels_with_the_same_ends_is_an_error() {
        let with = |theirs: Tunnel| {
            let mut facts = self::facts();
            let kernel =
                KernelTunnel { tunnel: theirs, beyond: vec![], qdisc: None, filtered: false };
            let device = Link { tunnel: Some(Box::new(kernel)), mac: None, ..link(9, "gre1") };
            facts.snapshot.links.insert(9, device);
            kernel_tunnels(&facts).remove(0)
        };
        let theirs = tunnel("gre1");
        let found = with(theirs.clone());
        assert_eq!(
            (found.severity, found.fix.as_deref()),
            (Severity::Error, Some("ip link del gre1"))
        );
        for other in [
            Tunnel { ikey: Some(1), ..theirs.clone() },
            Tunnel { mode: Mode::Gretap, ..theirs.clone() },
            Tunnel { remote: [198, 51, 100, 2].into(), ..theirs },
        ] {
            assert_eq!(with(other).severity, Severity::Ok);
        }
    }
}
