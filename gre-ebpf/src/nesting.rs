//! IPv6 that enters a tunnel over IPv6 (RFC 2473, 4).

use gre_ebpf_common::{
    outcome::{Outcome, Stop},
    tunnel::{Flags, Tunnel},
};

use crate::{header::Header, tunnels};

/// Refuses what the tunnel's remote itself has sent, which goes in a circle (ip6gre_xmit_ipv6; RFC
/// 2473, 4.1.2).
#[inline(always)]
pub fn refuse_remote<H: Header>(id: u32, tunnel: &Tunnel, inner: &H) -> Result<(), Stop> {
    if tunnel.flags.has(Flags::IPV6)
        && tunnels::addresses6(id).is_some_and(|ends| inner.is_from6(&ends.remote))
    {
        return Err(Stop::on(id, Outcome::InnerSource));
    }
    Ok(())
}
