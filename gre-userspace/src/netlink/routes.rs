//! Routes: their dump (RTM_GETROUTE), and adding and deleting one that leads into a device.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, NlasIterator, parse_u32};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::libc::{AF_INET, AF_INET6, EEXIST};

use super::{
    Added, Kernel, NetlinkError, device, family_of,
    socket::{Dump, address, split, word},
};
use crate::observed::{Path, Route, RouteTarget};

// linux/rtnetlink.h
const RTM_GETROUTE: u16 = 26;
const RT_TABLE_DEFAULT: u32 = 253;
const RT_TABLE_MAIN: u32 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTAX_MTU: u16 = 2;

/// The metric of an IPv6 route that is added without one (IP6_RT_PRIO_USER).
const DEFAULT_METRIC6: u32 = 1024;

/// The tables that the kernel's own rules look in.
pub(crate) fn is_looked_up(family: i32, table: u32) -> bool {
    match family {
        AF_INET => matches!(table, RT_TABLE_DEFAULT | RT_TABLE_MAIN | RT_TABLE_LOCAL),
        AF_INET6 => matches!(table, RT_TABLE_MAIN | RT_TABLE_LOCAL),
        _ => false,
    }
}

pub(super) async fn read(family: i32) -> Result<Vec<Route>, NetlinkError> {
    let what = if family == AF_INET { "IPv4 routes" } else { "IPv6 routes" };
    let parse = |payload: &[u8]| match payload.first() {
        Some(&other) if i32::from(other) != family => Ok(None),
        _ => parse(payload),
    };
    let mut routes = Dump::route(what, RTM_GETROUTE, family, 12).read(parse).await?;
    if !tells_flows_by_addresses(family) {
        let multipath =
            routes.iter_mut().filter(|route| matches!(route.target, RouteTarget::Multipath { .. }));
        multipath.for_each(|route| route.target = RouteTarget::Kernel);
    }
    Ok(routes)
}

/// Whether of several next hops the kernel chooses one for each pair of addresses (`fib_multipath_hash_policy`
/// is 0, the default), and not by ports or inner headers. Nobody is told when that changes: it counts from the next
/// change of a route on.
fn tells_flows_by_addresses(family: i32) -> bool {
    let version = if family == AF_INET { "ipv4" } else { "ipv6" };
    let policy = format!("/proc/sys/net/{version}/fib_multipath_hash_policy");
    // A kernel without multipath routes has no such file.
    fs::read_to_string(policy).map_or(true, |policy| policy.trim() == "0")
}

