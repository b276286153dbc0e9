//! What else wants the packets: programs and filters of others on the ports, and the kernel's own GRE.

use super::{Facts, Finding, Port, configured};

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

/// Tunnels of the kernel's between the same addresses as one of ours.
fn kernel_tunnels(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "kernel-gre";
    let alike = facts.tunnels().filter_map(configured).flat_map(|ours| {
        let is_alike = move |theirs: &&crate::netlink::KernelTunnel| {
            (theirs.mode, theirs.local, theirs.remote, theirs.ikey)
                == (ours.mode, ours.local, ours.remote, ours.ikey)
        };
        let found = facts.kernel_tunnels.iter().filter(is_alike);
        found.map(|theirs| (ours.name.clone(), theirs)).collect::<Vec<_>>()
    });
    let findings: Vec<_> = alike
        .map(|(ours, theirs)| {
            let name = &theirs.name;
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
    let found = match facts.kernel_tunnels.len() {
        0 => "the kernel has no GRE tunnels of its own".to_owned(),
        n => format!(
            "the kernel has {n} GRE tunnel(s) of its own, none with the ends of one of xgre's"
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
        netlink::KernelTunnel,
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
        let mut facts = facts();
        let theirs = KernelTunnel {
            name: "gre1".into(),
            mode: Mode::Gre,
            local: [192, 0, 2, 1].into(),
            remote: [198, 51, 100, 1].into(),
            ikey: None,
        };
        facts.kernel_tunnels = vec![theirs.clone()];
        let found = kernel_tunnels(&facts);
        assert_eq!(
            (found[0].severity, found[0].fix.as_deref()),
            (Severity::Error, Some("ip link del gre1"))
        );
        for other in [
            KernelTunnel { ikey: Some(1), ..theirs.clone() },
            KernelTunnel { mode: Mode::Gretap, ..theirs.clone() },
            KernelTunnel { remote: [198, 51, 100, 2].into(), ..theirs },
        ] {
            facts.kernel_tunnels = vec![other];
            assert_eq!(kernel_tunnels(&facts)[0].severity, Severity::Ok);
        }
    }
}
