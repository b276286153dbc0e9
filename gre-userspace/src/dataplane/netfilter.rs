//! Rules of netfilter on the way that packets of a tunnel take through the kernel, and do not take where
//! XDP forwards them.
//!
//! A tunnel that respects them is left to the kernel in both directions, so that conntrack sees both: the
//! next hop of its record is one that XDP does not send to, and what comes out of it is not forwarded but
//! handed to its device.

use super::Compiler;
use crate::{
    model::{Netfilter, Tunnel},
    observed::{FilterChain, FilterFamily},
};

/// How [`TunnelState::why_not`](super::TunnelState) starts where a tunnel respects netfilter.
pub const RESPECTED: &str = "netfilter is respected: ";

impl Compiler<'_> {
    /// The first chain that a tunnel respects, and XDP would bypass.
    pub(super) fn respected(&self, tunnel: &Tunnel) -> Option<&FilterChain> {
        if tunnel.netfilter == Netfilter::Bypass {
            return None;
        }
        let is_port = |name: &str| {
            let links = self.ports.keys().filter_map(|ifindex| self.snapshot.links.get(ifindex));
            links.into_iter().any(|link| link.name == name)
        };
        self.snapshot
            .filters
            .iter()
            .find(|chain| meets(chain, &tunnel.name, tunnel.mode.is_ethernet(), is_port))
    }
}

/// Whether packets of a tunnel come by a chain on their way through the kernel: IP packets by those of IP,
/// frames by those of bridges, and both by those of the ports and of the tunnel's own device.
pub fn meets(
    chain: &FilterChain,
    tunnel: &str,
    ethernet: bool,
    is_port: impl Fn(&str) -> bool,
) -> bool {
    if !chain.devices.is_empty() {
        return chain.devices.iter().any(|device| device == tunnel || is_port(device));
    }
    match chain.family {
        FilterFamily::Inet | FilterFamily::Ip | FilterFamily::Ip6 => !ethernet,
        FilterFamily::Bridge => ethernet,
        FilterFamily::Netdev => false,
    }
}
