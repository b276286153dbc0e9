//! ICMP errors about outer packets: which tunnel's packet a router complains of, and what follows
//! for the tunnel (RFC 1191, RFC 4443, RFC 7588; the kernel's ipgre_err and ip6gre_err).

mod quote;

use std::net::IpAddr;

pub use self::quote::{QuotedGre, QuotedKey};
use super::{
    answer::Complaint,
    packet::{self, Ipv4, Ipv6, PROTOCOL_GRE, PROTOCOL_ICMP, half},
    reason::Reason,
};

/// Bytes in front of what an ICMP error quotes.
const HEADER_LEN: usize = 8;

// RFC 792.
pub const V4_UNREACHABLE: u8 = 3;
pub const V4_TIME_EXCEEDED: u8 = 11;
pub const V4_PARAMETER_PROBLEM: u8 = 12;
const V4_CODE_PORT: u8 = 3;
const V4_CODE_FRAGMENTATION_NEEDED: u8 = 4;
const V4_CODE_SOURCE_ROUTE_FAILED: u8 = 5;
// RFC 4443.
pub const V6_UNREACHABLE: u8 = 1;
pub const V6_PACKET_TOO_BIG: u8 = 2;
pub const V6_TIME_EXCEEDED: u8 = 3;
pub const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_CODE_PORT: u8 = 4;
/// Of either family's Time Exceeded: in transit, and not in reassembly.
const CODE_IN_TRANSIT: u8 = 0;

/// What a router says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The next link takes no more than this, in bytes.
    TooBig {
        mtu: u16,
    },
    Unreachable,
    HopLimitExceeded,
    /// Says nothing about the way to the remote: parameter problems, a failed source route, an
    /// unreachable port, a reassembly that timed out (the kernel ignores these too).
    Other,
}

/// An ICMP error about a GRE packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError<'a> {
    pub problem: Problem,
    /// Source of the quoted packet, and so a tunnel's local address, if it is ours.
    pub local: IpAddr,
    pub remote: IpAddr,
    /// As far as the quote goes, which may be no more than eight bytes behind the IP header.
    pub gre: QuotedGre<'a>,
}

/// What follows from an error for the tunnel it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    LearnPathMtu {
        mtu: u16,
    },
    /// To be told to the inner packet's sender.
    Relay(Complaint),
    Ignored(Reason),
}

impl<'a> IcmpError<'a> {
    /// Parses what a raw ICMP socket gives: the IPv4 packet.
    ///
    /// # Errors
    /// Why it concerns no tunnel.
    pub fn parse_v4(packet: &'a [u8]) -> Result<Self, Reason> {
        let message = Ipv4::whole(packet)
            .filter(|packet| packet.protocol() == PROTOCOL_ICMP && !packet.is_fragment())
            .map(Ipv4::payload)
            .filter(|message| message.len() >= HEADER_LEN)
            // The kernel gives raw sockets what it has not checked.
            .filter(|message| packet::checksum(&[message]) == [0, 0])
            .ok_or(Reason::IcmpMalformed)?;
        let quote = Ipv4::quoted(&message[HEADER_LEN..]).ok_or(Reason::IcmpMalformed)?;
        if quote.protocol() != PROTOCOL_GRE || quote.fragment_offset() != 0 {
            return Err(Reason::IcmpNotOurs);
        }
        let problem = match (message[0], message[1]) {
            (V4_UNREACHABLE, V4_CODE_FRAGMENTATION_NEEDED) => {
                let mtu = half(message, 6).expect("eight bytes are there");
                let mtu = if mtu == 0 { plateau_below(quote.total_len()) } else { mtu };
                Problem::TooBig { mtu }
            }
            (V4_UNREACHABLE, V4_CODE_PORT | V4_CODE_SOURCE_ROUTE_FAILED) => Problem::Other,
            (V4_UNREACHABLE, _) => Problem::Unreachable,
            (V4_TIME_EXCEEDED, CODE_IN_TRANSIT) => Problem::HopLimitExceeded,
            _ => Problem::Other,
        };
        Ok(Self {
            problem,
            local: quote.source().into(),
            remote: quote.destination().into(),
            gre: QuotedGre::parse(quote.payload())?,
        })
    }

    /// Parses what a raw ICMPv6 socket gives: the message, whose checksum the kernel has checked.
    ///
    /// # Errors
    /// Why it concerns no tunnel.
    pub fn parse_v6(message: &'a [u8]) -> Result<Self, Reason> {
        let quote = message.get(HEADER_LEN..).and_then(Ipv6::quoted);
        let quote = quote.ok_or(Reason::IcmpMalformed)?;
        // A tunnel encapsulation limit may be in front of GRE (RFC 2473, 4.1.1).
        let chain = quote.chain().ok_or(Reason::IcmpMalformed)?;
        if chain.protocol != PROTOCOL_GRE {
            return Err(Reason::IcmpNotOurs);
        }
        let problem = match (message[0], message[1]) {
            (V6_PACKET_TOO_BIG, _) => {
                let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
                Problem::TooBig { mtu: mtu.try_into().unwrap_or(u16::MAX) }
            }
            (V6_UNREACHABLE, V6_CODE_PORT) => Problem::Other,
            (V6_UNREACHABLE, _) => Problem::Unreachable,
            (V6_TIME_EXCEEDED, CODE_IN_TRANSIT) => Problem::HopLimitExceeded,
            _ => Problem::Other,
        };
        Ok(Self {
            problem,
            local: quote.source().into(),
            remote: quote.destination().into(),
            gre: QuotedGre::parse(&quote.bytes()[chain.at..])?,
        })
    }

    /// Whether the quoted packet is one that a tunnel sends, as far as the quote tells: anybody can
    /// send an ICMP error (RFC 7588, 5.1; RFC 5927).
    pub fn is_about(&self, local: IpAddr, remote: IpAddr, key: Option<u32>) -> bool {
        let keys_agree = match self.gre.key {
            QuotedKey::Absent => key.is_none(),
            QuotedKey::Present(quoted) => key == Some(quoted),
            QuotedKey::Cut => key.is_some(),
        };
        self.local == local && self.remote == remote && keys_agree
    }

    /// What follows for a tunnel that it is about.
    pub fn verdict(&self, ttl_inherit: bool) -> Verdict {
        if self.remote.is_multicast() || self.remote.is_unspecified() {
            return Verdict::Ignored(Reason::IcmpIgnored);
        }
        match self.problem {
            Problem::TooBig { mtu } => Verdict::LearnPathMtu { mtu },
            Problem::Unreachable => Verdict::Relay(Complaint::Unreachable),
            // The sender chose that number, and traceroute lives on it.
            Problem::HopLimitExceeded if ttl_inherit => Verdict::Ignored(Reason::IcmpIgnored),
            Problem::HopLimitExceeded => Verdict::Relay(Complaint::HopLimitExceeded),
            Problem::Other => Verdict::Ignored(Reason::IcmpIgnored),
        }
    }
}

/// The next usual MTU below the length of a packet, where the router is too old to tell (RFC 1191,
/// 7.1).
fn plateau_below(len: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|&plateau| plateau < len).unwrap_or(packet::MIN_MTU_IPV4)
}

#[cfg(test)]
mod tests;
