//! IPv4 routes (RTM_GETROUTE; linux/rtnetlink.h).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{DecodeError, NlasIterator};
use nix::libc;

use crate::observed::{Route, RouteTarget};

use super::{
    error::NetlinkError,
    socket::{Dump, ipv4, split, word},
};

const RTM_GETROUTE: u16 = 26;
/// struct rtmsg: family, destination and source length, TOS, table, protocol, scope, type, flags.
const HEADER: usize = 12;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTAX_MTU: u16 = 2;

const RTN_UNICAST: u8 = 1;
/// A cached route.
const RTM_F_CLONED: u32 = 0x200;
/// The next hop's device is down, or has no carrier.
const RTNH_F_DEAD_OR_LINKDOWN: u32 = 1 | 16;

/// default, main, local: what the kernel's own rules look into.
const TABLES: [u32; 3] = [253, 254, 255];

pub(super) async fn read() -> Result<Vec<Route>, NetlinkError> {
    Dump::route("routes", RTM_GETROUTE, libc::AF_INET, HEADER).read(parse).await
}

fn parse(payload: &[u8]) -> Result<Option<Route>, DecodeError> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let (prefix_len, tos, kind, flags) = (header[1], header[3], header[7], word(header, 8));
    let mut table = u32::from(header[4]);
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut metric = 0;
    let (mut oif, mut gateway, mut mtu) = (None, None, None);
    let mut plain = kind == RTN_UNICAST && flags & RTNH_F_DEAD_OR_LINKDOWN == 0;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            RTA_DST => destination = ipv4(value)?,
            RTA_OIF => oif = Some(word(value, 0)),
            RTA_GATEWAY => gateway = Some(ipv4(value)?),
            RTA_PRIORITY => metric = word(value, 0),
            RTA_METRICS => mtu = metric_mtu(value)?,
            RTA_TABLE => table = word(value, 0),
            RTA_MULTIPATH | RTA_VIA | RTA_ENCAP | RTA_ENCAP_TYPE => plain = false,
            _ => {}
        }
    }
    if flags & RTM_F_CLONED != 0 || !TABLES.contains(&table) {
        return Ok(None);
    }
    let destination = Ipv4Net::new(destination, prefix_len)
        .map_err(|_| DecodeError::from(format!("a prefix of {prefix_len} bits")))?;
    let target = match oif.filter(|_| plain) {
        Some(ifindex) => RouteTarget::Unicast { ifindex, gateway, mtu },
        None => RouteTarget::Kernel,
    };
    Ok(Some(Route { table, destination, tos, metric, target }))
}

fn metric_mtu(value: &[u8]) -> Result<Option<u32>, DecodeError> {
    let mut mtu = None;
    for metric in NlasIterator::new(value) {
        let metric = metric?;
        if metric.kind() == RTAX_MTU {
            mtu = Some(word(metric.value(), 0));
        }
    }
    Ok(mtu)
}
