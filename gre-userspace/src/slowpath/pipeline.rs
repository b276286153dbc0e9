//! The encapsulation and decapsulation of the programs, on byte slices: from the same records and by
//! the same code.

use std::net::IpAddr;

use gre_ebpf_common::{
    encapsulate::outer_header,
    outcome::Outcome,
    tunnel::Tunnel,
    wire::{
        gre::{self, GreBase},
        ipv4::{HEADER_LEN, Ipv4Header},
    },
};

use super::{
    packet::{ETHERTYPE_IPV4, Ipv4, Ipv6, PROTOCOL_GRE},
    tables::TunnelEntry,
};

/// The outer packet around `inner`; `None` where the tunnel cannot carry it.
pub fn encapsulate(
    tunnel: &TunnelEntry,
    ethertype: u16,
    inner: &[u8],
    identification: u16,
) -> Option<Vec<u8>> {
    let header = inner.first_chunk::<HEADER_LEN>().filter(|_| ethertype == ETHERTYPE_IPV4)?;
    let header = Ipv4Header::from_bytes(*header);
    let words = outer_header(&tunnel.record, &header, inner.len() as u32, identification);
    let mut outer: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    outer.truncate(tunnel.record.overhead.into());
    outer.extend(inner);
    Some(outer)
}

/// A GRE packet, whole, its outer header apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Destination of the outer packet.
    pub local: IpAddr,
    pub remote: IpAddr,
    /// Host order.
    pub key: Option<u32>,
    gre: GreBase,
    payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// # Errors
    /// Why it is no GRE packet of ours.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Outcome> {
        let (source, destination, protocol, bytes): (IpAddr, IpAddr, _, _) =
            if let Some(packet) = Ipv4::whole(packet) {
                if !packet.checksum_is_right() {
                    return Err(Outcome::Ipv4Malformed);
                }
                let (source, destination) = (packet.source(), packet.destination());
                (source.into(), destination.into(), packet.protocol(), packet.payload())
            } else {
                let packet = Ipv6::whole(packet).ok_or(Outcome::Ipv4Malformed)?;
                let chain = packet.chain().ok_or(Outcome::Ipv4Malformed)?;
                let (source, destination) = (packet.source(), packet.destination());
                let rest = &packet.bytes()[chain.at..];
                (source.into(), destination.into(), chain.protocol, rest)
            };
        if protocol != PROTOCOL_GRE {
            return Err(Outcome::NoTunnel);
        }
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let base = GreBase(u32::from_ne_bytes(word(0).ok_or(Outcome::GreTruncated)?));
        base.validate()?;
        let payload = bytes.get(base.header_len()..).ok_or(Outcome::GreTruncated)?;
        let key = word(base.key_offset()).filter(|_| base.has_key()).map(u32::from_be_bytes);
        Ok(Self { local: destination, remote: source, key, gre: base, payload })
    }
}

/// EtherType and bytes of the inner packet, if the tunnel takes it.
///
/// # Errors
/// Why not.
pub fn decapsulate<'a>(
    _tunnel: &Tunnel,
    received: &Received<'a>,
) -> Result<(u16, &'a [u8]), Outcome> {
    if received.gre.has_checksum() {
        return Err(Outcome::ChecksumUnexpected);
    }
    if received.gre.protocol() != gre::PROTOCOL_IPV4 {
        return Err(Outcome::ProtocolUnsupported);
    }
    let payload = received.payload;
    let header = payload.first_chunk::<HEADER_LEN>().ok_or(Outcome::InnerTruncated)?;
    let header = Ipv4Header::from_bytes(*header);
    let len = usize::from(header.total_len());
    if header.version() != 4 || header.header_len() < HEADER_LEN || len < header.header_len() {
        return Err(Outcome::InnerMalformed);
    }
    let inner = payload.get(..len).ok_or(Outcome::InnerTruncated)?;
    if header.is_plain() && !header.checksum_is_right() {
        return Err(Outcome::InnerChecksum);
    }
    if header.source_is_martian() {
        return Err(Outcome::InnerMartian);
    }
    Ok((ETHERTYPE_IPV4, inner))
}
