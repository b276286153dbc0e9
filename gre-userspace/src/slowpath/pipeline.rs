//! The encapsulation and decapsulation of the programs, on byte slices: from the same records and by
//! the same code.

mod received;

use std::net::IpAddr;

use gre_ebpf_common::{
    encapsulate::{self, Inner},
    tunnel::{Addresses6, Flags},
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
    let len = u16::try_from(inner.len()).ok()?.checked_add(record.overhead)?;
    let summary = summary(ethertype, inner)?;

    let mut outer = Vec::with_capacity(len.into());
    let mut put = |words: &[u32]| outer.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            put(&encapsulate::ipv4(record, &summary, stamp.identification));
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let ends = Addresses6 { local: words(local.octets()), remote: words(remote.octets()) };
            put(&encapsulate::ipv6(record, &ends, &summary));
            if record.flags.has(Flags::ENCAPSULATION_LIMIT) {
                put(&encapsulate::encapsulation_limit(record));
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
        let start = record.ip_len();
        let sum = checksum(&[&outer[start..]]);
        outer[start + 4..start + 6].copy_from_slice(&sum);
    }
    Some(outer)
}

fn summary(ethertype: u16, inner: &[u8]) -> Option<Inner> {
    let len = inner.len() as u32;
    Some(match ethertype {
        ETHERTYPE_ETHERNET => {
            let (ethertype, network) = network_layer(inner)?;
            // Of a packet behind tags the kernel takes nothing (ip_tunnel_xmit).
            let tagged = inner.len() - network.len() > 14;
            let ethertype = if tagged { ETHERTYPE_ETHERNET } else { ethertype };
            let packet = match ethertype {
                ETHERTYPE_ETHERNET => None,
                _ => summary(ethertype, network),
            };
            packet.unwrap_or(Inner::other(0, len)).framed(len)
        }
        ETHERTYPE_IPV4 => Inner::of(&Ipv4Header::from_bytes(*inner.first_chunk()?), len),
        ETHERTYPE_IPV6 => Inner::of(&Ipv6Header::from_bytes(*inner.first_chunk()?), len),
        other => Inner::other(other, len),
    })
}

/// An address in memory order.
fn words(octets: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| {
        u32::from_ne_bytes([octets[4 * i], octets[4 * i + 1], octets[4 * i + 2], octets[4 * i + 3]])
    })
}

#[cfg(test)]
mod tests;
