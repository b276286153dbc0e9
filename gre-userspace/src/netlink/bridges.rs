//! Bridges: what their links say of them, their forwarding databases (RTM_GETNEIGH), and the VLANs of
//! their members (RTM_GETVLAN).

use std::{collections::BTreeMap, fs};

use netlink_packet_core::{
    DecodeError, NlasIterator, parse_u8, parse_u16, parse_u16_be, parse_u32,
};
use nix::libc::{AF_BRIDGE, EOPNOTSUPP};

use super::{
    NetlinkError,
    socket::{Dump, split, word},
};
use crate::observed::{Bridge, BridgePort, Station, StationKind, VlanRange};

// linux/rtnetlink.h
const RTM_GETNEIGH: u16 = 30;
const RTM_GETVLAN: u16 = 114;

// linux/if_link.h
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_PROTOCOL: u16 = 8;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const BR_BOOLOPT_MST_ENABLE: u32 = 1 << 2;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_BACKUP_PORT: u16 = 34;
const IFLA_BRPORT_BACKUP_NHID: u16 = 44;

/// Settings of a member with which the bridge does more, or less, with a unicast frame than to send it
/// where its destination is, in the words of `bridge link`.
const SPECIAL: [(u16, &str); 9] = [
    (4, "hairpin"),
    (10, "proxy_arp"),
    (12, "proxy_arp_wifi"),
    (29, "vlan_tunnel"),
    (32, "neigh_suppress"),
    (33, "isolated"),
    (39, "locked"),
    (40, "mab"),
    (43, "neigh_vlan_suppress"),
];

// linux/if_bridge.h
const BR_STATE_FORWARDING: u8 = 3;
const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;

// linux/neighbour.h
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_SELF: u8 = 1 << 1;
const NTF_EXT_LOCKED: u32 = 1 << 1;
const NUD_PERMANENT: u16 = 0x80;

/// Whether iptables or ip6tables see the frames of all bridges. The kernel tells it nowhere else, and
/// not when it changes.
pub(crate) fn netfilter_sees_bridges() -> bool {
    ["iptables", "ip6tables"].into_iter().any(|tables| {
        // Of the calling thread's network namespace; not there without br_netfilter.
        let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{tables}");
        fs::read_to_string(setting).is_ok_and(|value| value.trim() != "0")
    })
}

/// IFLA_INFO_DATA of a bridge.
pub(super) fn bridge(data: &[u8]) -> Result<Bridge, DecodeError> {
    let mut bridge = Bridge {
        ageing_time: 0,
        vlan_filtering: false,
        vlan_protocol: 0x8100,
        multiple_spanning_trees: false,
        netfilter: false,
    };
    for attribute in NlasIterator::new(data) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            // In hundredths of a second (clock_t).
            IFLA_BR_AGEING_TIME => bridge.ageing_time = u64::from(parse_u32(value)?) * 10,
            IFLA_BR_VLAN_FILTERING => bridge.vlan_filtering = parse_u8(value)? != 0,
            IFLA_BR_VLAN_PROTOCOL => bridge.vlan_protocol = parse_u16_be(value)?,
            IFLA_BR_NF_CALL_IPTABLES | IFLA_BR_NF_CALL_IP6TABLES => {
                bridge.netfilter |= parse_u8(value)? != 0;
            }
            // `struct br_boolopt_multi`: values, and which of them count.
            IFLA_BR_MULTI_BOOLOPT => {
                let (options, _) = split::<8>(value)?;
                bridge.multiple_spanning_trees = word(options, 0) & BR_BOOLOPT_MST_ENABLE != 0;
            }
            _ => {}
        }
    }
    Ok(bridge)
}

