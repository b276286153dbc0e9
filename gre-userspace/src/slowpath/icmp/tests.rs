use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder};

use super::*;

const LOCAL: [u8; 4] = [192, 0, 2, 1];
const REMOTE: [u8; 4] = [198, 51, 100, 1];
const LOCAL6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const REMOTE6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const KEYLESS: [u8; 4] = [0, 0, 8, 0];

/// An ICMP error with type, code and the third and fourth half word, about a packet from `LOCAL` to
/// `REMOTE` with this behind the IP header.
fn error_v4(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let outer = etherparse::Ipv4Header::new(1480, 1, 47.into(), LOCAL, REMOTE).unwrap();
    let quote = [&outer.to_bytes()[..], quoted].concat();
    let mut icmp =
        Icmpv4Header::new(Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest });
    icmp.update_checksum(&quote);
    let message = [&icmp.to_bytes()[..], &quote].concat();
    let ip =
        etherparse::Ipv4Header::new(message.len() as u16, 64, 1.into(), [203, 0, 113, 1], LOCAL);
    [&ip.unwrap().to_bytes()[..], &message].concat()
}

/// The same of ICMPv6, with destination options in front of GRE.
fn error_v6(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let outer = etherparse::Ipv6Header {
        payload_length: 1448,
        next_header: etherparse::IpNumber::IPV6_DESTINATION_OPTIONS,
        hop_limit: 1,
        source: LOCAL6,
        destination: REMOTE6,
        ..Default::default()
    };
    let options = [47, 0, 4, 1, 4, 1, 0, 0];
    let icmp =
        Icmpv6Header::new(Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest });
    [&icmp.to_bytes()[..], &outer.to_bytes(), &options, quoted].concat()
}

fn problem_v4(kind: u8, code: u8, rest: [u8; 4]) -> Problem {
    IcmpError::parse_v4(&error_v4(kind, code, rest, &KEYLESS)).unwrap().problem
}

#[test]
fn each_icmp_error_says_what_section_1_7_makes_of_it() {
    use Problem::*;
    for (kind, code, expected) in [
        (3, 0, Unreachable),
        (3, 1, Unreachable),
        (3, 2, Unreachable),
        (3, 3, Other),
        (3, 4, TooBig { mtu: 1400 }),
        (3, 5, Other),
        (3, 13, Unreachable),
        (4, 0, Other),
        (5, 1, Other),
        (11, 0, HopLimitExceeded),
        (11, 1, Other),
        (12, 0, Other),
    ] {
        assert_eq!(problem_v4(kind, code, [0, 0, 5, 120]), expected, "type {kind} code {code}");
    }
}

#[test]
fn each_icmpv6_error_says_what_section_1_7_makes_of_it() {
    use Problem::*;
    for (kind, code, rest, expected) in [
        (1, 0, [0; 4], Unreachable),
        (1, 3, [0; 4], Unreachable),
        (1, 4, [0; 4], Other),
        (2, 0, [0, 0, 5, 120], TooBig { mtu: 1400 }),
        (2, 0, [0, 1, 0, 0], TooBig { mtu: 65_535 }),
        (3, 0, [0; 4], HopLimitExceeded),
        (3, 1, [0; 4], Other),
        (4, 0, [0; 4], Other),
    ] {
        let message = error_v6(kind, code, rest, &KEYLESS);
        let error = IcmpError::parse_v6(&message).unwrap();
        assert_eq!(error.problem, expected, "type {kind} code {code}");
        assert!(error.is_about(LOCAL6.into(), REMOTE6.into(), None));
    }
}

#[test]
fn rfc1191_a_router_that_tells_no_mtu_means_the_next_plateau() {
    // The quoted packet is 1500 bytes long.
    assert_eq!(problem_v4(3, 4, [0; 4]), Problem::TooBig { mtu: 1492 });
    let lengths = [65_535, 1492, 1493, 509, 508, 69, 68, 20];
    assert_eq!(lengths.map(plateau_below), [32_000, 1006, 1492, 508, 296, 68, 68, 68]);
}

#[test]
fn a_quote_is_matched_by_its_key_as_far_as_it_goes() {
    let (keyed, with_checksum) = ([0x20, 0, 8, 0], [0xa0, 0, 8, 0]);
    let (key, other_word) = ([0, 0, 0, 7], [0, 0, 0, 9]);
    for (gre, expected, keys) in [
        (vec![KEYLESS, other_word], QuotedKey::Absent, [true, false, false]),
        (vec![keyed, key], QuotedKey::Present(7), [false, true, false]),
        (vec![keyed], QuotedKey::Cut, [false, true, true]),
        (vec![with_checksum, other_word], QuotedKey::Cut, [false, true, true]),
        (vec![with_checksum, other_word, key], QuotedKey::Present(7), [false, true, false]),
    ] {
        let packet = error_v4(3, 4, [0; 4], &gre.concat());
        let error = IcmpError::parse_v4(&packet).unwrap();
        assert_eq!(error.gre.key, expected);
        let about = |key| error.is_about(LOCAL.into(), REMOTE.into(), key);
        assert_eq!([None, Some(7), Some(9)].map(about), keys);
        assert!(!error.is_about(REMOTE.into(), LOCAL.into(), Some(7)));
    }
}

