//! The encapsulation and decapsulation of the programs, on byte slices: from the same records and by
//! the same code.

mod received;

use std::net::IpAddr;

use gre_ebpf_common::{
    encapsulate::{self, Inner},
    limit::{self, Limit},
    tunnel::Addresses6,
    wire::{ipv4::Ipv4Header, ipv6::Ipv6Header},
};

pub use self::received::{Received, decapsulate};
use super::{
    packet::{ETHERTYPE_ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, checksum, network_layer},
    tables::TunnelEntry,
};

/// What each outer packet has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Over IPv4.
    pub identification: u16,
    /// Where the tunnel sends sequence numbers.
    pub sequence: u32,
}

/// The outer packet around `inner`; `None` where it would be too long for IP, or `inner` is not what
/// its EtherType says.
pub fn encapsulate(
    tunnel: &TunnelEntry,
    ethertype: u16,
    inner: &[u8],
    stamp: Stamp,
) -> Option<Vec<u8>> {
    let record = &tunnel.record;
    let summary = summary(tunnel, ethertype, inner)?;
    let overhead = encapsulate::overhead(record, summary.limit);
    let len = u16::try_from(inner.len()).ok()?.checked_add(overhead)?;

    let mut outer = Vec::with_capacity(len.into());
    let mut put = |words: &[u32]| outer.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            put(&encapsulate::ipv4(record, &summary, stamp.identification));
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let ends = Addresses6 { local: words(local.octets()), remote: words(remote.octets()) };
            put(&encapsulate::ipv6(record, &ends, &summary));
            if let Some(options) = encapsulate::encapsulation_limit(record, &summary) {
                put(&options);
            }
        }
        _ => return None,
    }
    let gre = encapsulate::gre(record, summary.protocol);
    put(&[gre.0]);
    if gre.has_checksum() {
        put(&[0]);
    }
    if gre.has_key() {
        put(&[record.sent_key]);
    }
    if gre.has_sequence() {
        put(&[stamp.sequence.to_be()]);
    }
    outer.extend(inner);
    if gre.has_checksum() {
        let start = outer.len() - inner.len() - gre.header_len();
        let sum = checksum(&[&outer[start..]]);
        outer[start + 4..start + 6].copy_from_slice(&sum);
    }
    Some(outer)
}

fn summary(tunnel: &TunnelEntry, ethertype: u16, inner: &[u8]) -> Option<Inner> {
    let len = inner.len() as u32;
    Some(match ethertype {
        ETHERTYPE_ETHERNET => {
            let (ethertype, network) = network_layer(inner)?;
            // Of a packet behind tags the kernel takes nothing (ip_tunnel_xmit).
            let tagged = inner.len() - network.len() > 14;
            let ethertype = if tagged { ETHERTYPE_ETHERNET } else { ethertype };
            let packet = match ethertype {
                ETHERTYPE_ETHERNET => None,
                _ => summary(tunnel, ethertype, network),
            };
            packet.unwrap_or(Inner::other(0, len)).framed(len)
        }
        ETHERTYPE_IPV4 => Inner::of(&Ipv4Header::from_bytes(*inner.first_chunk()?), len),
        ETHERTYPE_IPV6 => {
            let limit = own_limit(tunnel, ethertype, inner).and_then(Limit::outer);
            Inner { limit, ..Inner::of(&Ipv6Header::from_bytes(*inner.first_chunk()?), len) }
        }
        other => Inner::other(other, len),
    })
}

/// The encapsulation limit that an inner packet brings along, which counts in tunnels over IPv6.
pub fn own_limit(tunnel: &TunnelEntry, ethertype: u16, inner: &[u8]) -> Option<Limit> {
    let counts = ethertype == ETHERTYPE_IPV6 && tunnel.remote.is_ipv6();
    if counts { limit::find(inner) } else { None }
}

/// An address in memory order.
fn words(octets: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| {
        u32::from_ne_bytes([octets[4 * i], octets[4 * i + 1], octets[4 * i + 2], octets[4 * i + 3]])
    })
}

#[cfg(test)]
mod tests;