/// IFLA_INFO_SLAVE_DATA of a bridge's member.
pub(super) fn port(data: &[u8]) -> Result<BridgePort, DecodeError> {
    let mut port = BridgePort { forwarding: false, learning: false, special: None };
    for attribute in NlasIterator::new(data) {
        let attribute = attribute?;
        let value = attribute.value();
        let special = |kind: u16| SPECIAL.into_iter().find(|(special, _)| *special == kind);
        match attribute.kind() {
            IFLA_BRPORT_STATE => port.forwarding = parse_u8(value)? == BR_STATE_FORWARDING,
            IFLA_BRPORT_LEARNING => port.learning = parse_u8(value)? != 0,
            // Told only where there is one.
            IFLA_BRPORT_BACKUP_PORT => port.special = Some("backup_port"),
            IFLA_BRPORT_BACKUP_NHID if parse_u32(value)? != 0 => {
                port.special = Some("backup_nhid");
            }
            kind => {
                if let Some((_, name)) = special(kind)
                    && parse_u8(value)? != 0
                {
                    port.special = Some(name);
                }
            }
        }
    }
    Ok(port)
}

/// By bridge, VLAN and address: the kernel's own order is a list's, newest first.
pub(super) async fn stations() -> Result<Vec<Station>, NetlinkError> {
    let dump = Dump::route("forwarding databases of bridges", RTM_GETNEIGH, AF_BRIDGE, 12);
    let mut stations = dump.read(station).await?;
    stations.sort_unstable();
    // An entry that comes while the list is read moves another to where it is read again.
    stations.dedup();
    Ok(stations)
}

/// An RTM_NEWNEIGH: `struct ndmsg` and attributes. None for what is no bridge's.
fn station(payload: &[u8]) -> Result<Option<Station>, DecodeError> {
    let (header, attributes) = split::<12>(payload)?;
    if i32::from(header[0]) != AF_BRIDGE || header[10] & NTF_SELF != 0 {
        return Ok(None);
    }
    let (mut bridge, mut vlan, mut mac, mut flags) = (None, 0, None, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NDA_MASTER => bridge = Some(parse_u32(value)?),
            NDA_VLAN => vlan = parse_u16(value)?,
            NDA_LLADDR => mac = value.try_into().ok(),
            NDA_FLAGS_EXT => flags = parse_u32(value)?,
            _ => {}
        }
    }
    let kind = if u16::from_ne_bytes([header[8], header[9]]) & NUD_PERMANENT != 0 {
        StationKind::Own
    } else if flags & NTF_EXT_LOCKED != 0 {
        StationKind::Locked
    } else {
        StationKind::Host
    };
    let ifindex = word(header, 4);
    Ok(bridge.zip(mac).map(|(bridge, mac)| Station { bridge, vlan, mac, ifindex, kind }))
}

