//! One packet of which fragments have arrived.

use std::{collections::BTreeMap, time::Instant};

use super::super::{
    packet::{Ipv6, seal_ipv4},
    reason::Reason,
};

/// A fragment without its Fragment header.
#[derive(Debug)]
pub struct Fragment {
    /// What goes in front of the whole packet.
    pub headers: Vec<u8>,
    /// Bytes.
    pub offset: usize,
    pub more: bool,
    pub ecn: u8,
    pub payload: Vec<u8>,
}

impl Fragment {
    /// Whether its lengths are those of a fragment.
    pub fn is_possible(&self) -> bool {
        let len = self.payload.len();
        len > 0 && (!self.more || len.is_multiple_of(8)) && self.offset + len <= 0xffff
    }

    /// The packet of which this is all; `None` if its lengths do not go together.
    pub fn into_packet(self) -> Option<Vec<u8>> {
        finish(self.headers, &[self.payload], None)
    }
}

#[derive(Debug)]
pub struct Partial {
    pub age: u64,
    pub since: Instant,
    /// Those of the fragment at offset zero.
    headers: Option<Vec<u8>>,
    /// By offset; they do not overlap.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Bytes in `pieces`.
    held: usize,
    /// Where the last fragment ends.
    end: Option<usize>,
    /// Bit n is set where a fragment had codepoint n.
    ecn: u8,
    refused: bool,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    Waiting,
    Complete,
    Refused(Reason),
}

/// Bookkeeping of a packet and of a fragment, about, so that tiny fragments are not for free.
const COST: usize = 256;
const COST_OF_PIECE: usize = 96;

const NOT_ECT: u8 = 0;
const CE: u8 = 3;

impl Partial {
    pub fn new(age: u64, since: Instant) -> Self {
        Self {
            age,
            since,
            headers: None,
            pieces: BTreeMap::new(),
            held: 0,
            end: None,
            ecn: 0,
            refused: false,
        }
    }

    /// Bytes of memory.
    pub fn cost(&self) -> usize {
        let headers = self.headers.as_ref().map_or(0, Vec::len);
        COST + headers + self.held + COST_OF_PIECE * self.pieces.len()
    }

    pub fn is_refused(&self) -> bool {
        self.refused
    }

    pub fn add(&mut self, fragment: Fragment) -> Held {
        let end = fragment.offset + fragment.payload.len();
        // Fragments of a refused packet that are yet to come are refused too (RFC 5722, 4).
        if self.refused {
            return Held::Refused(Reason::FragmentOverlap);
        }
        if self.pieces.get(&fragment.offset).is_some_and(|piece| *piece == fragment.payload)
            && fragment.more == (self.end != Some(end))
        {
            return Held::Refused(Reason::FragmentDuplicate);
        }
        if self.overlaps(fragment.offset, end) || self.contradicts_end(end, fragment.more) {
            self.refused = true;
            self.pieces.clear();
            self.held = 0;
            return Held::Refused(Reason::FragmentOverlap);
        }
        if !fragment.more {
            self.end = Some(end);
        }
        if fragment.offset == 0 {
            self.headers = Some(fragment.headers);
        }
        self.ecn |= 1 << fragment.ecn;
        self.held += fragment.payload.len();
        self.pieces.insert(fragment.offset, fragment.payload);
        // They do not overlap and none is behind the end, so that there is no gap.
        if self.end == Some(self.held) { Held::Complete } else { Held::Waiting }
    }

    fn overlaps(&self, start: usize, end: usize) -> bool {
        // The last that starts in front of `end` is the last that could.
        let before = self.pieces.range(..end).next_back();
        before.is_some_and(|(offset, piece)| offset + piece.len() > start)
    }

    fn contradicts_end(&self, end: usize, more: bool) -> bool {
        let furthest =
            self.pieces.last_key_value().map_or(0, |(offset, piece)| offset + piece.len());
        match self.end {
            Some(known) => !more || end > known,
            None => !more && furthest > end,
        }
    }

    /// The whole packet, once it is complete.
    ///
    /// # Errors
    /// Why it is dropped nevertheless.
    pub fn into_packet(self) -> Result<Vec<u8>, Reason> {
        // RFC 3168, 5.3.
        let congested = self.ecn & 1 << CE != 0;
        if congested && self.ecn & 1 << NOT_ECT != 0 {
            return Err(Reason::FragmentEcn);
        }
        let headers = self.headers.ok_or(Reason::FragmentMalformed)?;
        let pieces: Vec<_> = self.pieces.into_values().collect();
        finish(headers, &pieces, congested.then_some(CE)).ok_or(Reason::FragmentMalformed)
    }
}

/// Headers and payload as one packet, which is no fragment; `None` if it is too long for one.
fn finish(headers: Vec<u8>, pieces: &[Vec<u8>], ecn: Option<u8>) -> Option<Vec<u8>> {
    let header_len = headers.len();
    let mut packet = headers;
    packet.extend(pieces.concat());
    if packet[0] >> 4 == 4 {
        let len = u16::try_from(packet.len()).ok()?;
        packet[1] |= ecn.unwrap_or(0);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        // Neither Don't Fragment nor More Fragments.
        packet[6..8].fill(0);
        seal_ipv4(&mut packet[..header_len]);
    } else {
        let len = u16::try_from(packet.len() - Ipv6::HEADER_LEN).ok()?;
        packet[1] |= ecn.unwrap_or(0) << 4;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    }
    Some(packet)
}
