//! Ports: how XDP runs there, what their drivers can do, and offloads that are in its way.

use super::{Facts, Finding, Port};
use crate::{
    dataplane::{is_of_several, no_redirect},
    observed::xdp_features::{BASIC, NDO_XMIT, NDO_XMIT_SG, RX_SG},
};

/// What fits one buffer of a page, about which drivers differ a little, in bytes.
const ONE_BUFFER: u32 = 3498;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let ports = facts.ports();
    if ports.is_empty() {
        return vec![
            Finding::warning("ports", "there are no ports").why("nothing is accelerated").fix(
                "ip address add ADDRESS/LEN dev DEV, or name a [[port]] in /etc/xgre/xgre.toml",
            ),
        ];
    }
    let mut findings = Vec::new();
    for port in &ports {
        findings.push(mode(port));
        // A VLAN device's frames are received and sent by the device below it.
        if port.link.vlan.is_none() {
            findings.extend(redirect(port, &ports));
            findings.extend(pieces(port));
            findings.extend(offloads(facts, port));
        }
    }
    findings.extend(headroom(facts));
    findings
}

impl Port<'_> {
    /// Whether the driver can; none where the kernel does not say.
    fn can(&self, feature: u64) -> Option<bool> {
        self.link.xdp_features.map(|bits| bits & feature != 0)
    }

    fn driver(&self) -> String {
        match &self.device.driver {
            Some(driver) => format!("the driver {driver}"),
            None => "its driver".to_owned(),
        }
    }
}

fn mode(port: &Port<'_>) -> Finding {
    const CHECK: &str = "xdp-mode";
    let name = &port.link.name;
    let Some(info) = port.info else { return possible(port) };
    let note = info.note.clone().unwrap_or_default();
    let finding = match info.xdp.as_str() {
        "native" => Finding::ok(CHECK, format!("XDP runs natively in {}", port.driver())),
        "generic" if port.can(BASIC) == Some(false) => {
            Finding::note(CHECK, format!("XDP is generic: {} has no XDP", port.driver()))
                .why("the kernel makes a packet buffer of each frame first: some two to four times slower")
        }
        "generic" => Finding::warning(CHECK, format!("XDP is generic: {note}"))
            .why("the kernel makes a packet buffer of each frame first: some two to four times slower")
            .fix(in_config(name)),
        _ if port.link.vlan.is_some() => Finding::ok(CHECK, note),
        _ if is_of_several(port.link) => Finding::note(CHECK, format!("XDP is off: {note}"))
            .why("TC and the kernel forward what comes in here"),
        _ => Finding::warning(CHECK, format!("XDP is off: {note}"))
            .why("TC and the kernel forward what comes in here, which is several times slower")
            .fix(in_config(name)),
    };
    finding.of(name)
}

fn in_config(name: &str) -> String {
    format!("in /etc/xgre/xgre.toml: [[port]] name = \"{name}\", xdp = \"auto\"; then xgre apply")
}

/// How XDP would run.
fn possible(port: &Port<'_>) -> Finding {
    const CHECK: &str = "xdp-mode";
    let finding = match port.can(BASIC) {
        Some(true) => Finding::ok(CHECK, format!("{} can run XDP natively", port.driver())),
        Some(false) => Finding::note(CHECK, format!("{} has no XDP", port.driver()))
            .why("XDP would be generic there: some two to four times slower"),
        None => Finding::note(CHECK, "this kernel does not say what XDP can do here"),
    };
    finding.of(&port.link.name)
}

/// Whether frames that XDP receives natively can leave here.
fn redirect(port: &Port<'_>, ports: &[Port<'_>]) -> Option<Finding> {
    const CHECK: &str = "xdp-redirect";
    let is_native = |port: &Port<'_>| port.info.is_none_or(|info| info.xdp == "native");
    if !ports.iter().any(is_native) {
        return None;
    }
    let name = &port.link.name;
    Some(match port.can(NDO_XMIT)? {
        true => Finding::ok(CHECK, "packets can be redirected out of it").of(name),
        false => {
            let finding = Finding::warning(
                CHECK,
                format!("packets cannot be redirected out of it: {}", no_redirect(port.link)),
            )
            .of(name)
            .why("what XDP receives elsewhere and should leave here goes through the kernel");
            match port.link.kind.as_deref() {
                Some("veth") => {
                    finding.fix("ethtool -K PEER gro on   # at the other end of the veth")
                }
                _ => finding,
            }
        }
    })
}

