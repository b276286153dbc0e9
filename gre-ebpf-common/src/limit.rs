//! The encapsulation limit that an IPv6 packet brings along to a tunnel over IPv6: how many more
//! headers may be put around it (RFC 2473, 4.1.1; the kernel's ip6_tnl_parse_tlv_enc_lim).
//!
//! Found step by step, so that the programs and the daemon can share the rules and each bring the
//! bytes in its own way.

use crate::wire::ipv6::{
    self, NEXT_HEADER_AUTHENTICATION, NEXT_HEADER_DESTINATION_OPTIONS, NEXT_HEADER_HOP_BY_HOP,
    NEXT_HEADER_ROUTING, TUNNEL_ENCAPSULATION_LIMIT,
};

/// The option in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Headers that may still be put around the packet.
    pub value: u8,
    /// Where it stands: bytes from the start of the packet.
    pub offset: usize,
}

impl Limit {
    /// The limit that is sent around the packet; none where nothing may be put around it.
    pub const fn outer(self) -> Option<u8> {
        self.value.checked_sub(1)
    }

    /// The offset that a Parameter Problem points to (RFC 2473, 4.1.1 (b)).
    pub const fn pointer(self) -> u16 {
        self.offset as u16 + 2
    }
}

/// How far the search has come. What ends it besides the option: a header that has no options before
/// it, such as a transport protocol's or another IPv6 header; a Fragment header (the kernel looks behind
/// one of a packet that is all in one fragment, which nobody sends: RFC 8021); the packet's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    next_header: u8,
    /// What is looked at next: a header, or an option inside of one. Bytes from the packet's start.
    pub at: usize,
    /// Where the options end among which it stands; the same as `at` for a header.
    pub end: usize,
}

/// What a step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Found(Limit),
    On(Search),
    Nothing,
}

impl Search {
    /// Steps that are taken at most. More than any packet needs that is made to be read.
    pub const STEPS: usize = 32;
    /// Bytes from the packet's start that are looked at.
    pub const REACH: usize = 448;
    /// Bytes at [`Search::at`] that a step takes.
    pub const WINDOW: usize = 3;

    /// In a packet whose fixed header names this next header.
    pub const fn new(next_header: u8) -> Self {
        Self { next_header, at: ipv6::HEADER_LEN, end: ipv6::HEADER_LEN }
    }

    /// Whether there is anything to look at but the fixed header.
    #[inline(always)]
    pub const fn may_find(next_header: u8) -> bool {
        matches!(
            next_header,
            NEXT_HEADER_HOP_BY_HOP
                | NEXT_HEADER_ROUTING
                | NEXT_HEADER_AUTHENTICATION
                | NEXT_HEADER_DESTINATION_OPTIONS
        )
    }

    /// Goes on by the bytes at `at`, of a packet that is `len` bytes long.
    #[inline(always)]
    pub const fn step(self, bytes: [u8; Self::WINDOW], len: usize) -> Step {
        if self.at == self.end { self.header(bytes, len) } else { self.option(bytes) }
    }

    #[inline(always)]
    const fn header(self, [next_header, length, _]: [u8; Self::WINDOW], len: usize) -> Step {
        if !Self::may_find(self.next_header) {
            return Step::Nothing;
        }
        let header_len = match self.next_header {
            NEXT_HEADER_AUTHENTICATION => (length as usize + 2) * 4,
            _ => ipv6::extension_len(length),
        };
        let end = self.at + header_len;
        if end > len || end > Self::REACH {
            return Step::Nothing;
        }
        let at = match self.next_header {
            NEXT_HEADER_DESTINATION_OPTIONS => self.at + 2,
            _ => end,
        };
        Step::On(Self { next_header, at, end })
    }

    #[inline(always)]
    const fn option(self, [kind, length, value]: [u8; Self::WINDOW]) -> Step {
        const PAD_1: u8 = 0;
        if kind == TUNNEL_ENCAPSULATION_LIMIT && length == 1 {
            return Step::Found(Limit { value, offset: self.at });
        }
        let at = self.at + if kind == PAD_1 { 1 } else { length as usize + 2 };
        // Where no room is left for the option the next header follows.
        let at = if at + Self::WINDOW > self.end { self.end } else { at };
        Step::On(Self { at, ..self })
    }
}

