//! A machine on which all is well: ports `wan` (2) and `lan` (3), tunnel0 (4) to 198.51.100.1.

use super::{Bpffs, DaemonFacts, DeviceFacts, Facts, Finding, KernelFacts, OpenFiles, Severity};
use crate::{
    observed::{Link, Neighbour, NeighbourState, Route, RouteTarget, Snapshot, xdp_features},
    report::{PortInfo, Stats, TunnelInfo},
    testing::{self, address, link, veth},
};

const NATIVE: u64 = xdp_features::BASIC
    | xdp_features::REDIRECT
    | xdp_features::NDO_XMIT
    | xdp_features::RX_SG
    | xdp_features::NDO_XMIT_SG;

pub(super) fn facts() -> Facts {
    let [device, peer] = veth(4, "tunnel0", "xgre config mode gre");
    let port = |ifindex, name| Link { xdp_features: Some(NATIVE), ..link(ifindex, name) };
    let links = [port(2, "wan"), port(3, "lan"), device, peer];
    let addresses = [(2, "192.0.2.1/24"), (3, "192.168.150.1/24"), (4, "172.16.168.1/30")];
    let via = |ifindex, destination: &str, gateway: Option<&str>| Route {
        table: 254,
        destination: destination.parse().unwrap(),
        tos: 0,
        metric: 0,
        target: RouteTarget::Unicast {
            ifindex,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            prefsrc: None,
            mtu: None,
        },
    };
    let neighbour = Neighbour {
        ifindex: 2,
        ip: [192, 0, 2, 254].into(),
        mac: Some([2; 6]),
        state: NeighbourState::Valid,
    };
    Facts {
        is_root: true,
        daemon: Ok(DaemonFacts {
            tunnels: vec![tunnel()],
            ports: [(2, "wan"), (3, "lan")].map(port_info).into(),
            stats: Stats { tunnels: Vec::new(), tiers: Vec::new() },
        }),
        pinned: false,
        kernel: KernelFacts {
            release: "6.18.5".into(),
            version: (6, 18, 5),
            btf: true,
            jit: Some(1),
            jit_harden: Some(0),
            compiled: Some(true),
            cpus: 4,
        },
        bpffs: Bpffs { path: "/sys/fs/bpf".into(), mounted: true, writable: true },
        files: OpenFiles { is_daemons: true, open: Some(60), limit: Some(1024) },
        snapshot: Snapshot {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            addresses: addresses.map(|(ifindex, local)| (ifindex, vec![address(local)])).into(),
            routes: vec![
                via(2, "198.51.100.0/24", Some("192.0.2.254")),
                via(4, "172.16.168.0/30", None),
                via(4, "192.168.110.0/24", None),
            ],
            neighbours: vec![neighbour],
            ..Snapshot::default()
        },
        filters: Ok(Vec::new()),
        devices: [2, 3, 4].map(|ifindex| (ifindex, DeviceFacts::default())).into(),
    }
}

fn port_info((ifindex, name): (u32, &str)) -> PortInfo {
    PortInfo { name: name.into(), ifindex, xdp: "native".into(), note: None, forwarding: true }
}

fn tunnel() -> TunnelInfo {
    TunnelInfo {
        ifindex: Some(4),
        up: true,
        mtu: Some(1476),
        underlay: Some("wan".into()),
        via: Some("192.0.2.254".into()),
        fast: true,
        payload_mtu: Some(1476),
        ..TunnelInfo::configured(&testing::tunnel("tunnel0"))
    }
}

/// With the tunnel changed.
pub(super) fn with_tunnel(change: impl FnOnce(&mut TunnelInfo)) -> Facts {
    let mut facts = facts();
    change(&mut facts.daemon.as_mut().unwrap().tunnels[0]);
    facts
}

/// With the link called `wan` changed.
pub(super) fn with_wan(change: impl FnOnce(&mut Link)) -> Facts {
    let mut facts = facts();
    change(facts.snapshot.links.get_mut(&2).unwrap());
    facts
}

pub(super) fn severities(findings: Vec<Finding>) -> Vec<(&'static str, Severity)> {
    findings.into_iter().map(|finding| (finding.check, finding.severity)).collect()
}

/// What is not fine: check, subject and severity.
pub(super) fn troubles(findings: Vec<Finding>) -> Vec<(&'static str, String, Severity)> {
    let troubles = findings.into_iter().filter(|finding| finding.severity > Severity::Ok);
    troubles
        .map(|finding| (finding.check, finding.subject.unwrap_or_default(), finding.severity))
        .collect()
}
