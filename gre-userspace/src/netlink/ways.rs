//! Which way the kernel sends packets, rules and all (RTM_GETROUTE with a destination, `ip route get`).

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use nix::libc::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV};

use super::{Kernel, NetlinkError, device, family_of};
use crate::{dataplane::Question, rib::Via};

impl Kernel {
    /// The next hop; none where there is none, or only the kernel can send there.
    pub async fn way(&self, question: Question) -> Result<Option<Via>, NetlinkError> {
        let Question { remote, local, link } = question;
        let attempt = || match link {
            0 => format!("look up the way from {local} to {remote}"),
            link => format!("look up the way from {local} to {remote} out of {}", device(link)),
        };
        // Out of an interface that no route leads out of, the kernel takes everybody to be on its link, and
        // answers so; a route it finds only where there is one.
        let found = link == 0 || matches!(self.answer(request(question, true)).await, Ok(Some(_)));
        if !found {
            return Ok(None);
        }
        match self.answer(request(question, false)).await {
            Ok(reply) => Ok(reply.and_then(|route| via(&route))),
            Err(rtnetlink::Error::NetlinkError(error)) => {
                let errno = error.raw_code().unsigned_abs() as i32;
                match errno {
                    // No route, one that forbids it, an address or an interface that is not here.
                    ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL | ENODEV => Ok(None),
                    _ => Err(NetlinkError::Refused {
                        attempt: attempt(),
                        errno: std::io::Error::from_raw_os_error(errno),
                        detail: None,
                    }),
                }
            }
            Err(_) => Err(NetlinkError::Closed { attempt: attempt() }),
        }
    }

    async fn answer(
        &self,
        question: RouteMessage,
    ) -> Result<Option<RouteMessage>, rtnetlink::Error> {
        Box::pin(self.route.route().get(question).execute()).try_next().await
    }
}

/// `route` asks for the route that is taken, rather than for the way that it is.
fn request(Question { remote, local, link }: Question, route: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.flags.set(RouteFlags::FibMatch, route);
    let bits = if remote.is_ipv4() { 32 } else { 128 };
    message.header.address_family = family_of(remote);
    message.header.destination_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(remote.into()));
    if !local.is_unspecified() {
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Source(local.into()));
    }
    if link != 0 {
        message.attributes.push(RouteAttribute::Oif(link));
    }
    message
}

fn via(route: &RouteMessage) -> Option<Via> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut via = Via { ifindex: 0, gateway: None, prefsrc: None, mtu: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => via.ifindex = *ifindex,
            RouteAttribute::Gateway(address) => via.gateway = ip(address),
            // An IPv6 gateway of an IPv4 route.
            RouteAttribute::Via(RouteVia::Inet6(_)) => return None,
            RouteAttribute::PrefSource(address) => via.prefsrc = ip(address),
            RouteAttribute::Metrics(metrics) => {
                via.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (via.ifindex != 0).then_some(via)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
