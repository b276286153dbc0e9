//! Cuts an IP packet into fragments. What Don't Fragment asks for is the caller's to obey.

use super::packet::{FRAGMENT_HEADER, FragmentHeader, Ipv4, Ipv6, seal_ipv4};

/// Why a packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    #[error("not a whole IP packet")]
    Malformed,
    #[error("the headers and eight bytes are longer than the MTU")]
    MtuTooSmall,
}

/// An option whose type has this bit is in every fragment (RFC 791, 3.1).
const OPTION_COPIED: u8 = 0x80;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// Fragments of at most `mtu` bytes (RFC 791, 3.2): Don't Fragment clear, identification kept. A
/// fragment is cut into smaller ones of the same packet.
///
/// # Errors
/// [`CutError`]
pub fn ipv4(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, CutError> {
    let packet = Ipv4::whole(packet).ok_or(CutError::Malformed)?;
    let later = header_of_later_fragments(packet.header()).ok_or(CutError::Malformed)?;
    let mut headers = std::iter::once(packet.header()).chain(std::iter::repeat(&later[..]));

    let (mut rest, mut offset) = (packet.payload(), packet.fragment_offset());
    let mut fragments = Vec::new();
    while !rest.is_empty() || fragments.is_empty() {
        let header = headers.next().expect("endless");
        let len = piece(rest.len(), mtu, header.len())?;
        let (payload, behind) = rest.split_at(len);
        let more = !behind.is_empty() || packet.more_fragments();

        let mut fragment = [header, payload].concat();
        let total_len = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&total_len.to_be_bytes());
        let word = (offset / 8) as u16 | u16::from(more) << 13;
        fragment[6..8].copy_from_slice(&word.to_be_bytes());
        seal_ipv4(&mut fragment[..header.len()]);
        fragments.push(fragment);

        offset += len;
        rest = behind;
    }
    Ok(fragments)
}

/// Fragments of at most `mtu` bytes, with a Fragment header (RFC 8200, 4.5).
///
/// # Errors
/// [`CutError`]
pub fn ipv6(packet: &[u8], mtu: usize, identification: u32) -> Result<Vec<Vec<u8>>, CutError> {
    let packet = Ipv6::whole(packet).ok_or(CutError::Malformed)?;
    let chain = packet.chain().ok_or(CutError::Malformed)?;
    let (headers, mut rest) = packet.bytes().split_at(chain.at);
    let mut headers = headers.to_vec();
    headers[chain.named_at] = FRAGMENT_HEADER;

    let (mut fragments, mut offset) = (Vec::new(), 0);
    while !rest.is_empty() || fragments.is_empty() {
        let len = piece(rest.len(), mtu, headers.len() + FragmentHeader::LEN)?;
        let (payload, behind) = rest.split_at(len);
        let header = FragmentHeader {
            protocol: chain.protocol,
            offset,
            more: !behind.is_empty(),
            identification,
        };
        let mut fragment = [&headers[..], &header.to_bytes(), payload].concat();
        let payload_len = (fragment.len() - Ipv6::HEADER_LEN) as u16;
        fragment[4..6].copy_from_slice(&payload_len.to_be_bytes());
        fragments.push(fragment);

        offset += len;
        rest = behind;
    }
    Ok(fragments)
}

/// How much of `rest` bytes the next fragment takes: all, or a multiple of eight.
fn piece(rest: usize, mtu: usize, header: usize) -> Result<usize, CutError> {
    let room = mtu.saturating_sub(header);
    if rest <= room {
        return Ok(rest);
    }
    match room & !7 {
        0 => Err(CutError::MtuTooSmall),
        len => Ok(len),
    }
}

/// The header with only those options that are copied, and no others; `None` if its options are
/// malformed.
fn header_of_later_fragments(header: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = header.split_at(20);
    let mut later = fixed.to_vec();
    while let Some(&kind) = options.first() {
        let len = match kind {
            OPTION_END => break,
            OPTION_NOP => 1,
            _ => usize::from(*options.get(1)?),
        };
        if kind != OPTION_NOP && len < 2 || len > options.len() {
            return None;
        }
        if kind & OPTION_COPIED != 0 {
            later.extend(&options[..len]);
        }
        options = &options[len..];
    }
    later.resize(later.len().next_multiple_of(4), OPTION_END);
    later[0] = 0x40 | (later.len() / 4) as u8;
    Some(later)
}

#[cfg(test)]
pub(super) mod tests;