#[test]
fn what_is_not_about_gre_or_is_broken_is_told_apart() {
    let good = error_v4(3, 1, [0; 4], &KEYLESS);
    let mutated = |at: usize, value: u8| {
        let mut packet = error_v4(3, 1, [0; 4], &KEYLESS);
        packet[at] = value;
        // The checksum of the message, so that only the mutation is wrong.
        packet[22..24].fill(0);
        let sum = packet::checksum(&[&packet[20..]]);
        packet[22..24].copy_from_slice(&sum);
        IcmpError::parse_v4(&packet).map(drop)
    };
    assert!(IcmpError::parse_v4(&good).is_ok());
    let mut broken = good.clone();
    broken[30] ^= 1;
    assert_eq!(IcmpError::parse_v4(&broken), Err(Reason::IcmpMalformed));
    // The quote starts at 28, GRE at 48.
    assert_eq!(mutated(37, 4), Err(Reason::IcmpNotOurs), "IP in IP");
    assert_eq!(mutated(35, 1), Err(Reason::IcmpNotOurs), "a later fragment");
    assert_eq!(mutated(49, 1), Err(Reason::IcmpNotOurs), "version 1");
    assert_eq!(mutated(48, 0x40), Err(Reason::IcmpNotOurs), "routing");
    assert_eq!(mutated(28, 0x60), Err(Reason::IcmpMalformed));
    let short = error_v4(3, 1, [0; 4], &KEYLESS[..3]);
    assert_eq!(IcmpError::parse_v4(&short), Err(Reason::IcmpMalformed));
    for len in 0..good.len() {
        assert_eq!(IcmpError::parse_v4(&good[..len]), Err(Reason::IcmpMalformed), "{len} bytes");
    }
    let message = error_v6(1, 0, [0; 4], &KEYLESS);
    for len in 0..message.len() {
        assert_eq!(IcmpError::parse_v6(&message[..len]), Err(Reason::IcmpMalformed), "{len} bytes");
    }
    let mut udp = message;
    udp[48] = 17;
    assert_eq!(IcmpError::parse_v6(&udp), Err(Reason::IcmpNotOurs));
}

#[test]
fn a_verdict_follows_the_kernel() {
    let verdict = |kind, code, ttl_inherit| {
        let packet = error_v4(kind, code, [0, 0, 5, 120], &KEYLESS);
        IcmpError::parse_v4(&packet).unwrap().verdict(ttl_inherit)
    };
    assert_eq!(verdict(3, 4, false), Verdict::LearnPathMtu { mtu: 1400 });
    assert_eq!(verdict(3, 1, false), Verdict::Relay(Complaint::Unreachable));
    assert_eq!(verdict(3, 3, false), Verdict::Ignored(Reason::IcmpIgnored));
    assert_eq!(verdict(11, 0, false), Verdict::Relay(Complaint::HopLimitExceeded));
    assert_eq!(verdict(11, 0, true), Verdict::Ignored(Reason::IcmpIgnored));
    for remote in [[224, 0, 0, 5], [0; 4]] {
        let packet = error_v4(3, 4, [0; 4], &KEYLESS);
        let error = IcmpError { remote: remote.into(), ..IcmpError::parse_v4(&packet).unwrap() };
        assert_eq!(error.verdict(false), Verdict::Ignored(Reason::IcmpIgnored));
    }
}

#[test]
fn relaying_takes_the_inner_header_and_eight_bytes() {
    let mut inner = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(1, 2).write(&mut inner, &[]).unwrap();
    for (len, expected) in [(28, true), (27, false), (0, false)] {
        let packet = error_v4(3, 1, [0; 4], &[&KEYLESS, &inner[..len]].concat());
        let error = IcmpError::parse_v4(&packet).unwrap();
        assert_eq!((error.gre.inner, error.gre.is_relayable()), (&inner[..len], expected));
    }
    let mpls = [&[0, 0, 0x88, 0x47], &inner[..]].concat();
    let packet = error_v4(3, 1, [0; 4], &mpls);
    assert!(!IcmpError::parse_v4(&packet).unwrap().gre.is_relayable());
    let mut inner = Vec::new();
    PacketBuilder::ipv6(LOCAL6, REMOTE6, 9).udp(1, 2).write(&mut inner, &[]).unwrap();
    for (len, expected) in [(48, true), (47, false)] {
        let message = error_v6(1, 0, [0; 4], &[&[0, 0, 0x86, 0xdd], &inner[..len]].concat());
        assert_eq!(IcmpError::parse_v6(&message).unwrap().gre.is_relayable(), expected);
    }
}
