use etherparse::{IpNumber, Ipv4Header as Reference4, Ipv6Header as Reference6, PacketBuilder};
use gre_ebpf_common::{
    outcome::Outcome,
    tunnel::{Ends, Expected, Outer, Tunnel},
};
use proptest::prelude::*;

use super::{
    super::{
        packet::seal_ipv4,
        testing::{LOCAL, REMOTE, entry},
    },
    *,
};

const LOCAL6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const REMOTE6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const STAMP: Stamp = Stamp { identification: 0x1234, sequence: 77 };
const MPLS: u16 = 0x8847;

/// A tunnel over either family with these options, both ways.
fn tunnel(v6: bool, key: Option<u32>, checksum: bool, sequence: bool, limit: bool) -> TunnelEntry {
    let (ends, local, remote): (_, IpAddr, IpAddr) = if v6 {
        let ends = Ends::v6(words(LOCAL6), words(REMOTE6));
        (ends, LOCAL6.into(), REMOTE6.into())
    } else {
        let (local, remote) = (u32::from_ne_bytes(LOCAL), u32::from_ne_bytes(REMOTE));
        (Ends::v4(local, remote), LOCAL.into(), REMOTE.into())
    };
    let encapsulation_limit = limit.then_some(4);
    let outer = Outer { ttl: 64, key, checksum, sequence, encapsulation_limit, ..Outer::new(ends) };
    let record = Tunnel::new(outer, Expected { key, checksum, sequence, rfc2890: false });
    TunnelEntry { record, local, remote, ..entry() }
}

fn inner(ethertype: u16, ecn: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    match ethertype {
        ETHERTYPE_IPV4 => {
            let mut ip =
                Reference4::new(0, 63, IpNumber::UDP, [10, 1, 0, 2], [10, 2, 0, 2]).unwrap();
            ip.ecn = ecn.try_into().unwrap();
            let ip = etherparse::IpHeaders::Ipv4(ip, Default::default());
            PacketBuilder::ip(ip).udp(1, 2).write(&mut packet, &[7; 33]).unwrap();
        }
        ETHERTYPE_IPV6 => {
            let mut ip = Reference6 {
                next_header: IpNumber::UDP,
                hop_limit: 63,
                source: [0xfd; 16],
                destination: [0xfe; 16],
                ..Default::default()
            };
            ip.set_ecn(ecn.try_into().unwrap());
            let ip = etherparse::IpHeaders::Ipv6(ip, Default::default());
            PacketBuilder::ip(ip).udp(1, 2).write(&mut packet, &[7; 33]).unwrap();
        }
        _ => packet = vec![7; 33],
    }
    packet
}

/// The outer packet as one that comes back: its addresses exchanged.
fn returned(mut outer: Vec<u8>) -> Vec<u8> {
    let (start, len) = if outer[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    let source = outer[start..start + len].to_vec();
    outer.copy_within(start + len..start + 2 * len, start);
    outer[start + len..start + 2 * len].copy_from_slice(&source);
    outer
}

fn unwrapped(tunnel: &TunnelEntry, packet: &[u8]) -> Result<(u16, Vec<u8>), Outcome> {
    let received = Received::parse(packet)?;
    decapsulate(&tunnel.record, &received, |number| {
        if number == STAMP.sequence { Ok(()) } else { Err(Outcome::SequenceOld) }
    })
}

proptest! {
    /// etherparse and a naive sum say the same of the outer packet, and what goes in comes out.
    #[test]
    fn what_is_encapsulated_is_what_etherparse_builds_and_comes_out_again(
        (v6, key, with_checksum, sequence, limit) in
            any::<(bool, Option<u32>, bool, bool, bool)>(),
        ethertype in prop::sample::select(vec![ETHERTYPE_IPV4, ETHERTYPE_IPV6, MPLS]),
        ecn in 0u8..4,
    ) {
        let tunnel = tunnel(v6, key, with_checksum, sequence, limit);
        let inner = inner(ethertype, ecn);
        let outer = encapsulate(&tunnel, ethertype, &inner, STAMP).unwrap();

        let mut gre = vec![
            u8::from(with_checksum) << 7 | u8::from(key.is_some()) << 5 | u8::from(sequence) << 4,
            0,
        ];
        gre.extend(ethertype.to_be_bytes());
        gre.extend(with_checksum.then_some([0; 4]).into_iter().flatten());
        gre.extend(key.into_iter().flat_map(u32::to_be_bytes));
        gre.extend(sequence.then(|| STAMP.sequence.to_be_bytes()).into_iter().flatten());
        gre.extend(&inner);
        if with_checksum {
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&gre);
            gre[4..6].copy_from_slice(&sum.ones_complement().to_ne_bytes());
        }
        let ecn = if ethertype == MPLS { 0 } else { ecn };
        let header = if v6 {
            let options = if limit { vec![47, 0, 4, 1, 4, 1, 1, 0] } else { vec![] };
            let mut header = Reference6 {
                payload_length: (options.len() + gre.len()) as u16,
                next_header: if limit { IpNumber::IPV6_DESTINATION_OPTIONS } else { IpNumber::GRE },
                hop_limit: 64,
                source: LOCAL6,
                destination: REMOTE6,
                ..Default::default()
            };
            header.set_ecn(ecn.try_into().unwrap());
            [&header.to_bytes()[..], &options].concat()
        } else {
            let mut header =
                Reference4::new(gre.len() as u16, 64, IpNumber::GRE, LOCAL, REMOTE).unwrap();
            header.identification = STAMP.identification;
            header.ecn = ecn.try_into().unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        };
        prop_assert_eq!(&outer, &[header, gre].concat());
        prop_assert_eq!(outer.len(), inner.len() + usize::from(tunnel.record.overhead));

        let received = returned(outer);
        let parsed = Received::parse(&received).unwrap();
        prop_assert_eq!(
            (parsed.local, parsed.remote, parsed.key),
            (tunnel.local, tunnel.remote, key)
        );
        prop_assert_eq!(unwrapped(&tunnel, &received), Ok((ethertype, inner)));
    }
}

