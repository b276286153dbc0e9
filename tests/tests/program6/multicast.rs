//! GRE to a multicast group. The kernel knows tunnels with a group for a remote; `xgre` refuses them, so
//! that no such packet is a tunnel's, whoever sends it: the host gets it as it came.

use std::net::IpAddr;

use gre_ebpf_common::{outcome::Outcome::*, route::Entry};

use crate::{
    bench::Hook,
    case::{Case, check},
    change,
    frame::{carried, from_wan},
    outer::TIERS,
    packet::{inbound, spoil},
    world::{ALL4, ALL6, FAMILIES, Family, KEYED6, PLAIN4, PLAIN6, Spec},
};

const SOME: [Spec; 5] = [PLAIN4, ALL4, PLAIN6, KEYED6, ALL6];

/// Groups of either version, and the MAC addresses that their frames have (RFC 1112, 6.4; RFC 2464, 7).
fn groups(outside: Family) -> Vec<(IpAddr, [u8; 6])> {
    let groups = match outside {
        Family::V4 => [
            ("224.0.0.1", [1, 0, 0x5e, 0, 0, 1]),
            ("224.0.0.5", [1, 0, 0x5e, 0, 0, 5]),
            ("239.255.255.255", [1, 0, 0x5e, 0x7f, 0xff, 0xff]),
        ],
        Family::V6 => [
            ("ff02::1", [0x33, 0x33, 0, 0, 0, 1]),
            ("ff02::5", [0x33, 0x33, 0, 0, 0, 5]),
            ("ff0e::77", [0x33, 0x33, 0, 0, 0, 0x77]),
        ],
    };
    groups.map(|(group, mac)| (group.parse().unwrap(), mac)).into()
}

/// From the tunnel's remote, from this host itself and from elsewhere, whichever of the tunnel's own
/// addresses are any.
#[test]
fn r6_a_multicast_outer_destination_is_no_tunnels() {
    let mut cases = Vec::new();
    for (hook, tunnel) in TIERS.into_iter().flat_map(|hook| SOME.map(|tunnel| (hook, tunnel))) {
        let (local, remote) = (tunnel.outside.local(), tunnel.remote());
        let any = tunnel.outside.any();
        for ends in [(local, remote), (any, remote), (local, any), (any, any)] {
            for (group, mac) in groups(tunnel.outside) {
                for source in [remote, local, tunnel.outside.stranger()] {
                    let inner = inbound(Family::V4, tunnel).bytes();
                    let outer = carried(tunnel, &inner)
                        .with(|outer| (outer.source, outer.destination) = (source, group));
                    let frame = from_wan(&outer.bytes());
                    let what = format!("{source} to {group}, {tunnel:?} between {ends:?}");
                    let case = |frame| {
                        Case::new(&what, hook, frame).given(move |plane| {
                            change::ends_are(plane, tunnel, ends.0, ends.1);
                            change::own(plane, local, any);
                        })
                    };
                    cases.push(case(spoil(&frame, 0, &mac)).passes(OtherHost));
                    cases.push(case(frame).passes(NoTunnel));
                }
            }
        }
    }
    check(cases);
}

/// Nor does it go on into a tunnel that all else is routed to.
#[test]
fn r6_a_multicast_outer_destination_is_not_forwarded() {
    let mut cases = Vec::new();
    for (hook, outside) in
        TIERS.into_iter().flat_map(|hook| FAMILIES.map(|outside| (hook, outside)))
    {
        let tunnel = if outside == Family::V4 { PLAIN4 } else { PLAIN6 };
        for (group, _) in groups(outside) {
            let inner = inbound(Family::V6, tunnel).bytes();
            let outer = carried(tunnel, &inner).with(|outer| outer.destination = group);
            let case = Case::new(format!("to {group}"), hook, from_wan(&outer.bytes()));
            let outcome = if matches!(hook, Hook::Xdp(_)) { NotUnicast } else { NoTunnel };
            cases.push(case.passes(outcome).given(move |plane| {
                change::route(plane, outside.any(), 0, Entry::Tunnel(KEYED6.id));
            }));
        }
    }
    check(cases);
}
