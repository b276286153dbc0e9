//! Links (RTM_GETLINK; linux/if_link.h).

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator};
use nix::libc;

use crate::observed::{AttachedXdp, Link};

use super::{
    error::NetlinkError,
    rp_filter_of_all,
    socket::{Dump, split, text, word},
};

const RTM_GETLINK: u16 = 18;
/// struct ifinfomsg: family, padding, type (u16), index, flags, change.
const HEADER: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;

const IFLA_INFO_KIND: u16 = 1;
const AF_SPEC_INET: u16 = libc::AF_INET as u16;
const IFLA_INET_CONF: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
/// Values of IFLA_XDP_ATTACHED.
const XDP_ATTACHED_NONE: u8 = 0;
const XDP_ATTACHED_SKB: u8 = 2;

/// Words of IFLA_INET_CONF: IPV4_DEVCONF_FORWARDING and _RP_FILTER, less one (linux/ip.h).
const FORWARDING: usize = 0;
const RP_FILTER: usize = 7;

const ARPHRD_ETHER: u16 = 1;

pub(super) async fn read() -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let of_all = rp_filter_of_all().unwrap_or(0);
    let mut links = Dump::route("links", RTM_GETLINK, libc::AF_UNSPEC, HEADER)
        .read(|payload| parse(payload).map(Some))
        .await?;
    for link in &mut links {
        link.rp_filter = link.rp_filter.max(of_all);
    }
    Ok(links.into_iter().map(|link| (link.ifindex, link)).collect())
}

fn parse(payload: &[u8]) -> Result<Link, DecodeError> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let device_type = u16::from_ne_bytes([header[2], header[3]]);
    let flags = word(header, 8);
    let mut link = Link {
        ifindex: word(header, 4),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        kind: None,
        link: None,
        master: None,
        alias: None,
        xdp: None,
        forwarding: false,
        rp_filter: 0,
        xdp_features: None,
    };
    let mut elsewhere = false;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS if device_type == ARPHRD_ETHER => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value, 0),
            IFLA_LINK => link.link = Some(word(value, 0)),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_MASTER => link.master = Some(word(value, 0)),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_LINKINFO => {
                link.kind = find(value, IFLA_INFO_KIND)?.map(|kind| text(kind.value()));
            }
            IFLA_AF_SPEC => {
                if let Some(inet) = find(value, AF_SPEC_INET)?
                    && let Some(settings) = find(inet.value(), IFLA_INET_CONF)?
                {
                    let setting = |index: usize| match settings.value().get(4 * index..) {
                        Some(rest) => word(rest, 0),
                        None => 0,
                    };
                    link.forwarding = setting(FORWARDING) != 0;
                    link.rp_filter = setting(RP_FILTER) as u8;
                }
            }
            IFLA_XDP => link.xdp = xdp(value)?,
            _ => {}
        }
    }
    // The index is one of another namespace.
    if elsewhere {
        link.link = None;
    }
    Ok(link)
}

fn xdp(value: &[u8]) -> Result<Option<AttachedXdp>, DecodeError> {
    let mode = find(value, IFLA_XDP_ATTACHED)?
        .and_then(|mode| mode.value().first().copied())
        .unwrap_or(XDP_ATTACHED_NONE);
    if mode == XDP_ATTACHED_NONE {
        return Ok(None);
    }
    let program_id = find(value, IFLA_XDP_PROG_ID)?.map_or(0, |id| word(id.value(), 0));
    Ok(Some(AttachedXdp { program_id, generic: mode == XDP_ATTACHED_SKB }))
}

/// The nested attribute of a kind.
fn find(value: &[u8], kind: u16) -> Result<Option<NlaBuffer<&[u8]>>, DecodeError> {
    for attribute in NlasIterator::new(value) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}
