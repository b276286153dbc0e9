//! Links: their dump (RTM_GETLINK), and changes to one.

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, NlasIterator, parse_i32, parse_u8, parse_u32};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use nix::libc::{AF_INET, AF_UNSPEC};
use rtnetlink::LinkUnspec;

use super::{
    Kernel, NetlinkError, device, features,
    socket::{Dump, attribute, split, text, word},
};
use crate::observed::{AttachedXdp, Link};

// linux/rtnetlink.h, linux/netconf.h
const RTM_GETLINK: u16 = 18;
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_IFINDEX_ALL: i32 = -1;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_SKB: u8 = 2;

// linux/ip.h; the array in IFLA_INET_CONF has no element for index 0.
const IPV4_DEVCONF_FORWARDING: usize = 1;
const IPV4_DEVCONF_RP_FILTER: usize = 8;

const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

// linux/if.h, linux/if_arp.h
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const ARPHRD_ETHER: u16 = 1;

pub(super) async fn read(kernel: &Kernel) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut dump = Dump::route("links", RTM_GETLINK, AF_UNSPEC, 16);
    dump.body.extend(attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
    let links = dump.read(parse).await?;

    // After the links: one made in between would otherwise look like one without features.
    let features = features::read(kernel).await?;
    let rp_filter_of_all = rp_filter_of_all().await?;

    Ok(links
        .into_iter()
        .map(|mut link| {
            link.xdp_features =
                features.as_ref().and_then(|features| features.get(&link.ifindex).copied());
            link.rp_filter = link.rp_filter.max(rp_filter_of_all);
            (link.ifindex, link)
        })
        .collect())
}

impl Kernel {
    pub async fn delete_link(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).build();
        self.change(
            || format!("delete the device {}", device(ifindex)),
            RouteNetlinkMessage::DelLink(message),
            0,
        )
        .await
    }

    /// Of a tunnel device, set the peer's as well: a veth does not deliver more than its peer's.
    pub async fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(
            || format!("set the MTU of the device {} to {mtu}", device(ifindex)),
            LinkUnspec::new_with_index(ifindex).mtu(mtu).build(),
        )
        .await
    }

    pub async fn set_up(&self, ifindex: u32, up: bool) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex);
        let (word, message) = if up { ("up", message.up()) } else { ("down", message.down()) };
        self.set_link(|| format!("set the device {} {word}", device(ifindex)), message.build())
            .await
    }

    /// At most 255 bytes; an empty one takes the alias away.
    pub async fn set_alias(&self, ifindex: u32, alias: &str) -> Result<(), NetlinkError> {
        self.set_link(
            || format!("set the alias of the device {} to \"{alias}\"", device(ifindex)),
            LinkUnspec::new_with_index(ifindex).alias(alias).build(),
        )
        .await
    }

    pub(super) async fn set_link(
        &self,
        attempt: impl Fn() -> String,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        self.change(attempt, RouteNetlinkMessage::SetLink(message), 0).await
    }
}

/// net.ipv4.conf.all.rp_filter, over netlink because what /proc shows depends on the thread.
async fn rp_filter_of_all() -> Result<u8, NetlinkError> {
    let values = Dump::route("IPv4 device settings", RTM_GETNETCONF, AF_INET, 4)
        .read(|payload| {
            let (_, attributes) = split::<4>(payload)?;
            let mut of_all = false;
            let mut rp_filter = 0;
            for attribute in NlasIterator::new(attributes) {
                let attribute = attribute?;
                let value = attribute.value();
                match attribute.kind() {
                    NETCONFA_IFINDEX => of_all = parse_i32(value)? == NETCONFA_IFINDEX_ALL,
                    NETCONFA_RP_FILTER => rp_filter = parse_i32(value)?,
                    _ => {}
                }
            }
            Ok(of_all.then_some(rp_filter as u8))
        })
        .await?;
    Ok(values.into_iter().max().unwrap_or(0))
}

/// An RTM_NEWLINK: `struct ifinfomsg` and attributes. What other dumps tell is left at its default.
fn parse(payload: &[u8]) -> Result<Option<Link>, DecodeError> {
    let (header, attributes) = split::<16>(payload)?;
    let link_layer = u16::from_ne_bytes([header[2], header[3]]);
    let flags = word(header, 8);
    let mut link = Link {
        ifindex: word(header, 4),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        kind: None,
        link: None,
        master: None,
        alias: None,
        xdp: None,
        forwarding: false,
        rp_filter: 0,
        xdp_features: None,
    };
    let mut link_is_elsewhere = false;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS if link_layer == ARPHRD_ETHER => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = parse_u32(value)?,
            IFLA_LINK => link.link = Some(parse_u32(value)?).filter(|ifindex| *ifindex != 0),
            IFLA_LINK_NETNSID => link_is_elsewhere = true,
            IFLA_MASTER => link.master = Some(parse_u32(value)?),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_LINKINFO => link.kind = kind(value)?,
            IFLA_XDP => link.xdp = attached_xdp(value)?,
            IFLA_AF_SPEC => (link.forwarding, link.rp_filter) = ipv4_settings(value)?,
            _ => {}
        }
    }
    if link_is_elsewhere {
        link.link = None;
    }
    Ok(Some(link))
}

