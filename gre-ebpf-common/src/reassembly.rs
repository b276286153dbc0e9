//! Outer packets that came in two fragments: what is kept of the one until the other comes, and which
//! step follows. All else about fragments is the daemon's.

use crate::{
    event::Event,
    wire::{
        ethernet,
        ipv4::{self, Ipv4Header},
    },
};

/// Map `HELD`: the fragments of which a packet's addresses and identification may name any, by
/// [`Fragment::bucket`].
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Not zero while a CPU is at it.
    pub lock: u64,
    pub slots: [Slot; WAYS],
}

/// Slots of a bucket.
pub const WAYS: usize = 4;

/// What is known of a packet of which not all has come.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    pub fragment: Fragment,
    /// When it came, in nanoseconds since boot.
    pub since: u64,
    /// Some tunnel between its addresses.
    pub tunnel: u32,
    /// A [`State`].
    pub state: u32,
}

const _: () = assert!(size_of::<Slot>() == 32 && size_of::<Bucket>() == 192);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nothing is in the slot.
    Free = 0,
    /// The fragment waits for the other one, in the map `FRAMES`.
    Held = 1,
    /// The daemon has what came of the packet, and gets what comes yet.
    WithDaemon = 2,
}

/// Map `FRAMES`: bucket times [`WAYS`] plus slot to the fragment that is held there, as an event for
/// the daemon.
#[repr(C, align(8))]
pub struct HeldFrame {
    pub event: Event,
    pub bytes: [u8; ROOM],
}

/// Bytes of the longest frame that is held: Ethernet's usual 1514, and some more. The daemon holds
/// longer ones.
pub const LONGEST: usize = 2048;
/// With what the verifier takes a fragment's payload to be at most.
const ROOM: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + LONGEST + 6;

/// The longest that a fragment waits for the other one, which follows at once if at all. At line rate
/// identifications come round within a second (RFC 4963).
pub const TIMEOUT_NS: u64 = 1_000_000_000;

/// A fragment of an IPv4 packet without options.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fragment {
    /// These three are in memory order.
    pub source: u32,
    pub destination: u32,
    pub identification: u16,
    /// Where its payload belongs in the packet's, in bytes.
    pub offset: u16,
    /// Bytes of payload.
    pub len: u16,
    /// Of its TOS.
    pub ecn: u8,
    /// Whether others follow it.
    pub more: bool,
}

impl Fragment {
    /// Of a whole header of GRE; none where its lengths are not those of a fragment.
    #[inline(always)]
    pub fn of(header: &Ipv4Header) -> Option<Self> {
        let len = header.total_len().checked_sub(ipv4::HEADER_LEN as u16)?;
        let fragment = Self {
            source: header.source(),
            destination: header.destination(),
            identification: header.identification(),
            offset: header.fragment_offset(),
            len,
            ecn: header.tos() & 3,
            more: header.more_fragments(),
        };
        let is_possible = header.is_plain() && len > 0 && (!fragment.more || len & 7 == 0);
        is_possible.then_some(fragment)
    }

    /// Which of `buckets` buckets it belongs to.
    #[inline(always)]
    pub const fn bucket(&self, buckets: u32) -> u32 {
        let ends = (self.source as u64) << 32 | self.destination as u64;
        let mixed = (ends ^ (self.identification as u64) << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((mixed >> 32) * buckets as u64) >> 32) as u32
    }

    #[inline(always)]
    const fn is_of_packet(&self, other: &Self) -> bool {
        (self.source ^ other.source)
            | (self.destination ^ other.destination)
            | (self.identification ^ other.identification) as u32
            == 0
    }

    /// One of the two that a packet in two fragments has.
    #[inline(always)]
    const fn is_first_or_last(&self) -> bool {
        self.more != (self.offset != 0)
    }

    /// Whether the two are all of a packet, with neither a gap nor an overlap, and agree about
    /// congestion (RFC 3168, 5.3).
    #[inline(always)]
    const fn completes(&self, other: &Self) -> bool {
        let (first, last) = if self.more { (self, other) } else { (other, self) };
        first.more
            && !last.more
            && first.offset == 0
            && last.offset == first.len
            && first.ecn == last.ecn
    }
}

/// What is done with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// It is put into the slot. What may still be there has waited in vain.
    Hold,
    /// With the one in the slot it is the packet.
    Join,
    /// The daemon gets the one in the slot, and then this one and all others of its packet.
    Release,
    /// The daemon gets it, and all others of its packet, which the slot is to tell.
    Divert,
    /// The daemon gets it.
    Daemon,
}

/// What is done with a fragment that has come, and the slot that this is about.
#[inline(always)]
pub const fn step(slots: &[Slot; WAYS], fragment: &Fragment, now: u64) -> (Action, usize) {
    let (mut spare, mut longest) = (0, 0);
    let mut way = 0;
    while way < WAYS {
        let slot = &slots[way];
        let age = now.saturating_sub(slot.since);
        let held = slot.state == State::Held as u32;
        if slot.state != State::Free as u32
            && age < TIMEOUT_NS
            && slot.fragment.is_of_packet(fragment)
        {
            return match held {
                true if slot.fragment.completes(fragment) => (Action::Join, way),
                true => (Action::Release, way),
                false => (Action::Daemon, way),
            };
        }
        let idle = match held {
            true if age < TIMEOUT_NS => 0,
            _ if slot.state == State::Free as u32 => u64::MAX,
            _ => age,
        };
        if idle > longest {
            (spare, longest) = (way, idle);
        }
        way += 1;
    }
    if longest == 0 {
        return (Action::Daemon, 0);
    }
    (if fragment.is_first_or_last() { Action::Hold } else { Action::Divert }, spare)
}

#[cfg(test)]
mod tests;
