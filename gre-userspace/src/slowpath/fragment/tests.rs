//! Against etherparse, which parses each fragment and puts them together again.

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, Ipv6Slice, SlicedPacket, defrag::IpDefragPool,
};
use proptest::prelude::*;

use super::*;

pub fn packet_v4(payload: &[u8], options: &[u8]) -> Vec<u8> {
    let (source, destination) = ([192, 0, 2, 1], [198, 51, 100, 1]);
    let mut header =
        Ipv4Header::new(payload.len() as u16, 64, IpNumber::GRE, source, destination).unwrap();
    header.options = options.try_into().unwrap();
    header.set_payload_len(payload.len()).unwrap();
    header.identification = 0xabcd;
    header.dont_fragment = false;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// With destination options in front of the payload.
pub fn packet_v6(payload: &[u8]) -> Vec<u8> {
    let options = [47, 0, 4, 1, 4, 1, 0, 0];
    let header = Ipv6Header {
        payload_length: (options.len() + payload.len()) as u16,
        next_header: IpNumber::IPV6_DESTINATION_OPTIONS,
        hop_limit: 64,
        source: [0xfd; 16],
        destination: [0xfe; 16],
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], &options, payload].concat()
}

/// What etherparse puts together.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for fragment in fragments {
        assert_eq!(whole, None);
        let slice = SlicedPacket::from_ip(fragment).unwrap();
        whole = pool.process_sliced_packet(&slice, (), ()).unwrap().map(|whole| whole.payload);
    }
    whole.unwrap()
}

proptest! {
    #[test]
    fn ipv4_fragments_fit_and_make_up_the_packet(
        payload in prop::collection::vec(any::<u8>(), 1..4000),
        mtu in 68usize..1600,
    ) {
        let packet = packet_v4(&payload, &[]);
        let fragments = ipv4(&packet, mtu).unwrap();
        if packet.len() <= mtu {
            prop_assert_eq!(fragments, [packet]);
            return Ok(());
        }
        for (i, fragment) in fragments.iter().enumerate() {
            let (header, rest) = Ipv4Header::from_slice(fragment).unwrap();
            prop_assert!(fragment.len() <= mtu && fragment.len() + 8 > mtu || i == fragments.len() - 1);
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            prop_assert_eq!(header.more_fragments, i != fragments.len() - 1);
            prop_assert_eq!(usize::from(header.total_len), fragment.len());
            prop_assert_eq!(header.identification, 0xabcd);
            prop_assert!(!rest.is_empty());
        }
        prop_assert_eq!(reassembled(&fragments), payload);
    }

    #[test]
    fn ipv6_fragments_fit_and_make_up_the_packet(
        payload in prop::collection::vec(any::<u8>(), 1300..5000),
        mtu in 1280usize..1400,
    ) {
        let packet = packet_v6(&payload);
        prop_assume!(packet.len() > mtu);
        let fragments = ipv6(&packet, mtu, 0x12345678).unwrap();
        for fragment in &fragments {
            prop_assert!(fragment.len() <= mtu);
            let slice = Ipv6Slice::from_slice(fragment).unwrap();
            prop_assert_eq!(slice.header().next_header(), IpNumber::IPV6_DESTINATION_OPTIONS);
            prop_assert!(slice.is_payload_fragmented());
        }
        prop_assert_eq!(reassembled(&fragments), payload);
    }

    #[test]
    fn cutting_a_fragment_again_makes_fragments_of_the_same_packet(
        payload in prop::collection::vec(any::<u8>(), 1000..4000),
        (first, second) in (300usize..900, 68usize..299),
    ) {
        let fragments = ipv4(&packet_v4(&payload, &[]), first).unwrap();
        let smaller: Vec<_> = fragments.iter().flat_map(|f| ipv4(f, second).unwrap()).collect();
        prop_assert!(smaller.len() > fragments.len());
        prop_assert_eq!(reassembled(&smaller), payload);
    }
}

#[test]
fn only_copied_options_are_in_later_fragments() {
    // Router alert (copied), no operation, record route (not copied), end.
    let options = [0x94, 4, 0, 0, 1, 7, 5, 4, 9, 0, 0, 0];
    let fragments = ipv4(&packet_v4(&[7; 100], &options), 76).unwrap();
    let headers: Vec<_> = fragments.iter().map(|f| Ipv4Header::from_slice(f).unwrap().0).collect();
    assert_eq!(&headers[0].options[..], options);
    assert_eq!(&headers[1].options[..], [0x94, 4, 0, 0]);
    let offsets: Vec<_> = headers.iter().map(|header| header.fragment_offset).collect();
    assert_eq!(offsets, [0, 5, 11].map(|units| IpFragOffset::try_new(units).unwrap()));
    assert!(headers.iter().all(|header| header.header_checksum == header.calc_header_checksum()));
}

#[test]
fn dont_fragment_is_clear_in_fragments() {
    let mut packet = packet_v4(&[7; 100], &[]);
    packet[6] |= 0x40;
    for fragment in ipv4(&packet, 68).unwrap() {
        assert!(!Ipv4Header::from_slice(&fragment).unwrap().0.dont_fragment);
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let packet = packet_v4(&[7; 100], &[]);
    assert_eq!(ipv4(&packet, 27), Err(CutError::MtuTooSmall));
    assert_eq!(ipv4(&packet, 28).unwrap().len(), 13);
    assert_eq!(ipv4(&packet[..119], 68), Err(CutError::Malformed));
    let options_too_long = packet_v4(&[7; 100], &[7, 5, 4, 0]);
    assert_eq!(ipv4(&options_too_long, 68), Err(CutError::Malformed));
    assert_eq!(ipv6(&packet_v6(&[7; 100]), 56, 1), Err(CutError::MtuTooSmall));
    assert_eq!(ipv6(&packet_v6(&[7; 100])[..100], 1280, 1), Err(CutError::Malformed));
}