fn kind(link_info: &[u8]) -> Result<Option<String>, DecodeError> {
    for attribute in NlasIterator::new(link_info) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_INFO_KIND {
            return Ok(Some(text(attribute.value())));
        }
    }
    Ok(None)
}

fn attached_xdp(nested: &[u8]) -> Result<Option<AttachedXdp>, DecodeError> {
    let mut generic = false;
    let mut only = None;
    let mut native = None;
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_XDP_ATTACHED => generic = parse_u8(value)? == XDP_ATTACHED_SKB,
            IFLA_XDP_PROG_ID => only = Some(parse_u32(value)?),
            IFLA_XDP_DRV_PROG_ID => native = Some(parse_u32(value)?),
            _ => {}
        }
    }
    // With programs in several modes at once there is no IFLA_XDP_PROG_ID, and the native one sees
    // the packets first.
    Ok(only.or(native).map(|program_id| AttachedXdp { program_id, generic }))
}

/// net.ipv4.conf.IF.{forwarding,rp_filter}; off for a device without IPv4.
fn ipv4_settings(af_spec: &[u8]) -> Result<(bool, u8), DecodeError> {
    for family in NlasIterator::new(af_spec) {
        let family = family?;
        if i32::from(family.kind()) != AF_INET {
            continue;
        }
        for attribute in NlasIterator::new(family.value()) {
            let attribute = attribute?;
            if attribute.kind() == IFLA_INET_CONF {
                let (settings, _) = attribute.value().as_chunks::<4>();
                let setting = |index: usize| {
                    settings.get(index - 1).map_or(0, |bytes| i32::from_ne_bytes(*bytes))
                };
                return Ok((
                    setting(IPV4_DEVCONF_FORWARDING) != 0,
                    setting(IPV4_DEVCONF_RP_FILTER) as u8,
                ));
            }
        }
    }
    Ok((false, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(link_layer: u16, attributes: &[Vec<u8>]) -> Link {
        let mut message = vec![0; 16];
        message[2..4].copy_from_slice(&link_layer.to_ne_bytes());
        message.extend(attributes.concat());
        parse(&message).unwrap().unwrap()
    }

    #[test]
    fn a_hardware_address_is_a_mac_only_on_ethernet() {
        let address = [attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])];

        assert_eq!(link(ARPHRD_ETHER, &address).mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(link(772, &address).mac, None);
    }

    #[test]
    fn a_peer_in_another_namespace_is_no_link() {
        let peer = attribute(IFLA_LINK, &7u32.to_ne_bytes());
        let elsewhere = attribute(IFLA_LINK_NETNSID, &0i32.to_ne_bytes());

        assert_eq!(link(ARPHRD_ETHER, std::slice::from_ref(&peer)).link, Some(7));
        assert_eq!(link(ARPHRD_ETHER, &[peer, elsewhere]).link, None);
    }

    #[test]
    fn of_several_xdp_programs_the_native_one_is_reported() {
        const XDP_ATTACHED_MULTI: u8 = 4;
        const IFLA_XDP_SKB_PROG_ID: u16 = 6;
        let xdp = |attributes: &[Vec<u8>]| {
            link(ARPHRD_ETHER, &[attribute(IFLA_XDP, &attributes.concat())]).xdp
        };
        let id = |kind, id: u32| attribute(kind, &id.to_ne_bytes());

        assert_eq!(xdp(&[attribute(IFLA_XDP_ATTACHED, &[0])]), None);
        assert_eq!(
            xdp(&[
                attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_SKB]),
                id(IFLA_XDP_PROG_ID, 5),
                id(IFLA_XDP_SKB_PROG_ID, 5),
            ]),
            Some(AttachedXdp { program_id: 5, generic: true })
        );
        assert_eq!(
            xdp(&[
                attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_MULTI]),
                id(IFLA_XDP_SKB_PROG_ID, 5),
                id(IFLA_XDP_DRV_PROG_ID, 6),
            ]),
            Some(AttachedXdp { program_id: 6, generic: false })
        );
    }

    #[test]
    fn a_message_cut_short_is_an_error_not_half_a_link() {
        assert!(parse(&[0; 15]).is_err());
        assert!(parse(&[[0; 16].as_slice(), &[9, 0, 3, 0, b'e']].concat()).is_err());
    }
}