/// By the member's interface index. None where the kernel's bridges know no VLANs.
pub(super) async fn vlans() -> Result<BTreeMap<u32, Vec<VlanRange>>, NetlinkError> {
    let dump = Dump::route("VLANs of bridges", RTM_GETVLAN, AF_BRIDGE, 8);
    match dump.read(vlans_of_member).await {
        Ok(members) => {
            let mut vlans = BTreeMap::<u32, Vec<_>>::new();
            // One with many VLANs is told in several messages.
            for (member, ranges) in members {
                vlans.entry(member).or_default().extend(ranges);
            }
            for ranges in vlans.values_mut() {
                ranges.sort_unstable_by_key(|range| range.first);
            }
            Ok(vlans)
        }
        Err(error) if error.errno() == Some(EOPNOTSUPP) => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// An RTM_NEWVLAN: `struct br_vlan_msg` and attributes. A bridge tells of itself as of its members.
fn vlans_of_member(payload: &[u8]) -> Result<Option<(u32, Vec<VlanRange>)>, DecodeError> {
    let (header, attributes) = split::<8>(payload)?;
    if i32::from(header[0]) != AF_BRIDGE {
        return Ok(None);
    }
    let mut ranges = Vec::new();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == BRIDGE_VLANDB_ENTRY {
            ranges.push(vlan_range(attribute.value())?);
        }
    }
    Ok(Some((word(header, 4), ranges)))
}

fn vlan_range(nested: &[u8]) -> Result<VlanRange, DecodeError> {
    let (mut info, mut last, mut state) = (None, None, None);
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            // `struct bridge_vlan_info`: flags and VLAN.
            BRIDGE_VLANDB_ENTRY_INFO => {
                let (info_, _) = split::<4>(value)?;
                let half = |at| u16::from_ne_bytes([info_[at], info_[at + 1]]);
                info = Some((half(0), half(2)));
            }
            BRIDGE_VLANDB_ENTRY_RANGE => last = Some(parse_u16(value)?),
            BRIDGE_VLANDB_ENTRY_STATE => state = Some(parse_u8(value)?),
            _ => {}
        }
    }
    let (flags, first) = info.ok_or("a bridge's VLAN without its number")?;
    Ok(VlanRange {
        first,
        last: last.unwrap_or(first),
        pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
        untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
        forwarding: state == Some(BR_STATE_FORWARDING),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn bridge_with(more: &[Vec<u8>]) -> Bridge {
        let ageing_time = attribute(IFLA_BR_AGEING_TIME, &30_000u32.to_ne_bytes());
        bridge(&[&[ageing_time], more].concat().concat()).unwrap()
    }

    #[test]
    fn a_bridge_is_read_with_what_decides_how_it_forwards() {
        let plain = bridge_with(&[]);
        let expected = Bridge {
            ageing_time: 300_000,
            vlan_filtering: false,
            vlan_protocol: 0x8100,
            multiple_spanning_trees: false,
            netfilter: false,
        };
        assert_eq!(plain, expected);

        let options = |values: u32| {
            let mask = [values.to_ne_bytes(), 7u32.to_ne_bytes()].concat();
            attribute(IFLA_BR_MULTI_BOOLOPT, &mask)
        };
        let service_tag = attribute(IFLA_BR_VLAN_PROTOCOL, &0x88a8_u16.to_be_bytes());
        for (given, expected) in [
            (attribute(IFLA_BR_VLAN_FILTERING, &[1]), Bridge { vlan_filtering: true, ..plain }),
            (service_tag, Bridge { vlan_protocol: 0x88a8, ..plain }),
            (options(4), Bridge { multiple_spanning_trees: true, ..plain }),
            (options(3), plain),
            (attribute(IFLA_BR_NF_CALL_IPTABLES, &[1]), Bridge { netfilter: true, ..plain }),
            (attribute(IFLA_BR_NF_CALL_IP6TABLES, &[1]), Bridge { netfilter: true, ..plain }),
            (attribute(IFLA_BR_NF_CALL_IPTABLES, &[0]), plain),
        ] {
            assert_eq!(bridge_with(&[given]), expected);
        }
    }

    fn port_with(more: &[Vec<u8>]) -> BridgePort {
        let state = attribute(IFLA_BRPORT_STATE, &[BR_STATE_FORWARDING]);
        let learning = attribute(IFLA_BRPORT_LEARNING, &[1]);
        port(&[&[state, learning], more].concat().concat()).unwrap()
    }

    #[test]
    fn a_member_is_read_with_what_decides_how_it_is_forwarded_to() {
        let plain = BridgePort { forwarding: true, learning: true, special: None };
        assert_eq!(port_with(&[]), plain);
        for state in [0, 1, 2, 4] {
            let blocked = port_with(&[attribute(IFLA_BRPORT_STATE, &[state])]);
            assert_eq!(blocked, BridgePort { forwarding: false, ..plain });
        }
        let deaf = port_with(&[attribute(IFLA_BRPORT_LEARNING, &[0])]);
        assert_eq!(deaf, BridgePort { learning: false, ..plain });
        for (kind, name) in SPECIAL {
            assert_eq!(port_with(&[attribute(kind, &[1])]).special, Some(name));
            assert_eq!(port_with(&[attribute(kind, &[0])]), plain);
        }
        let backup = port_with(&[attribute(IFLA_BRPORT_BACKUP_PORT, &7u32.to_ne_bytes())]);
        assert_eq!(backup.special, Some("backup_port"));
        let nexthop = |id: u32| port_with(&[attribute(IFLA_BRPORT_BACKUP_NHID, &id.to_ne_bytes())]);
        assert_eq!((nexthop(7).special, nexthop(0).special), (Some("backup_nhid"), None));
    }

    const NUD_REACHABLE: u16 = 0x02;
    const NUD_STALE: u16 = 0x04;
    const NUD_NOARP: u16 = 0x40;

    fn read(state: u16, flags: u8, more: &[Vec<u8>]) -> Option<Station> {
        let mut message = vec![AF_BRIDGE as u8, 0, 0, 0, 7, 0, 0, 0];
        message.extend(state.to_ne_bytes());
        message.extend([flags, 0]);
        message.extend(attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]));
        message.extend(more.concat());
        station(&message).unwrap()
    }

    #[test]
    fn addresses_are_read_with_whose_they_are() {
        let master = attribute(NDA_MASTER, &9u32.to_ne_bytes());
        let mac = [2, 0, 0, 0, 0, 1];
        let host = Station { bridge: 9, vlan: 0, mac, ifindex: 7, kind: StationKind::Host };
        let of_bridge = |state, more: &[Vec<u8>]| {
            read(state, 0, &[std::slice::from_ref(&master), more].concat())
        };
        // An address that is about to be forgotten is still sent to, and so is one that was set.
        for state in [NUD_REACHABLE, NUD_STALE, NUD_NOARP] {
            assert_eq!(of_bridge(state, &[]), Some(host));
        }
        let vlan = attribute(NDA_VLAN, &5u16.to_ne_bytes());
        assert_eq!(of_bridge(NUD_REACHABLE, &[vlan]), Some(Station { vlan: 5, ..host }));
        let own = Station { kind: StationKind::Own, ..host };
        assert_eq!(of_bridge(NUD_PERMANENT, &[]), Some(own));
        let locked = attribute(NDA_FLAGS_EXT, &NTF_EXT_LOCKED.to_ne_bytes());
        let expected = Station { kind: StationKind::Locked, ..host };
        assert_eq!(of_bridge(NUD_REACHABLE, &[locked]), Some(expected));

        assert_eq!(read(NUD_PERMANENT, NTF_SELF, &[master]), None, "a device filters by it");
        assert_eq!(read(NUD_REACHABLE, 0, &[]), None, "no bridge's");
    }

    fn vlan_entry(flags: u16, first: u16, more: &[Vec<u8>]) -> Vec<u8> {
        let info = [flags.to_ne_bytes(), first.to_ne_bytes()].concat();
        let info = attribute(BRIDGE_VLANDB_ENTRY_INFO, &info);
        attribute(BRIDGE_VLANDB_ENTRY, &[&[info], more].concat().concat())
    }

    #[test]
    fn vlans_of_a_member_are_read_in_ranges() {
        let state = |state| attribute(BRIDGE_VLANDB_ENTRY_STATE, &[state]);
        let last = |vlan: u16| attribute(BRIDGE_VLANDB_ENTRY_RANGE, &vlan.to_ne_bytes());
        let both = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
        let message = [
            vec![AF_BRIDGE as u8, 0, 0, 0, 7, 0, 0, 0],
            vlan_entry(both, 1, &[state(BR_STATE_FORWARDING)]),
            vlan_entry(0, 5, &[last(9), state(BR_STATE_FORWARDING)]),
            vlan_entry(BRIDGE_VLAN_INFO_UNTAGGED, 10, &[state(4)]),
        ]
        .concat();
        let range = |first, last, pvid, untagged, forwarding| VlanRange {
            first,
            last,
            pvid,
            untagged,
            forwarding,
        };
        let expected = vec![
            range(1, 1, true, true, true),
            range(5, 9, false, false, true),
            range(10, 10, false, true, false),
        ];
        assert_eq!(vlans_of_member(&message).unwrap(), Some((7, expected)));
    }

    #[test]
    fn a_message_cut_short_is_an_error_not_half_an_entry() {
        assert!(station(&[AF_BRIDGE as u8; 11]).is_err());
        assert!(vlans_of_member(&[AF_BRIDGE as u8; 7]).is_err());
        assert!(vlan_range(&attribute(BRIDGE_VLANDB_ENTRY_INFO, &[0; 3])).is_err());
        assert!(vlan_range(&attribute(BRIDGE_VLANDB_ENTRY_STATE, &[3])).is_err());
        assert!(bridge(&attribute(IFLA_BR_AGEING_TIME, &[0; 3])).is_err());
        assert!(bridge(&attribute(IFLA_BR_MULTI_BOOLOPT, &[0; 7])).is_err());
        assert!(port(&attribute(IFLA_BRPORT_STATE, &[])).is_err());
    }
}