impl Kernel {
    /// `ip route add PREFIX dev DEV`: in the main table, scope link, with the metric that the kernel
    /// gives (0 for IPv4, 1024 for IPv6). The device must be up.
    pub async fn add_route(&self, prefix: IpNet, ifindex: u32) -> Result<Added, NetlinkError> {
        let mut message = message(prefix, ifindex);
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        let result = self
            .change(
                || format!("add the route {prefix} dev {}", device(ifindex)),
                RouteNetlinkMessage::NewRoute(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await;
        match result {
            Ok(()) => Ok(Added::Now),
            // For the kernel a route to the same prefix exists already wherever it leads.
            Err(refusal) if refusal.errno() == Some(EEXIST) => {
                let (family, metric) = if prefix.addr().is_ipv4() {
                    (AF_INET, 0)
                } else {
                    (AF_INET6, DEFAULT_METRIC6)
                };
                let there = read(family).await?.into_iter().any(|route| {
                    route.table == RT_TABLE_MAIN
                        && route.destination == prefix
                        && (route.tos, route.metric) == (0, metric)
                        && matches!(
                            route.target,
                            RouteTarget::Unicast { ifindex: to, gateway: None, .. } if to == ifindex
                        )
                });
                if there {
                    Ok(Added::Before)
                } else {
                    Err(NetlinkError::RouteLeadsElsewhere { prefix, device: device(ifindex) })
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// `ip route del PREFIX dev DEV`: whatever its scope, type and protocol.
    pub async fn delete_route(&self, prefix: IpNet, ifindex: u32) -> Result<(), NetlinkError> {
        let mut message = message(prefix, ifindex);
        message.header.scope = RouteScope::NoWhere;
        self.change(
            || format!("delete the route {prefix} dev {}", device(ifindex)),
            RouteNetlinkMessage::DelRoute(message),
            0,
        )
        .await
    }
}

fn message(prefix: IpNet, ifindex: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RT_TABLE_MAIN as u8;
    message.attributes =
        vec![RouteAttribute::Destination(prefix.addr().into()), RouteAttribute::Oif(ifindex)];
    message
}

/// An RTM_NEWROUTE: `struct rtmsg` and attributes. None for one that is not a route of the tables
/// looked up.
fn parse(payload: &[u8]) -> Result<Option<Route>, DecodeError> {
    let (header, attributes) = split::<12>(payload)?;
    let [family, prefix_length, source_length, tos, table, _, _, kind, ..] = *header;
    let flags = word(header, 8);

    let mut table = u32::from(table);
    let mut destination: IpAddr = match i32::from(family) {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Err(format!("a route of the address family {family}").into()),
    };
    let mut metric = 0;
    let (mut ifindex, mut gateway, mut prefsrc, mut mtu) = (None, None, None, None);
    let mut paths = None;
    let mut plain = kind == RTN_UNICAST && flags & RTNH_F_DEAD == 0;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            RTA_TABLE => table = parse_u32(value)?,
            RTA_DST => destination = address(value)?,
            RTA_PRIORITY => metric = parse_u32(value)?,
            RTA_OIF => ifindex = Some(parse_u32(value)?),
            RTA_GATEWAY => gateway = Some(address(value)?),
            RTA_PREFSRC => prefsrc = Some(address(value)?),
            RTA_METRICS => mtu = mtu_of(value)?,
            RTA_MULTIPATH => paths = Some(multipath(value)?),
            RTA_VIA | RTA_ENCAP_TYPE | RTA_ENCAP => plain = false,
            _ => {}
        }
    }
    if flags & RTM_F_CLONED != 0 || !is_looked_up(family.into(), table) {
        return Ok(None);
    }
    // Where an IPv6 prefix has a route for some sources, those are looked at before any metric.
    if source_length != 0 {
        (plain, metric) = (false, 0);
    }
    let target = match (ifindex, paths) {
        (None, Some(Some(paths))) if plain => RouteTarget::Multipath { paths, prefsrc, mtu },
        (Some(ifindex), None) if plain => RouteTarget::Unicast { ifindex, gateway, prefsrc, mtu },
        // Without a device: a nexthop object that the kernel was told not to spell out
        // (net.ipv4.nexthop_compat_mode), or a route with nowhere to go.
        _ => RouteTarget::Kernel,
    };
    let destination = IpNet::new(destination, prefix_length).map_err(|error| error.to_string())?;
    Ok(Some(Route { table, destination, tos, metric, target }))
}

/// Next hops that are alive, from `struct rtnexthop` and its attributes, one behind the other. None where there is
/// no such next hop, or one that only the kernel can send to.
fn multipath(mut value: &[u8]) -> Result<Option<Vec<Path>>, DecodeError> {
    let mut paths = Vec::new();
    while !value.is_empty() {
        let (header, _) = split::<8>(value)?;
        let [low, high, flags, hops, ..] = *header;
        let len = usize::from(u16::from_ne_bytes([low, high]));
        let hop = value.get(8..len).ok_or("a next hop is longer than the route it is of")?;
        value = value.get(len.next_multiple_of(4)..).unwrap_or_default();
        let mut path =
            Path { ifindex: word(header, 4), gateway: None, weight: u16::from(hops) + 1 };
        for attribute in NlasIterator::new(hop) {
            let attribute = attribute?;
            match attribute.kind() {
                RTA_GATEWAY => path.gateway = Some(address(attribute.value())?),
                RTA_VIA | RTA_ENCAP_TYPE | RTA_ENCAP => return Ok(None),
                _ => {}
            }
        }
        if u32::from(flags) & RTNH_F_DEAD == 0 {
            paths.push(path);
        }
    }
    Ok(Some(paths).filter(|paths| !paths.is_empty()))
}

fn mtu_of(metrics: &[u8]) -> Result<Option<u32>, DecodeError> {
    for attribute in NlasIterator::new(metrics) {
        let attribute = attribute?;
        if attribute.kind() == RTAX_MTU {
            return Ok(Some(parse_u32(attribute.value())?));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    /// 10.0.0.0/8 via 192.0.2.1 dev 3 metric 7 of the main table.
    fn route(kind: u8, flags: u32, more: &[Vec<u8>]) -> Option<Route> {
        let mut message = vec![2, 8, 0, 0, 254, 3, 0, kind];
        message.extend(flags.to_ne_bytes());
        message.extend(attribute(RTA_TABLE, &254u32.to_ne_bytes()));
        message.extend(attribute(RTA_DST, &[10, 0, 0, 0]));
        message.extend(attribute(RTA_PRIORITY, &7u32.to_ne_bytes()));
        message.extend(attribute(RTA_GATEWAY, &[192, 0, 2, 1]));
        message.extend(attribute(RTA_OIF, &3u32.to_ne_bytes()));
        message.extend(more.concat());
        parse(&message).unwrap()
    }

    #[test]
    fn a_plain_unicast_route_is_decoded_whole() {
        const RTNH_F_ONLINK: u32 = 4;
        const RTA_NH_ID: u16 = 30;
        let mtu = attribute(RTAX_MTU, &1400u32.to_ne_bytes());
        let more = [
            attribute(RTA_METRICS, &mtu),
            attribute(RTA_NH_ID, &1u32.to_ne_bytes()),
            attribute(RTA_PREFSRC, &[192, 0, 2, 9]),
        ];

        assert_eq!(
            route(RTN_UNICAST, RTNH_F_ONLINK, &more),
            Some(Route {
                table: 254,
                destination: "10.0.0.0/8".parse().unwrap(),
                tos: 0,
                metric: 7,
                target: RouteTarget::Unicast {
                    ifindex: 3,
                    gateway: Some([192, 0, 2, 1].into()),
                    prefsrc: Some([192, 0, 2, 9].into()),
                    mtu: Some(1400),
                },
            })
        );
    }

    #[test]
    fn what_only_the_kernel_can_act_on_is_left_to_it() {
        const RTN_BLACKHOLE: u8 = 6;
        let cases = [
            route(RTN_BLACKHOLE, 0, &[]),
            route(RTN_UNICAST, RTNH_F_DEAD, &[]),
            route(RTN_UNICAST, 0, &[attribute(RTA_MULTIPATH, &[])]),
            multipath_route(&[hop(RTNH_F_DEAD as u8, 0, 3, &[])]),
            multipath_route(&[hop(0, 0, 3, &[]), hop(0, 0, 4, &attribute(RTA_VIA, &[10, 0]))]),
            multipath_route(&[hop(0, 0, 3, &[]), hop(0, 0, 4, &attribute(RTA_ENCAP, &[]))]),
            route(RTN_UNICAST, 0, &[attribute(RTA_VIA, &[10, 0])]),
            route(RTN_UNICAST, 0, &[attribute(RTA_ENCAP_TYPE, &[1, 0])]),
            route(RTN_UNICAST, 0, &[attribute(RTA_ENCAP, &[])]),
        ];
        for case in cases {
            assert_eq!(case.unwrap().target, RouteTarget::Kernel);
        }
    }

    /// `struct rtnexthop`, with what is behind it.
    fn hop(flags: u8, hops: u8, ifindex: u32, more: &[u8]) -> Vec<u8> {
        let len = (8 + more.len() as u16).to_ne_bytes();
        [&len[..], &[flags, hops], &ifindex.to_ne_bytes(), more].concat()
    }

    /// 10.0.0.0/8 of the main table.
    fn multipath_route(hops: &[Vec<u8>]) -> Option<Route> {
        let mut message = vec![2, 8, 0, 0, 254, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        message.extend(attribute(RTA_DST, &[10, 0, 0, 0]));
        message.extend(attribute(RTA_MULTIPATH, &hops.concat()));
        parse(&message).unwrap()
    }

    #[test]
    fn next_hops_of_a_multipath_route_that_are_alive_are_decoded_with_their_weights() {
        let hops = [
            hop(0, 2, 3, &attribute(RTA_GATEWAY, &[192, 0, 2, 1])),
            hop(RTNH_F_DEAD as u8, 0, 4, &attribute(RTA_GATEWAY, &[192, 0, 2, 2])),
            hop(0, 255, 5, &[]),
        ];
        let path = |ifindex, gateway, weight| Path { ifindex, gateway, weight };
        let paths = vec![path(3, Some([192, 0, 2, 1].into()), 3), path(5, None, 256)];
        let target = RouteTarget::Multipath { paths, prefsrc: None, mtu: None };
        assert_eq!(multipath_route(&hops).unwrap().target, target);
        // Of a hop that claims to be longer than it is nothing is guessed.
        assert!(multipath(&[60, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(multipath(&[4, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    /// 2001:db8::/32 via fe80::1 dev 3 metric 7 of `table`, for sources in a prefix of this length.
    fn route6(source_length: u8, table: u8) -> Option<Route> {
        let mut message = vec![10, 32, source_length, 0, table, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        message.extend(attribute(RTA_DST, &"2001:db8::".parse::<Ipv6Addr>().unwrap().octets()));
        message.extend(attribute(RTA_GATEWAY, &"fe80::1".parse::<Ipv6Addr>().unwrap().octets()));
        message.extend(attribute(RTA_PRIORITY, &7u32.to_ne_bytes()));
        message.extend(attribute(RTA_OIF, &3u32.to_ne_bytes()));
        parse(&message).unwrap()
    }

    #[test]
    fn an_ipv6_route_is_decoded_whole_and_left_to_the_kernel_where_it_is_for_some_sources_only() {
        let plain = Route {
            table: 254,
            destination: "2001:db8::/32".parse().unwrap(),
            tos: 0,
            metric: 7,
            target: RouteTarget::Unicast {
                ifindex: 3,
                gateway: Some("fe80::1".parse().unwrap()),
                prefsrc: None,
                mtu: None,
            },
        };
        assert_eq!(route6(0, 254), Some(plain.clone()));
        assert_eq!(
            route6(48, 254),
            Some(Route { metric: 0, target: RouteTarget::Kernel, ..plain })
        );
        assert_eq!(route6(0, 253), None, "IPv6 has no default table");
    }

    #[test]
    fn cached_routes_and_those_of_other_tables_are_left_out() {
        assert_eq!(route(RTN_UNICAST, RTM_F_CLONED, &[]), None);
        assert_eq!(route(RTN_UNICAST, 0, &[attribute(RTA_TABLE, &100u32.to_ne_bytes())]), None);
    }
}
