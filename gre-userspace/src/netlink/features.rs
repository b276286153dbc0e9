//! What each device can do with XDP (generic netlink family "netdev", since kernel 6.3;
//! linux/netdev.h), and its receive offload (family "ethtool").

use std::{collections::HashMap, io};

use netlink_packet_core::{DecodeError, NlasIterator};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{
    error::NetlinkError,
    socket::{Dump, Socket, attribute, split, text, word},
};

/// struct genlmsghdr: command, version, reserved.
const HEADER: usize = 4;

/// The controller, which knows the families (linux/genetlink.h).
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

const NETDEV: &str = "netdev";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// The group that is told of changes.
const NETDEV_MCGRP_MGMT: &str = "mgmt";

const ETHTOOL: &str = "ethtool";
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;

struct Family {
    id: u16,
    name: String,
    groups: HashMap<String, u32>,
}

/// XDP features by interface index; none on kernels that do not tell.
pub(super) async fn read() -> Result<Option<HashMap<u32, u64>>, NetlinkError> {
    let Some(family) = family(NETDEV).await? else { return Ok(None) };
    let dump = Dump {
        what: "XDP features",
        protocol: NETLINK_GENERIC,
        message_type: family.id,
        body: vec![NETDEV_CMD_DEV_GET, 1, 0, 0],
    };
    Ok(Some(dump.read(parse_device).await?.into_iter().collect()))
}

/// The multicast group that is told when a device's XDP features change.
pub(crate) async fn management_group() -> Result<Option<u32>, NetlinkError> {
    Ok(family(NETDEV).await?.and_then(|family| family.groups.get(NETDEV_MCGRP_MGMT).copied()))
}

/// Turns generic receive offload on, as `ethtool -K DEV gro on`: a veth then has NAPI, without which
/// frames cannot be redirected into its other end.
pub(super) async fn enable_gro(ifindex: u32) -> Result<(), NetlinkError> {
    let attempt = || format!("turn GRO on for interface {ifindex}");
    let family = family(ETHTOOL).await?.ok_or(NetlinkError::Family {
        family: ETHTOOL,
        reason: "this kernel has none".to_owned(),
        needed: "xgre needs CONFIG_ETHTOOL_NETLINK",
    })?;
    let nested = |kind: u16, value: &[u8]| attribute(kind | NLA_F_NESTED, value);
    let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let bit = [
        attribute(ETHTOOL_A_BITSET_BIT_NAME, b"rx-gro\0"),
        attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]),
    ]
    .concat();
    let bits = nested(ETHTOOL_A_BITSET_BITS, &nested(ETHTOOL_A_BITSET_BITS_BIT, &bit));
    let body = [
        vec![ETHTOOL_MSG_FEATURES_SET, 1, 0, 0],
        nested(ETHTOOL_A_FEATURES_HEADER, &device),
        nested(ETHTOOL_A_FEATURES_WANTED, &bits),
    ]
    .concat();
    Socket::request(NETLINK_GENERIC, family.id, &body, attempt).await
}

/// A generic netlink family, if the kernel has it.
async fn family(name: &str) -> Result<Option<Family>, NetlinkError> {
    let dump = Dump {
        what: "generic netlink families",
        protocol: NETLINK_GENERIC,
        message_type: GENL_ID_CTRL,
        body: vec![CTRL_CMD_GETFAMILY, 2, 0, 0],
    };
    let families = dump.read(|payload| parse_family(payload).map(Some)).await?;
    Ok(families.into_iter().find(|family| family.name == name))
}

fn parse_family(payload: &[u8]) -> Result<Family, DecodeError> {
    let (_, attributes) = split::<HEADER>(payload)?;
    let mut family = Family { id: 0, name: String::new(), groups: HashMap::new() };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            CTRL_ATTR_FAMILY_ID => {
                family.id = value.first_chunk().map_or(0, |bytes| u16::from_ne_bytes(*bytes));
            }
            CTRL_ATTR_FAMILY_NAME => family.name = text(value),
            CTRL_ATTR_MCAST_GROUPS => {
                for group in NlasIterator::new(value) {
                    family.groups.extend(parse_group(group?.value())?);
                }
            }
            _ => {}
        }
    }
    Ok(family)
}

fn parse_group(value: &[u8]) -> Result<Option<(String, u32)>, DecodeError> {
    let (mut name, mut id) = (None, None);
    for attribute in NlasIterator::new(value) {
        let attribute = attribute?;
        match attribute.kind() {
            CTRL_ATTR_MCAST_GRP_NAME => name = Some(text(attribute.value())),
            CTRL_ATTR_MCAST_GRP_ID => id = Some(word(attribute.value(), 0)),
            _ => {}
        }
    }
    Ok(name.zip(id))
}

fn parse_device(payload: &[u8]) -> Result<Option<(u32, u64)>, DecodeError> {
    let (_, attributes) = split::<HEADER>(payload)?;
    let (mut ifindex, mut features) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NETDEV_A_DEV_IFINDEX => ifindex = Some(word(attribute.value(), 0)),
            NETDEV_A_DEV_XDP_FEATURES => {
                features = attribute.value().first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
            }
            _ => {}
        }
    }
    Ok(ifindex.zip(features))
}

impl Socket {
    /// Sends a request and waits for the kernel's acknowledgement.
    async fn request(
        protocol: isize,
        message_type: u16,
        body: &[u8],
        attempt: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let refused =
            |errno: io::Error| NetlinkError::Refused { attempt: attempt(), errno, detail: None };
        let mut socket = Self::open(protocol)
            .map_err(|source| NetlinkError::Socket { purpose: "for a request", source })?;
        socket.send_for_acknowledgement(message_type, body).await.map_err(refused)
    }
}
