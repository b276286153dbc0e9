//! Out of a tunnel.

use std::net::IpAddr;

use gre_ebpf_common::{
    decapsulate::{self, Payload, Payloads},
    outcome::Outcome,
    tunnel::{Flags, Tunnel},
    wire::{ethernet::Mac, gre::GreBase, ip::Ip, ipv4::Ipv4Header, ipv6::Ipv6Header},
};

use super::super::packet::{
    ETHERTYPE_ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4, Ipv6, PROTOCOL_GRE, checksum,
    network_layer,
};

/// A whole GRE packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Destination of the outer packet.
    pub local: IpAddr,
    pub remote: IpAddr,
    /// Host order.
    pub key: Option<u32>,
    dsfield: u8,
    base: GreBase,
    /// From the GRE header on.
    gre: &'a [u8],
}

impl<'a> Received<'a> {
    /// # Errors
    /// Why it is no GRE packet of ours.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Outcome> {
        if let Some(packet) = Ipv4::whole(packet) {
            // RFC 1812, 5.2.2.
            if !packet.checksum_is_right() {
                return Err(Outcome::Ipv4Malformed);
            }
            let (local, remote) = (packet.destination().into(), packet.source().into());
            return Self::new(local, remote, packet.tos(), packet.protocol(), packet.payload());
        }
        let packet = Ipv6::whole(packet).ok_or(Outcome::Ipv6Malformed)?;
        let chain = packet.chain().ok_or(Outcome::Ipv6Malformed)?;
        let (local, remote) = (packet.destination().into(), packet.source().into());
        let gre = &packet.bytes()[chain.at..];
        Self::new(local, remote, packet.traffic_class(), chain.protocol, gre)
    }

    fn new(
        local: IpAddr,
        remote: IpAddr,
        dsfield: u8,
        protocol: u8,
        gre: &'a [u8],
    ) -> Result<Self, Outcome> {
        if protocol != PROTOCOL_GRE {
            return Err(Outcome::NoTunnel);
        }
        let base = *gre.first_chunk().ok_or(Outcome::GreTruncated)?;
        let base = GreBase(u32::from_ne_bytes(base));
        base.validate()?;
        if gre.len() < base.header_len() {
            return Err(Outcome::GreTruncated);
        }
        let mut received = Self { local, remote, key: None, dsfield, base, gre };
        if base.has_key() {
            received.key = Some(received.number_at(base.key_offset()));
        }
        Ok(received)
    }

    /// A frame, if its protocol type is right.
    pub fn is_ethernet(&self) -> bool {
        self.base.protocol() == ETHERTYPE_ETHERNET
    }

    /// A word of the header, which must have it.
    fn number_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.gre[at..at + 4].try_into().expect("four bytes"))
    }
}

/// EtherType and bytes of the inner packet, if the tunnel takes it. `accept` judges a sequence
/// number and takes note of it.
///
/// # Errors
/// Why not.
pub fn decapsulate(
    tunnel: &Tunnel,
    received: &Received<'_>,
    accept: impl FnOnce(u32) -> Result<(), Outcome>,
) -> Result<(u16, Vec<u8>), Outcome> {
    let base = received.base;
    decapsulate::flags(tunnel, base)?;
    if base.has_checksum() && checksum(&[received.gre]) != [0, 0] {
        return Err(Outcome::ChecksumWrong);
    }
    if tunnel.flags.has(Flags::SEQUENCE) && base.has_sequence() {
        accept(received.number_at(base.sequence_offset()))?;
    }
    let payload = &received.gre[base.header_len()..];
    match decapsulate::payload(tunnel, base, payload.len() as u32)? {
        Payload::Ipv4 => {
            let header = header(payload, Ipv4Header::from_bytes, received.dsfield)?;
            Ok((ETHERTYPE_IPV4, inner(&header, &header.words, payload)))
        }
        Payload::Ipv6 => {
            let header = header(payload, Ipv6Header::from_bytes, received.dsfield)?;
            Ok((ETHERTYPE_IPV6, inner(&header, &header.words, payload)))
        }
        Payload::Ethernet => Ok((ETHERTYPE_ETHERNET, frame(payload, received.dsfield)?)),
        Payload::Other(ethertype) => Ok((ethertype, payload.to_vec())),
    }
}

/// The frame, with the congestion that the outer header met in the packet inside, if it is IP.
fn frame(frame: &[u8], dsfield: u8) -> Result<Vec<u8>, Outcome> {
    let (ethertype, network) = network_layer(frame).ok_or(Outcome::InnerTruncated)?;
    let source = frame[6..12].try_into().map_err(|_| Outcome::InnerTruncated)?;
    decapsulate::source(Mac::from_bytes(source))?;
    let words = match (ethertype, network.first_chunk(), network.first_chunk()) {
        (ETHERTYPE_IPV4, Some(header), _) => {
            decapsulate::congestion(Ipv4Header::from_bytes(*header), dsfield)?.words.to_vec()
        }
        (ETHERTYPE_IPV6, _, Some(header)) => {
            decapsulate::congestion(Ipv6Header::from_bytes(*header), dsfield)?.words.to_vec()
        }
        _ => Vec::new(),
    };
    let mut changed = frame.to_vec();
    let start = frame.len() - network.len();
    for (bytes, word) in changed[start..].chunks_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(changed)
}

/// The inner header, right as far as it tells, with the congestion that the outer one met.
fn header<H: Payloads, const N: usize>(
    payload: &[u8],
    from_bytes: impl FnOnce([u8; N]) -> H,
    dsfield: u8,
) -> Result<H, Outcome> {
    let header = from_bytes(*payload.first_chunk().ok_or(Outcome::InnerTruncated)?);
    header.inspect(payload.len() as u32)?;
    decapsulate::congestion(header, dsfield)
}

/// The inner packet with this header, without what is behind it.
fn inner<H: Ip>(header: &H, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut packet = payload[..header.total_len() as usize].to_vec();
    for (bytes, word) in packet.chunks_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    packet
}
