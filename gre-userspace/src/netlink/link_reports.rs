//! All that `ip link show` tells of a device (RTM_GETLINK), which nothing but showing it needs.

use netlink_packet_core::{DecodeError, NlasIterator, parse_u8, parse_u32};
use nix::libc::{AF_INET6, AF_UNSPEC};

use super::{
    NetlinkError,
    socket::{Dump, attribute, split, text, word},
};
use crate::{model::mac_text, report::LinkInfo};

// linux/if_link.h
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_TSO_MAX_SIZE: u16 = 59;
const IFLA_TSO_MAX_SEGS: u16 = 60;
const IFLA_ALLMULTI: u16 = 61;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// What is counted is not the device's: XDP goes past it.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// In the order of their numbers, in iproute2's words (ip/ipaddress.c).
const OPERSTATES: [&str; 7] =
    ["UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"];
const LINKMODES: [&str; 2] = ["DEFAULT", "DORMANT"];
const ADDRGENMODES: [&str; 4] = ["eui64", "none", "stable_secret", "random"];

/// A device, and the interface index of its master.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkReport {
    pub info: LinkInfo,
    pub master: Option<u32>,
}

/// Every device of this network namespace.
pub async fn link_reports() -> Result<Vec<LinkReport>, NetlinkError> {
    let mut dump = Dump::route("links", RTM_GETLINK, AF_UNSPEC, 16);
    dump.body.extend(attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
    dump.read(|payload| parse(payload).map(Some)).await
}

/// An RTM_NEWLINK: `struct ifinfomsg` and attributes.
fn parse(payload: &[u8]) -> Result<LinkReport, DecodeError> {
    let (header, attributes) = split::<16>(payload)?;
    let mut master = None;
    let mut info =
        LinkInfo { ifindex: word(header, 4), flags: word(header, 8), ..LinkInfo::default() };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        let number = || parse_u32(value).map(Some);
        match attribute.kind() {
            IFLA_IFNAME => info.name = text(value),
            IFLA_MTU => info.mtu = parse_u32(value)?,
            IFLA_QDISC => info.qdisc = Some(text(value)),
            IFLA_MASTER => master = number()?,
            IFLA_OPERSTATE => info.operstate = named(&OPERSTATES, value)?,
            IFLA_LINKMODE => info.linkmode = named(&LINKMODES, value)?,
            IFLA_GROUP => info.group = parse_u32(value)?,
            IFLA_TXQLEN => info.txqlen = parse_u32(value)?,
            IFLA_ADDRESS => info.address = Some(mac_text(value)),
            IFLA_BROADCAST => info.broadcast = Some(mac_text(value)),
            IFLA_PROMISCUITY => info.promiscuity = number()?,
            IFLA_ALLMULTI => info.allmulti = number()?,
            IFLA_MIN_MTU => info.min_mtu = number()?,
            IFLA_MAX_MTU => info.max_mtu = number()?,
            IFLA_AF_SPEC => info.addrgenmode = addrgenmode(value)?,
            IFLA_NUM_TX_QUEUES => info.num_tx_queues = number()?,
            IFLA_NUM_RX_QUEUES => info.num_rx_queues = number()?,
            IFLA_GSO_MAX_SIZE => info.gso_max_size = number()?,
            IFLA_GSO_MAX_SEGS => info.gso_max_segs = number()?,
            IFLA_TSO_MAX_SIZE => info.tso_max_size = number()?,
            IFLA_TSO_MAX_SEGS => info.tso_max_segs = number()?,
            IFLA_CARRIER_CHANGES => info.carrier_changes = number()?,
            IFLA_GRO_MAX_SIZE => info.gro_max_size = number()?,
            _ => {}
        }
    }
    Ok(LinkReport { info, master })
}

/// The name of a number of one byte, or the number where it has none yet.
fn named(names: &[&str], value: &[u8]) -> Result<String, DecodeError> {
    let number = parse_u8(value)?;
    let name = names.get(usize::from(number)).copied();
    Ok(name.map_or_else(|| number.to_string(), str::to_owned))
}

fn addrgenmode(af_spec: &[u8]) -> Result<Option<String>, DecodeError> {
    for of_family in NlasIterator::new(af_spec) {
        let of_family = of_family?;
        if i32::from(of_family.kind()) != AF_INET6 {
            continue;
        }
        for attribute in NlasIterator::new(of_family.value()) {
            let attribute = attribute?;
            if attribute.kind() == IFLA_INET6_ADDR_GEN_MODE {
                return named(&ADDRGENMODES, attribute.value()).map(Some);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_in_iproute2s_words() {
        let number = |kind, number: u32| attribute(kind, &number.to_ne_bytes());
        let inet6 = attribute(IFLA_INET6_ADDR_GEN_MODE, &[1]);
        let mut message = vec![0; 16];
        message[4..8].copy_from_slice(&7u32.to_ne_bytes());
        message[8..12].copy_from_slice(&0x1_0043u32.to_ne_bytes());
        message.extend(
            [
                attribute(IFLA_IFNAME, b"tap0\0"),
                number(IFLA_MTU, 1462),
                number(IFLA_MASTER, 3),
                attribute(IFLA_OPERSTATE, &[6]),
                attribute(IFLA_LINKMODE, &[9]),
                attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 0xab]),
                number(IFLA_MAX_MTU, 65_535),
                attribute(IFLA_AF_SPEC, &attribute(AF_INET6 as u16, &inet6)),
            ]
            .concat(),
        );
        let info = LinkInfo {
            name: "tap0".into(),
            ifindex: 7,
            flags: 0x1_0043,
            mtu: 1462,
            operstate: "UP".into(),
            linkmode: "9".into(),
            address: Some("02:00:00:00:00:ab".into()),
            max_mtu: Some(65_535),
            addrgenmode: Some("none".into()),
            ..LinkInfo::default()
        };
        assert_eq!(parse(&message).unwrap(), LinkReport { info, master: Some(3) });
        assert!(parse(&message[..12]).is_err());
    }
}
