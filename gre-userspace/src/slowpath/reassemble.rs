//! Puts the fragments of outer packets together (RFC 791, 3.2; RFC 8200, 4.5). What arrives here
//! may be hostile: memory is bounded, and fragments that overlap are refused (RFC 5722), those of
//! IPv4 too. No clock of its own.

mod partial;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use self::partial::{Fragment, Held, Partial};
use super::{
    packet::{FRAGMENT_HEADER, FragmentHeader, Ipv4, Ipv6},
    reason::{Counts, Reason},
};

/// The kernel's ipfrag_time; RFC 8200 asks for 60 s, in which at line rate an identification
/// comes round many times (RFC 4963).
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub packets: usize,
    /// Bytes of memory, headers and bookkeeping included.
    pub bytes: usize,
}

impl Default for Bounds {
    /// The bytes are the kernel's ipfrag_high_thresh.
    fn default() -> Self {
        Self { packets: 4096, bytes: 4 << 20 }
    }
}

#[derive(Debug, Default)]
pub struct Reassembler {
    bounds: Bounds,
    waiting: HashMap<Key, Partial>,
    /// What waits, by age: the order of arrival of each first fragment.
    by_age: BTreeMap<u64, Key>,
    arrivals: u64,
    bytes: usize,
}

/// What fragments of one packet have in common. IPv6 leaves the protocol out (RFC 8200, 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: Option<u8>,
}

impl Reassembler {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Takes in a packet. Returns it whole once it is: at once if it is no fragment, or the only
    /// one (RFC 6946). `counts` hears of every other fate.
    pub fn add(&mut self, packet: &[u8], now: Instant, counts: &mut Counts) -> Option<Vec<u8>> {
        let (key, fragment) = match dissect(packet) {
            Dissected::Whole(packet) => return Some(packet),
            Dissected::Malformed => {
                counts.add(Reason::FragmentMalformed);
                return None;
            }
            Dissected::Fragment(key, fragment) => (key, fragment),
        };
        if fragment.offset == 0 && !fragment.more {
            let packet = fragment.into_packet();
            if packet.is_none() {
                counts.add(Reason::FragmentMalformed);
            }
            return packet;
        }
        if !fragment.is_possible() {
            counts.add(Reason::FragmentMalformed);
            return None;
        }
        self.expire(now, counts);
        let partial = self.waiting.entry(key).or_insert_with(|| {
            self.arrivals += 1;
            self.by_age.insert(self.arrivals, key);
            let partial = Partial::new(self.arrivals, now);
            self.bytes += partial.cost();
            partial
        });
        let before = partial.cost();
        let held = partial.add(fragment);
        self.bytes = self.bytes - before + partial.cost();
        match held {
            Held::Waiting => counts.add(Reason::FragmentHeld),
            Held::Refused(reason) => counts.add(reason),
            Held::Complete => {
                let partial = self.remove(&key);
                return match partial.into_packet() {
                    Ok(packet) => Some(packet),
                    Err(reason) => {
                        counts.add(reason);
                        None
                    }
                };
            }
        }
        while self.waiting.len() > self.bounds.packets || self.bytes > self.bounds.bytes {
            let Some((_, &oldest)) = self.by_age.first_key_value() else { break };
            self.remove(&oldest);
            counts.add(Reason::ReassemblyEvicted);
        }
        None
    }

    /// Gives up on packets of which the first fragment came too long ago.
    pub fn expire(&mut self, now: Instant, counts: &mut Counts) {
        while let Some((_, &oldest)) = self.by_age.first_key_value()
            && self.waiting[&oldest].since + TIMEOUT <= now
        {
            // A refused packet has been counted.
            if !self.remove(&oldest).is_refused() {
                counts.add(Reason::ReassemblyTimeout);
            }
        }
    }

    /// When [`Reassembler::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, oldest) = self.by_age.first_key_value()?;
        Some(self.waiting[oldest].since + TIMEOUT)
    }

    fn remove(&mut self, key: &Key) -> Partial {
        let partial = self.waiting.remove(key).expect("what has an age waits");
        self.by_age.remove(&partial.age);
        self.bytes -= partial.cost();
        partial
    }
}

enum Dissected {
    Whole(Vec<u8>),
    Fragment(Key, Fragment),
    Malformed,
}

fn dissect(packet: &[u8]) -> Dissected {
    if let Some(packet) = Ipv4::whole(packet) {
        if !packet.is_fragment() {
            return Dissected::Whole(packet.bytes().to_vec());
        }
        let key = Key {
            source: packet.source().into(),
            destination: packet.destination().into(),
            identification: packet.identification().into(),
            protocol: Some(packet.protocol()),
        };
        let fragment = Fragment {
            headers: packet.header().to_vec(),
            offset: packet.fragment_offset(),
            more: packet.more_fragments(),
            ecn: packet.tos() & 3,
            payload: packet.payload().to_vec(),
        };
        return Dissected::Fragment(key, fragment);
    }
    let Some(packet) = Ipv6::whole(packet) else { return Dissected::Malformed };
    let Some(chain) = packet.chain() else { return Dissected::Malformed };
    if chain.protocol != FRAGMENT_HEADER {
        return Dissected::Whole(packet.bytes().to_vec());
    }
    let (headers, rest) = packet.bytes().split_at(chain.at);
    let Some(header) = FragmentHeader::parse(rest) else { return Dissected::Malformed };
    let key = Key {
        source: packet.source().into(),
        destination: packet.destination().into(),
        identification: header.identification,
        protocol: None,
    };
    let mut headers = headers.to_vec();
    headers[chain.named_at] = header.protocol;
    let fragment = Fragment {
        headers,
        offset: header.offset,
        more: header.more,
        ecn: packet.traffic_class() & 3,
        payload: rest[FragmentHeader::LEN..].to_vec(),
    };
    Dissected::Fragment(key, fragment)
}

#[cfg(test)]
mod tests;
