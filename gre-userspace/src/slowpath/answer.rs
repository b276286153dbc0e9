//! The ICMP error that tells the sender of an inner packet why it did not get through.

use super::{
    icmp::{
        V4_PARAMETER_PROBLEM, V4_TIME_EXCEEDED, V4_UNREACHABLE, V6_PACKET_TOO_BIG,
        V6_PARAMETER_PROBLEM, V6_TIME_EXCEEDED, V6_UNREACHABLE,
    },
    packet::{
        FRAGMENT_HEADER, FragmentHeader, Ipv4, Ipv6, MIN_MTU_IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
        checksum, seal_ipv4,
    },
    reason::Reason,
};

/// What to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The tunnel takes packets of this many bytes.
    TooBig { mtu: u16 },
    /// The remote cannot be reached.
    Unreachable,
    /// An outer packet's TTL ran out on the way to the remote.
    HopLimitExceeded,
    /// The packet's own encapsulation limit, which is IPv6's alone, is used up (RFC 2473, 4.1.1).
    EncapsulationLimit {
        /// Where the limit stands: bytes from the start of the packet.
        pointer: u16,
    },
}

/// Of an IPv4 error with its quote (RFC 1812, 4.3.2.3).
const MAX_LEN_V4: usize = 576;
/// RFC 4443, 2.4 (c).
const MAX_LEN_V6: usize = MIN_MTU_IPV6 as usize;
const ICMP_HEADER_LEN: usize = 8;
/// Internetwork control (RFC 1812, 4.3.2.5).
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

const V4_SOURCE_QUENCH: u8 = 4;
const V4_REDIRECT: u8 = 5;
const V6_REDIRECT: u8 = 137;

/// An IPv4 packet that complains of `offender`, which may end early. From the unspecified address
/// the kernel fills in the one from which it reaches the sender, if it sends it.
///
/// # Errors
/// [`Reason::TooBigUnanswerable`] where RFC 1812, 4.3.2.7, forbids an error.
pub fn ipv4(complaint: Complaint, offender: &[u8], source: [u8; 4]) -> Result<Vec<u8>, Reason> {
    let offender = Ipv4::quoted(offender)
        .filter(|offender| may_answer_v4(*offender))
        .ok_or(Reason::TooBigUnanswerable)?;
    let (code, mtu) = match complaint {
        Complaint::TooBig { mtu } => (4, mtu),
        // What is wrong inside the tunnel is no matter of the sender's (RFC 2003, 4.3).
        Complaint::Unreachable
        | Complaint::HopLimitExceeded
        | Complaint::EncapsulationLimit { .. } => (1, 0),
    };
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let bytes = offender.bytes();
    let quote = &bytes[..bytes.len().min(MAX_LEN_V4 - 20 - ICMP_HEADER_LEN)];
    let mut message = [&[V4_UNREACHABLE, code, 0, 0, 0, 0, mtu_high, mtu_low], quote].concat();
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);

    let [len_high, len_low] = (20 + message.len() as u16).to_be_bytes();
    // Don't Fragment, since it needs no identification then (RFC 6864).
    let mut header =
        [&[0x45, TOS, len_high, len_low, 0, 0, 0x40, 0, TTL, PROTOCOL_ICMP, 0, 0], &source[..]]
            .concat();
    header.extend(offender.source());
    seal_ipv4(&mut header);
    Ok([header, message].concat())
}

/// An IPv6 packet that complains of `offender`, which may end early.
///
/// # Errors
/// [`Reason::TooBigUnanswerable`] where RFC 4443, 2.4 (e), forbids an error, or the MTU to tell is
/// below what every link carries.
pub fn ipv6(complaint: Complaint, offender: &[u8], source: [u8; 16]) -> Result<Vec<u8>, Reason> {
    let offender = Ipv6::quoted(offender)
        .filter(|offender| may_answer_v6(complaint, *offender))
        .ok_or(Reason::TooBigUnanswerable)?;
    let (kind, code, value) = match complaint {
        Complaint::TooBig { mtu } if mtu < MIN_MTU_IPV6 => return Err(Reason::TooBigUnanswerable),
        Complaint::TooBig { mtu } => (V6_PACKET_TOO_BIG, 0, mtu),
        Complaint::Unreachable => (V6_UNREACHABLE, 3, 0),
        Complaint::HopLimitExceeded => (V6_TIME_EXCEEDED, 0, 0),
        Complaint::EncapsulationLimit { pointer } => (V6_PARAMETER_PROBLEM, 0, pointer),
    };
    let [high, low] = value.to_be_bytes();
    let bytes = offender.bytes();
    let quote = &bytes[..bytes.len().min(MAX_LEN_V6 - Ipv6::HEADER_LEN - ICMP_HEADER_LEN)];
    let mut message = [&[kind, code, 0, 0, 0, 0, high, low], quote].concat();
    let len = message.len() as u16;
    let addresses = [source, offender.source()].concat();
    // The pseudo header of RFC 8200, 8.1.
    let sum = checksum(&[&addresses, &len.to_be_bytes(), &[0, PROTOCOL_ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum);

    let [len_high, len_low] = len.to_be_bytes();
    let fixed = [0x60 | TOS >> 4, TOS << 4, 0, 0, len_high, len_low, PROTOCOL_ICMPV6, TTL];
    Ok([&fixed[..], &addresses, &message].concat())
}

fn may_answer_v4(offender: Ipv4) -> bool {
    let is_host = |address: [u8; 4]| !matches!(address[0], 0 | 127 | 224..);
    let is_error = offender.protocol() == PROTOCOL_ICMP
        && !offender.payload().first().is_some_and(|kind| {
            // What later RFCs may add is taken for an error.
            *kind <= 18
                && !matches!(
                    *kind,
                    V4_UNREACHABLE
                        | V4_SOURCE_QUENCH
                        | V4_REDIRECT
                        | V4_TIME_EXCEEDED
                        | V4_PARAMETER_PROBLEM
                )
        });
    is_host(offender.source())
        && is_host(offender.destination())
        && offender.fragment_offset() == 0
        && !is_error
}

fn may_answer_v6(complaint: Complaint, offender: Ipv6) -> bool {
    let is_multicast = |address: [u8; 16]| address[0] == 0xff;
    let source = offender.source();
    // Unspecified and loopback.
    let is_host = !is_multicast(source) && u128::from_be_bytes(source) > 1;
    // (e.3): a sender to a multicast group hears of its path MTU too.
    let about_multicast = matches!(complaint, Complaint::TooBig { .. });
    is_host && (about_multicast || !is_multicast(offender.destination())) && !is_error_v6(offender)
}

/// Whether it is an ICMPv6 error or a redirect, or cannot be told from one. Of a later fragment a
/// sender does hear: RFC 4443 knows no exception for these, and path MTU discovery needs it.
fn is_error_v6(offender: Ipv6) -> bool {
    let Some(chain) = offender.chain() else { return true };
    let rest = &offender.bytes()[chain.at..];
    let (protocol, message) = match chain.protocol {
        FRAGMENT_HEADER => match FragmentHeader::parse(rest) {
            None => return true,
            Some(header) if header.offset != 0 => return false,
            Some(header) => (header.protocol, &rest[FragmentHeader::LEN..]),
        },
        protocol => (protocol, rest),
    };
    protocol == PROTOCOL_ICMPV6
        && message.first().is_none_or(|kind| *kind < 128 || *kind == V6_REDIRECT)
}

#[cfg(test)]
mod tests;