#[test]
fn what_is_too_long_for_ip_is_not_encapsulated() {
    let tunnel = tunnel(false, None, false, false, false);
    assert_eq!(encapsulate(&tunnel, MPLS, &[0; 65_511], STAMP).unwrap().len(), 65_535);
    assert_eq!(encapsulate(&tunnel, MPLS, &[0; 65_512], STAMP), None);
    assert_eq!(encapsulate(&tunnel, ETHERTYPE_IPV4, &[0x45; 19], STAMP), None);
    assert_eq!(encapsulate(&tunnel, ETHERTYPE_IPV6, &[0x60; 39], STAMP), None);
}

#[test]
fn each_mutation_is_refused_for_its_reason() {
    let full = tunnel(false, Some(7), true, true, false);
    let plain = tunnel(false, None, false, false, false);
    let outer = |tunnel: &TunnelEntry, ethertype| {
        returned(encapsulate(tunnel, ethertype, &inner(ethertype, 0), STAMP).unwrap())
    };
    // Puts the outer header's checksum and GRE's right again, so that only the mutation is wrong.
    let refusal = |tunnel: &TunnelEntry, mut packet: Vec<u8>, mutate: &dyn Fn(&mut Vec<u8>)| {
        mutate(&mut packet);
        seal_ipv4(&mut packet[..20]);
        unwrapped(tunnel, &packet).unwrap_err()
    };
    let v4 = outer(&plain, ETHERTYPE_IPV4);
    let v6 = outer(&plain, ETHERTYPE_IPV6);
    let summed = outer(&full, ETHERTYPE_IPV4);
    assert_eq!(refusal(&full, summed.clone(), &|p| p[50] ^= 1), Outcome::ChecksumWrong);
    assert_eq!(refusal(&full, v4.clone(), &|_| {}), Outcome::ChecksumMissing);
    assert_eq!(refusal(&plain, summed.clone(), &|_| {}), Outcome::ChecksumUnexpected);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[9] = 4), Outcome::NoTunnel);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[20] = 0x40), Outcome::GreRouting);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[21] = 1), Outcome::Pptp);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[22] = 5), Outcome::ProtocolUnsupported);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[24] = 0x65), Outcome::InnerMalformed);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[26] = 1), Outcome::InnerTruncated);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[32] ^= 1), Outcome::InnerChecksum);
    assert_eq!(refusal(&plain, v4.clone(), &|p| p[1] |= 3), Outcome::EcnInvalid);
    assert_eq!(refusal(&plain, v6.clone(), &|p| p[1] |= 3), Outcome::EcnInvalid);
    assert_eq!(refusal(&plain, v6, &|p| p[32] = 0xff), Outcome::InnerMartian);
    let cut = |len: u8| refusal(&plain, v4[..len.into()].to_vec(), &|packet| packet[3] = len);
    assert_eq!([23, 43].map(cut), [Outcome::GreTruncated, Outcome::InnerTruncated]);
    let mut broken = v4;
    broken[10] ^= 1;
    assert_eq!(unwrapped(&plain, &broken), Err(Outcome::Ipv4Malformed));

    // The sequence number is judged behind the checksum and in front of what is inside.
    let numbered = tunnel(false, None, false, true, false);
    let packet = outer(&numbered, ETHERTYPE_IPV4);
    let old = |p: &mut Vec<u8>| (p[27], p[28]) = (1, 0);
    assert_eq!(refusal(&numbered, packet, &old), Outcome::SequenceOld);
}

#[test]
fn congestion_outside_is_congestion_inside() {
    for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6] {
        for v6 in [false, true] {
            let tunnel = tunnel(v6, None, false, false, false);
            let mut packet =
                returned(encapsulate(&tunnel, ethertype, &inner(ethertype, 2), STAMP).unwrap());
            if v6 {
                packet[1] |= 0x30;
            } else {
                packet[1] |= 3;
                seal_ipv4(&mut packet[..20]);
            }
            assert_eq!(unwrapped(&tunnel, &packet), Ok((ethertype, inner(ethertype, 3))));
        }
    }
}

#[test]
fn what_is_behind_the_inner_packet_is_left_out() {
    let tunnel = tunnel(false, None, false, false, false);
    for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6] {
        let padded = [&inner(ethertype, 0)[..], &[9; 5]].concat();
        let packet = returned(encapsulate(&tunnel, ethertype, &padded, STAMP).unwrap());
        assert_eq!(unwrapped(&tunnel, &packet), Ok((ethertype, inner(ethertype, 0))));
    }
}
