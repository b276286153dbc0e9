//! The GRE header that an ICMP error quotes.

use gre_ebpf_common::wire::gre::{self, GreBase};

use super::super::{
    packet::{self, Ipv4, Ipv6},
    reason::Reason,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotedGre<'a> {
    pub protocol: u16,
    pub key: QuotedKey,
    /// What is quoted of the inner packet.
    pub inner: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotedKey {
    Absent,
    /// Host order.
    Present(u32),
    /// There was one; the quote ends in front of it.
    Cut,
}

impl<'a> QuotedGre<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Reason> {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let base = GreBase(u32::from_ne_bytes(word(0).ok_or(Reason::IcmpMalformed)?));
        if base.validate().is_err() {
            return Err(Reason::IcmpNotOurs);
        }
        let key = match word(base.key_offset()) {
            _ if !base.has_key() => QuotedKey::Absent,
            Some(key) => QuotedKey::Present(u32::from_be_bytes(key)),
            None => QuotedKey::Cut,
        };
        let inner = bytes.get(base.header_len()..).unwrap_or_default();
        Ok(Self { protocol: base.protocol(), key, inner })
    }

    /// Whether enough of the inner packet is quoted to tell its sender: its header and eight bytes,
    /// from which the sender sees which of its sockets is meant (RFC 792, RFC 2003, 4).
    pub fn is_relayable(&self) -> bool {
        let header_len = match self.protocol {
            gre::PROTOCOL_IPV4 => Ipv4::quoted(self.inner).map(Ipv4::header_len),
            packet::ETHERTYPE_IPV6 => Ipv6::quoted(self.inner).map(|_| Ipv6::HEADER_LEN),
            _ => None,
        };
        header_len.is_some_and(|len| self.inner.len() >= len + 8)
    }
}