/// Frames that are longer than a buffer.
fn pieces(port: &Port<'_>) -> Option<Finding> {
    const CHECK: &str = "xdp-frags";
    let (name, mtu) = (&port.link.name, port.link.mtu);
    let (receives, sends) = (port.can(RX_SG)?, port.can(NDO_XMIT_SG)?);
    if !port.can(BASIC)? {
        return None;
    }
    if mtu <= ONE_BUFFER || receives && sends {
        return Some(Finding::ok(CHECK, format!("XDP takes frames of its MTU, {mtu}")).of(name));
    }
    let fix = format!("ip link set dev {name} mtu {ONE_BUFFER}");
    if receives {
        return Some(
            Finding::note(
                CHECK,
                format!("jumbo frames (MTU {mtu}) cannot be redirected out of it"),
            )
            .of(name)
            .why("TC and the kernel forward those that are longer than a buffer")
            .fix(fix),
        );
    }
    Some(
        Finding::warning(
            CHECK,
            format!("{} does not give XDP frames of its MTU, {mtu}", port.driver()),
        )
        .of(name)
        .why("such a driver refuses XDP in native mode while the MTU is so large")
        .fix(fix),
    )
}

fn offloads(facts: &Facts, port: &Port<'_>) -> Vec<Finding> {
    const CHECK: &str = "offloads";
    let name = &port.link.name;
    let is_on = |feature: &str| port.device.features.contains(feature);
    let mut findings = Vec::new();
    let mut harmful = |feature: &str, why: &str, fix: &str| {
        if is_on(feature) {
            findings.push(
                Finding::warning(CHECK, format!("{feature} is on"))
                    .of(name)
                    .why(why)
                    .fix(format!("ethtool -K {name} {fix}")),
            );
        }
    };
    let merged = "what the card has merged is no packet any more: drivers refuse XDP with it, or XDP \
                  leaves such packets to the kernel";
    harmful("rx-lro", merged, "lro off");
    harmful("rx-gro-hw", merged, "rx-gro-hw off");
    if carries_tags(facts, port) {
        let hidden = "XDP does not see the VLAN tags that the card takes out, and takes tagged frames for \
                      untagged ones";
        harmful("rx-vlan-hw-parse", hidden, "rxvlan off");
        harmful("rx-vlan-stag-hw-parse", hidden, "rx-vlan-stag-hw-parse off");
    }
    if port.info.is_some_and(|info| info.xdp == "generic") && is_on("rx-gro") {
        findings.push(
            Finding::note(CHECK, "rx-gro is on, and XDP is generic")
                .of(name)
                .why("streams are merged before XDP, which leaves merged packets to the kernel")
                .fix(format!("ethtool -K {name} gro off")),
        );
    }
    if findings.is_empty() && !port.device.features.is_empty() {
        findings.push(Finding::ok(CHECK, "no offload is in the way of XDP").of(name));
    }
    findings
}

/// Whether tagged frames are expected there: it has VLAN devices, or is a member of a bridge.
fn carries_tags(facts: &Facts, port: &Port<'_>) -> bool {
    let is_above =
        |vlan: &crate::observed::Link| vlan.vlan.is_some() && vlan.link == Some(port.link.ifindex);
    port.link.bridge_port.is_some() || facts.snapshot.links.values().any(is_above)
}

