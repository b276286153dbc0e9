//! Device features, over generic netlink: what XDP can do on a device (family "netdev"), and
//! turning features on and off (family "ethtool"). No crate has these messages; they are short.

use std::{collections::HashMap, io};

use futures_util::StreamExt;
use genetlink::GenetlinkError;
use netlink_packet_core::{
    DecodeError, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator, ParseableParametrized, parse_u32, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{
    Kernel, NetlinkError, device,
    socket::{Dump, attribute, split},
};

// linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_MCGRP_MGMT: &str = "mgmt";

// linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1 | NLA_F_NESTED;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3 | NLA_F_NESTED;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3 | NLA_F_NESTED;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1 | NLA_F_NESTED;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// What a veth has by default: its packets leave as they are, to be cut and summed by whoever they go
/// to.
const SENT_UNFINISHED: [&str; 7] = [
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
    "tx-checksum-ip-generic",
];

/// XDP features by interface index; none where the kernel has no such family.
pub(super) async fn read(kernel: &Kernel) -> Result<Option<HashMap<u32, u64>>, NetlinkError> {
    let Some(family) = kernel.netdev_family().await? else {
        return Ok(None);
    };
    let dump = Dump {
        what: "XDP features",
        protocol: NETLINK_GENERIC,
        message_type: family.id,
        body: vec![NETDEV_CMD_DEV_GET, 1, 0, 0],
    };
    Ok(Some(dump.read(parse).await?.into_iter().collect()))
}

impl Kernel {
    /// The multicast group that tells when a device's XDP features change, where there is one.
    pub(crate) async fn features_group(&self) -> Result<Option<u32>, NetlinkError> {
        Ok(self.netdev_family().await?.and_then(|family| family.changes))
    }

    /// `ethtool -K DEV gro on`. A veth that has it receives what XDP redirects to its peer; the
    /// kernel shows that in the peer's features once the peer is brought up.
    pub(super) async fn turn_gro_on(&self, ifindex: u32) -> Result<(), NetlinkError> {
        self.set_features(ifindex, &["rx-gro"], true).await
    }

    /// Whether a device's packets are cut to its MTU, with all checksums done, before they leave it.
    pub async fn finish_packets(&self, ifindex: u32, finish: bool) -> Result<(), NetlinkError> {
        self.set_features(ifindex, &SENT_UNFINISHED, !finish).await
    }

    /// Frames arrive with their VLAN tag in them, where XDP sees it. A device that never takes it out
    /// needs no telling.
    pub async fn leave_vlan_tags(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let of_both_kinds = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
        self.set_features(ifindex, &of_both_kinds, false).await
    }

    async fn set_features(
        &self,
        ifindex: u32,
        names: &[&str],
        on: bool,
    ) -> Result<(), NetlinkError> {
        let word = if on { "on" } else { "off" };
        let attempt =
            || format!("turn {} {word} for the device {}", names.join(", "), device(ifindex));
        let closed = || NetlinkError::Closed { attempt: attempt() };

        // Known first: a kernel without the family must not be taken for a device without GRO.
        self.generic.resolve_family::<FeaturesSet>().await.map_err(|error| {
            NetlinkError::Family {
                family: FeaturesSet::family_name(),
                reason: error.to_string(),
                needed: "xgre needs Linux 5.6 with CONFIG_ETHTOOL_NETLINK",
            }
        })?;
        let mut request =
            NetlinkMessage::from(GenlMessage::from_payload(FeaturesSet::new(ifindex, names, on)));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut generic = self.generic.clone();
        let replies = generic.request(request).await.map_err(|_| closed())?;
        let mut replies = std::pin::pin!(replies);
        while let Some(reply) = replies.next().await {
            // The reply was declined, so what comes is the verdict, which is always decodable.
            let Ok(reply) = reply else { continue };
            if let NetlinkPayload::Error(error) = &reply.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(NetlinkError::refused(attempt(), error, reply.header.flags)),
                };
            }
        }
        Err(closed())
    }

    async fn netdev_family(&self) -> Result<Option<NetdevFamily>, NetlinkError> {
        let resolve = || async {
            match self.generic.resolve_family::<Netdev>().await {
                Ok(family) => Ok(Some(NetdevFamily {
                    id: family.id,
                    changes: family.multicast_groups.get(NETDEV_MCGRP_MGMT).copied(),
                })),
                Err(GenetlinkError::NetlinkError(error))
                    if error.kind() == io::ErrorKind::NotFound =>
                {
                    Ok(None)
                }
                Err(error) => Err(NetlinkError::Family {
                    family: Netdev::family_name(),
                    reason: error.to_string(),
                    needed: "restart the daemon",
                }),
            }
        };
        self.netdev.get_or_try_init(resolve).await.copied()
    }
}

/// The generic netlink family "netdev", as this kernel numbers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NetdevFamily {
    id: u16,
    /// The multicast group for changes of devices.
    changes: Option<u32>,
}

/// A reply to NETDEV_CMD_DEV_GET: generic netlink header and attributes.
fn parse(payload: &[u8]) -> Result<Option<(u32, u64)>, DecodeError> {
    let (_, attributes) = split::<4>(payload)?;
    let (mut ifindex, mut features) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NETDEV_A_DEV_IFINDEX => ifindex = Some(parse_u32(attribute.value())?),
            NETDEV_A_DEV_XDP_FEATURES => features = Some(parse_u64(attribute.value())?),
            _ => {}
        }
    }
    Ok(ifindex.zip(features))
}

/// Names the family; its only message is the dump above.
struct Netdev;

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

/// The attributes of an ETHTOOL_MSG_FEATURES_SET.
#[derive(Debug)]
struct FeaturesSet(Vec<u8>);

impl FeaturesSet {
    fn new(ifindex: u32, names: &[&str], on: bool) -> Self {
        let header = [
            attribute(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes()),
            attribute(ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes()),
        ];
        // A bit that is named is to be changed; to one where it also has a value.
        let value = if on { attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]) } else { Vec::new() };
        let bits = names.iter().map(|name| {
            let name = [name.as_bytes(), b"\0"].concat();
            let bit = [attribute(ETHTOOL_A_BITSET_BIT_NAME, &name), value.clone()];
            attribute(ETHTOOL_A_BITSET_BITS_BIT, &bit.concat())
        });
        let wanted = attribute(ETHTOOL_A_BITSET_BITS, &bits.collect::<Vec<_>>().concat());
        Self(
            [
                attribute(ETHTOOL_A_FEATURES_HEADER, &header.concat()),
                attribute(ETHTOOL_A_FEATURES_WANTED, &wanted),
            ]
            .concat(),
        )
    }
}

impl GenlFamily for FeaturesSet {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        ETHTOOL_MSG_FEATURES_SET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for FeaturesSet {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for FeaturesSet {
    fn parse_with_param(attributes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self(attributes.to_vec()))
    }
}