/// The limit in a packet of which the fixed header and all that it leads to is there.
pub fn find(packet: &[u8]) -> Option<Limit> {
    let mut search = Search::new(*packet.get(6)?);
    for _ in 0..Search::STEPS {
        let bytes = packet.get(search.at..)?.first_chunk()?;
        search = match search.step(*bytes, packet.len()) {
            Step::Found(limit) => return Some(limit),
            Step::On(search) => search,
            Step::Nothing => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    const UDP: u8 = 17;

    /// An IPv6 packet whose fixed header leads to these headers, and 8 bytes of UDP behind them.
    fn packet(headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        let mut named_at = 6;
        for (number, header) in headers {
            packet[named_at] = *number;
            named_at = packet.len();
            packet.extend(header);
        }
        packet[named_at] = UDP;
        packet.extend([4; 8]);
        packet
    }

    /// A header of options, padded with zeros.
    fn options(options: &[u8]) -> Vec<u8> {
        let len = (options.len() + 2).next_multiple_of(8);
        let mut header = vec![0, (len / 8 - 1) as u8];
        header.extend(options);
        header.resize(len, 0);
        header
    }

    fn found(value: u8, offset: usize) -> Option<Limit> {
        Some(Limit { value, offset })
    }

    #[test]
    fn ip6gre1_the_limit_is_found_behind_headers_and_options() {
        let limit = |value| (60, options(&[4, 1, value]));
        let pad_n = |len: u8| [&[1, len][..], &vec![0; len.into()]].concat();
        let after = |before: &[u8]| (60, options(&[before, &[4, 1, 9]].concat()));
        let authentication =
            (51, vec![0, 4, 0, 0, 0, 0, 0, 1, 4, 1, 7, 4, 1, 7, 4, 1, 7, 0, 0, 0, 0, 0, 0, 0]);
        for (headers, expected) in [
            (vec![], None),
            (vec![limit(0)], found(0, 42)),
            (vec![limit(255)], found(255, 42)),
            (vec![after(&[0, 0, 0])], found(9, 45)),
            (vec![after(&pad_n(0))], found(9, 44)),
            (vec![after(&pad_n(200))], found(9, 244)),
            (vec![after(&[0xc2, 4, 0, 1, 0, 0])], found(9, 48)),
            // Not the first header of options, and not the first header.
            (vec![(60, options(&[])), limit(3)], found(3, 50)),
            (vec![(0, options(&[4, 1, 9])), limit(3)], found(3, 50)),
            (vec![(43, options(&[4, 1, 9])), limit(3)], found(3, 50)),
            (vec![authentication.clone(), limit(3)], found(3, 66)),
            (vec![limit(3), limit(2)], found(3, 42)),
            // Of another length it is none.
            (vec![(60, options(&[4, 2, 9, 9]))], None),
            (vec![(60, options(&[4, 0, 4, 1, 9]))], found(9, 44)),
            // In the last three bytes it still has room; in the last two, none.
            (vec![(60, vec![0, 0, 0, 0, 0, 4, 1, 9])], found(9, 45)),
            (vec![(60, vec![0, 0, 0, 0, 0, 0, 4, 1])], None),
            (vec![(60, vec![0, 0, 1, 200, 0, 4, 1, 9]), limit(3)], found(3, 50)),
            // What has no options before it.
            (vec![(44, options(&[])), limit(3)], None),
            (vec![(41, options(&[])), limit(3)], None),
            (vec![(50, options(&[])), limit(3)], None),
            (vec![(59, options(&[])), limit(3)], None),
            (vec![(135, options(&[])), limit(3)], None),
        ] {
            assert_eq!(find(&packet(&headers)), expected, "{headers:02x?}");
        }
    }

    #[test]
    fn ip6gre1_nothing_is_looked_for_behind_the_end_and_far_in() {
        let whole = packet(&[(60, options(&[4, 1, 9]))]);
        for len in 0..48 {
            assert_eq!(find(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(find(&whole[..48]), found(9, 42));
        let mut longer = whole;
        longer[41] = 2;
        assert_eq!(find(&longer), None, "a header that is longer than the packet");

        let limit = || (60, options(&[4, 1, 9]));
        let behind = |bytes: usize| packet(&[(43, options(&vec![0; bytes - 2])), limit()]);
        let far = Search::REACH - 48;
        assert_eq!(find(&behind(far)), found(9, 42 + far));
        assert_eq!(find(&behind(far + 8)), None);
        // Each of the headers is a step, and so is the option.
        for (count, expected) in [(Search::STEPS - 2, true), (Search::STEPS - 1, false)] {
            let mut headers = vec![(43, options(&[])); count];
            headers.push(limit());
            assert_eq!(find(&packet(&headers)).is_some(), expected, "{count}");
        }
    }

    #[test]
    fn ip6gre1_one_less_is_sent_and_none_of_zero() {
        let limit = |value| Limit { value, offset: 42 };
        assert_eq!([0, 1, 255].map(|value| limit(value).outer()), [None, Some(0), Some(254)]);
        assert_eq!(limit(0).pointer(), 44);
    }

    proptest! {
        /// etherparse finds the options' header at the same place, and a naive loop the option in it.
        #[test]
        fn ip6gre1_the_limit_is_the_one_that_a_naive_reader_finds(
            before in proptest::collection::vec((any::<bool>(), 1u8..9, any::<u8>()), 0..6),
            value in proptest::option::of(any::<u8>()),
        ) {
            let mut content = Vec::new();
            for (pad, len, kind) in before {
                if pad {
                    content.push(0);
                } else {
                    let kind = if kind < 5 { kind + 5 } else { kind };
                    content.extend([&[kind, len][..], &vec![4; len.into()]].concat());
                }
            }
            let expected = value.map(|value| {
                let offset = 42 + content.len();
                content.extend([4, 1, value]);
                Limit { value, offset }
            });
            let packet = packet(&[(60, options(&content))]);
            let (header, _) = etherparse::Ipv6RawExtHeader::from_slice(&packet[40..]).unwrap();
            prop_assert_eq!(&header.payload()[..content.len()], &content[..]);
            prop_assert_eq!(find(&packet), expected);
        }
    }
}