/// Room in front of frames for the outer header, which drivers only show by leaving too little.
fn headroom(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "headroom";
    facts.daemon.as_ref().ok()?;
    let packets = facts.outcome("xdp", "no-headroom");
    Some(match packets {
        0 => Finding::ok(CHECK, "drivers have left room in front of every frame"),
        packets => Finding::warning(
            CHECK,
            format!("{packets} frames had too little room in front of them for the outer header"),
        )
        .why("TC encapsulated those, which is slower; generic XDP makes room")
        .fix("xgre port show; in /etc/xgre/xgre.toml for the LAN's [[port]]: xdp = \"generic\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::{
            Severity,
            testing::{facts, troubles, with_wan},
        },
        observed::Vlan,
        report::{Count, TierOutcomes},
        testing::link,
    };

    #[test]
    fn native_ports_without_harmful_offloads_are_fine() {
        assert_eq!(troubles(check(&facts())), []);
    }

    #[test]
    fn without_ports_nothing_is_accelerated() {
        let mut facts = facts();
        facts.daemon.as_mut().unwrap().ports.clear();
        assert_eq!(troubles(check(&facts)), [("ports", String::new(), Severity::Warning)]);
    }

    #[test]
    fn generic_xdp_is_a_warning_only_where_the_driver_could_do_better() {
        let generic = |features| {
            let mut facts = with_wan(|wan| wan.xdp_features = Some(features));
            facts.daemon.as_mut().unwrap().ports[0].xdp = "generic".into();
            troubles(check(&facts))
        };
        assert_eq!(generic(BASIC | NDO_XMIT), [("xdp-mode", "wan".into(), Severity::Warning)]);
        assert_eq!(generic(NDO_XMIT), [("xdp-mode", "wan".into(), Severity::Note)]);
    }

    #[test]
    fn off_is_fine_on_a_vlan_a_note_on_a_bond_and_else_a_warning() {
        let off = |change: fn(&mut crate::observed::Link)| {
            let mut facts = with_wan(change);
            facts.daemon.as_mut().unwrap().ports[0].xdp = "off".into();
            mode(&facts.ports()[0]).severity
        };
        assert_eq!(off(|_| {}), Severity::Warning);
        assert_eq!(off(|wan| wan.kind = Some("bond".into())), Severity::Note);
        assert_eq!(off(|wan| wan.vlan = Some(Vlan { id: 7, protocol: 0x8100 })), Severity::Ok);
    }

    #[test]
    fn a_veth_that_cannot_be_redirected_to_is_told_with_what_its_other_end_lacks() {
        let facts = with_wan(|wan| {
            wan.kind = Some("veth".into());
            wan.xdp_features = Some(BASIC);
        });
        let found = check(&facts).into_iter().find(|found| found.check == "xdp-redirect").unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.fix.unwrap().starts_with("ethtool -K PEER gro on"));
    }

    #[test]
    fn jumbo_frames_need_a_driver_that_takes_several_buffers() {
        let severity = |mtu, features| {
            let facts = with_wan(|wan| (wan.mtu, wan.xdp_features) = (mtu, Some(features)));
            pieces(&facts.ports()[0]).map(|found| found.severity)
        };
        assert_eq!(severity(3498, BASIC), Some(Severity::Ok));
        assert_eq!(severity(3499, BASIC), Some(Severity::Warning));
        assert_eq!(severity(9000, BASIC | RX_SG), Some(Severity::Note));
        assert_eq!(severity(9000, BASIC | RX_SG | NDO_XMIT_SG), Some(Severity::Ok));
        assert_eq!(severity(9000, 0), None, "it has no XDP");
    }

    #[test]
    fn offloads_are_told_with_the_command_that_turns_them_off() {
        let fixes = |features: &[&str], vlan: bool| -> Vec<_> {
            let mut facts = facts();
            let wan = facts.devices.get_mut(&2).unwrap();
            wan.features = features.iter().map(ToString::to_string).collect();
            if vlan {
                let tag = Some(Vlan { id: 7, protocol: 0x8100 });
                let above = crate::observed::Link { vlan: tag, link: Some(2), ..link(9, "wan.7") };
                facts.snapshot.links.insert(9, above);
            }
            check(&facts).into_iter().filter(|f| f.check == "offloads").map(|f| f.fix).collect()
        };
        let off = |words: &str| Some(format!("ethtool -K wan {words}"));
        assert_eq!(fixes(&["rx-gro", "rx-vlan-hw-parse"], false), [None]);
        assert_eq!(fixes(&["rx-lro"], false), [off("lro off")]);
        assert_eq!(fixes(&["rx-gro-hw"], false), [off("rx-gro-hw off")]);
        assert_eq!(fixes(&["rx-vlan-hw-parse"], true), [off("rxvlan off")]);
    }

    #[test]
    fn frames_without_headroom_are_counted() {
        let mut facts = facts();
        let count = Count { reason: "no-headroom".into(), help: String::new(), packets: 7 };
        let tier = TierOutcomes { tier: "xdp".into(), outcomes: vec![count] };
        facts.daemon.as_mut().unwrap().stats.tiers.push(tier);
        let found = headroom(&facts).unwrap();
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.found.starts_with("7 frames"));
    }

    #[test]
    fn without_a_daemon_it_is_said_what_the_drivers_could() {
        let mut facts = with_wan(|wan| wan.xdp_features = Some(0));
        facts.daemon = Err("it does not run".into());
        let found = troubles(check(&facts));
        let expected = [("xdp-mode", Severity::Note), ("xdp-redirect", Severity::Warning)];
        assert_eq!(found, expected.map(|(check, severity)| (check, "wan".to_owned(), severity)));
    }
}
