use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header,
    PacketBuilder,
    icmpv4::DestUnreachableHeader,
    icmpv6::{
        DestUnreachableCode, ParameterProblemCode, ParameterProblemHeader,
        TimeExceededCode as TimeExceededCode6,
    },
};

use super::*;

const HOST: [u8; 4] = [10, 1, 0, 2];
const ROUTER: [u8; 4] = [10, 1, 0, 1];
const OTHER: [u8; 4] = [10, 2, 0, 2];
const HOST6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ROUTER6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER6: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const TOO_BIG: Complaint = Complaint::TooBig { mtu: 1400 };
const NO: Result<Vec<u8>, Reason> = Err(Reason::TooBigUnanswerable);

fn offender_v4(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..payload).map(|i| i as u8).collect();
    PacketBuilder::ipv4(HOST, OTHER, 63).udp(7, 9).write(&mut packet, &payload).unwrap();
    packet
}

fn offender_v6(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..payload).map(|i| i as u8).collect();
    PacketBuilder::ipv6(HOST6, OTHER6, 63).udp(7, 9).write(&mut packet, &payload).unwrap();
    packet
}

/// As etherparse builds it.
fn reference_v4(error: DestUnreachableHeader, quote: &[u8]) -> Vec<u8> {
    let mut icmp = Icmpv4Header::new(Icmpv4Type::DestinationUnreachable(error));
    icmp.update_checksum(quote);
    let mut ip = Ipv4Header::new(8 + quote.len() as u16, 64, IpNumber::ICMP, ROUTER, HOST).unwrap();
    ip.dscp = 48.try_into().unwrap();
    ip.dont_fragment = true;
    ip.header_checksum = ip.calc_header_checksum();
    [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
}

fn reference_v6(error: Icmpv6Type, quote: &[u8]) -> Vec<u8> {
    let mut icmp = Icmpv6Header::new(error);
    icmp.update_checksum(ROUTER6, HOST6, quote).unwrap();
    let mut ip = Ipv6Header {
        payload_length: 8 + quote.len() as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 64,
        source: ROUTER6,
        destination: HOST6,
        ..Default::default()
    };
    ip.set_dscp(48.try_into().unwrap());
    [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
}

#[test]
fn ipv4_answers_are_what_etherparse_builds() {
    for payload in [1, 20, 1472] {
        let offender = offender_v4(payload);
        // 576 bytes in all.
        let quote = &offender[..offender.len().min(548)];
        for (complaint, error) in [
            (TOO_BIG, DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 }),
            (Complaint::Unreachable, DestUnreachableHeader::Host),
            (Complaint::HopLimitExceeded, DestUnreachableHeader::Host),
        ] {
            let answer = ipv4(complaint, &offender, ROUTER).unwrap();
            assert_eq!(answer, reference_v4(error, quote), "{complaint:?} of {payload} bytes");
            assert!(answer.len() <= 576);
        }
    }
}

#[test]
fn ipv6_answers_are_what_etherparse_builds() {
    for payload in [1, 20, 1452] {
        let offender = offender_v6(payload);
        // 1280 bytes in all.
        let quote = &offender[..offender.len().min(1232)];
        for (complaint, error) in [
            (TOO_BIG, Icmpv6Type::PacketTooBig { mtu: 1400 }),
            (
                Complaint::Unreachable,
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
            ),
            (
                Complaint::HopLimitExceeded,
                Icmpv6Type::TimeExceeded(TimeExceededCode6::HopLimitExceeded),
            ),
            (
                Complaint::EncapsulationLimit { pointer: 300 },
                Icmpv6Type::ParameterProblem(ParameterProblemHeader {
                    code: ParameterProblemCode::ErroneousHeaderField,
                    pointer: 300,
                }),
            ),
        ] {
            let answer = ipv6(complaint, &offender, ROUTER6).unwrap();
            assert_eq!(answer, reference_v6(error, quote), "{complaint:?} of {payload} bytes");
            assert!(answer.len() <= 1280);
        }
    }
}

#[test]
fn rfc1812_no_answer_to_what_is_no_host_or_is_an_error() {
    let answered = |mutate: &dyn Fn(&mut Vec<u8>)| {
        let mut offender = offender_v4(20);
        mutate(&mut offender);
        ipv4(TOO_BIG, &offender, ROUTER).is_ok()
    };
    assert!(answered(&|_| {}));
    for first in [0, 127, 224, 239, 240, 255] {
        assert!(!answered(&|offender| offender[12] = first), "from {first}/8");
        assert!(!answered(&|offender| offender[16] = first), "to {first}/8");
    }
    assert!(answered(&|offender| offender[6] = 0x20), "a first fragment");
    assert!(!answered(&|offender| offender[7] = 1), "a later fragment");
    for kind in 0..=255 {
        let icmp = |offender: &mut Vec<u8>| (offender[9], offender[20]) = (1, kind);
        let expected = kind <= 18 && !matches!(kind, 3 | 4 | 5 | 11 | 12);
        assert_eq!(answered(&icmp), expected, "about ICMP type {kind}");
    }
    assert!(!answered(&|offender| {
        offender[9] = 1;
        offender.truncate(20);
    }));
    assert_eq!(ipv4(TOO_BIG, &offender_v6(20), ROUTER), NO);
}

#[test]
fn rfc4443_no_answer_to_what_is_no_host_or_is_an_error() {
    let answered = |complaint, mutate: &dyn Fn(&mut Vec<u8>)| {
        let mut offender = offender_v6(20);
        mutate(&mut offender);
        ipv6(complaint, &offender, ROUTER6).is_ok()
    };
    assert!(answered(TOO_BIG, &|_| {}));
    assert!(!answered(TOO_BIG, &|offender| offender[8] = 0xff), "from a group");
    assert!(!answered(TOO_BIG, &|offender| offender[8..24].fill(0)));
    assert!(!answered(TOO_BIG, &|offender| offender[8..24].copy_from_slice(&[0; 16])));
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    assert!(!answered(TOO_BIG, &|offender| offender[8..24].copy_from_slice(&loopback)));
    assert!(answered(TOO_BIG, &|offender| offender[24] = 0xff), "to a group: its MTU");
    assert!(!answered(Complaint::Unreachable, &|offender| offender[24] = 0xff));
    for kind in 0..=255 {
        let icmp = |offender: &mut Vec<u8>| (offender[6], offender[40]) = (58, kind);
        assert_eq!(answered(TOO_BIG, &icmp), kind >= 128 && kind != 137, "about ICMPv6 {kind}");
    }
    // A Fragment header in front of an ICMPv6 error, and of a later piece of one.
    let fragment = |offset: u8| {
        move |offender: &mut Vec<u8>| {
            offender[6] = 44;
            offender[40..48].copy_from_slice(&[58, 0, 0, offset, 0, 0, 0, 1]);
            offender[48] = 1;
        }
    };
    assert!(!answered(TOO_BIG, &fragment(1)));
    assert!(answered(TOO_BIG, &fragment(9)));
}

#[test]
fn no_sender_is_told_an_mtu_below_1280() {
    let offender = offender_v6(1300);
    assert_eq!(ipv6(Complaint::TooBig { mtu: 1279 }, &offender, ROUTER6), NO);
    assert!(ipv6(Complaint::TooBig { mtu: 1280 }, &offender, ROUTER6).is_ok());
}
