//! What becomes of a packet that is too long for its tunnel's path (RFC 7588, 3 and 4; RFC 7676,
//! 3.4). The defaults leave reassembly to the inner packet's receiver.

use super::{
    answer::Complaint,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4, Ipv6, MIN_MTU_IPV4, MIN_MTU_IPV6},
    reason::Reason,
};

/// How a tunnel treats what is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The outer packet may not be fragmented. Otherwise (`nopmtudisc`) it may.
    pub pmtudisc: bool,
    /// The inner packet's Don't Fragment counts for nothing; goes with `nopmtudisc` alone.
    pub ignore_df: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It fits, after all.
    Encapsulate,
    /// Fragment the inner packet, and encapsulate each fragment.
    CutInner,
    /// Encapsulate it with the outer Don't Fragment clear, and fragment the outer packet.
    CutOuter,
    Answer(Complaint),
    Drop(Reason),
}

/// What to do with a packet with this EtherType, if the path of its tunnel carries inner packets
/// of `payload_mtu` bytes.
pub fn decide(ethertype: u16, packet: &[u8], payload_mtu: u16, policy: Policy) -> Decision {
    let min_mtu = match ethertype {
        ETHERTYPE_IPV4 => MIN_MTU_IPV4,
        ETHERTYPE_IPV6 => MIN_MTU_IPV6,
        _ => 0,
    };
    let whole = match ethertype {
        ETHERTYPE_IPV4 => Ipv4::whole(packet).is_some(),
        ETHERTYPE_IPV6 => Ipv6::whole(packet).is_some(),
        _ => true,
    };
    // Of a packet that a device was to cut (GSO) only the start is handed up, to be quoted.
    if !whole {
        return Decision::Answer(Complaint::TooBig { mtu: payload_mtu });
    }
    if packet.len() <= usize::from(payload_mtu) {
        return Decision::Encapsulate;
    }
    // No sender can be asked for less than what every link carries.
    if payload_mtu < min_mtu || policy.ignore_df && !policy.pmtudisc {
        return Decision::CutOuter;
    }
    match ethertype {
        ETHERTYPE_IPV4 if Ipv4::whole(packet).is_some_and(|inner| !inner.dont_fragment()) => {
            Decision::CutInner
        }
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Decision::Answer(Complaint::TooBig { mtu: payload_mtu }),
        _ if !policy.pmtudisc => Decision::CutOuter,
        _ => Decision::Drop(Reason::TooBigProtocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: u16 = ETHERTYPE_IPV4;
    const V6: u16 = ETHERTYPE_IPV6;
    const MPLS: u16 = 0x8847;

    fn packet(ethertype: u16, len: u16, dont_fragment: bool) -> Vec<u8> {
        let mut packet = vec![0; len.into()];
        match ethertype {
            V4 => {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                packet[6] = u8::from(dont_fragment) << 6;
            }
            V6 => {
                (packet[0], packet[6]) = (0x60, 17);
                packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            }
            _ => {}
        }
        packet
    }

    #[test]
    fn rfc7588_1_what_is_too_long_is_cut_answered_or_dropped() {
        use Decision::*;
        let too_big = |mtu| Answer(Complaint::TooBig { mtu });
        let pmtudisc = Policy { pmtudisc: true, ignore_df: false };
        let nopmtudisc = Policy { pmtudisc: false, ignore_df: false };
        let ignore_df = Policy { pmtudisc: false, ignore_df: true };
        // Protocol, bytes, Don't Fragment, payload MTU; then by policy.
        for (ethertype, len, df, mtu, expected) in [
            (V4, 1400, true, 1400, [Encapsulate; 3]),
            (V4, 1401, true, 1400, [too_big(1400), too_big(1400), CutOuter]),
            (V4, 1400, false, 1400, [Encapsulate; 3]),
            (V4, 1401, false, 1400, [CutInner, CutInner, CutOuter]),
            (V4, 69, true, 68, [too_big(68), too_big(68), CutOuter]),
            (V4, 69, true, 67, [CutOuter; 3]),
            (V4, 69, false, 67, [CutOuter; 3]),
            (V6, 1400, true, 1400, [Encapsulate; 3]),
            (V6, 1401, true, 1400, [too_big(1400), too_big(1400), CutOuter]),
            (V6, 1281, true, 1280, [too_big(1280), too_big(1280), CutOuter]),
            (V6, 1280, true, 1279, [CutOuter; 3]),
            (V6, 1500, true, 1279, [CutOuter; 3]),
            (MPLS, 1400, false, 1400, [Encapsulate; 3]),
            (MPLS, 1401, false, 1400, [Drop(Reason::TooBigProtocol), CutOuter, CutOuter]),
        ] {
            let packet = packet(ethertype, len, df);
            for (policy, expected) in [pmtudisc, nopmtudisc, ignore_df].into_iter().zip(expected) {
                assert_eq!(
                    decide(ethertype, &packet, mtu, policy),
                    expected,
                    "{ethertype:#06x} of {len} bytes, DF {df}, MTU {mtu}, {policy:?}"
                );
            }
        }
    }

    #[test]
    fn of_a_packet_that_is_not_all_there_its_sender_is_told() {
        let answer = Decision::Answer(Complaint::TooBig { mtu: 1400 });
        for ethertype in [V4, V6] {
            let packet = packet(ethertype, 9000, false);
            for ignore_df in [false, true] {
                let policy = Policy { pmtudisc: !ignore_df, ignore_df };
                assert_eq!(decide(ethertype, &packet[..1280], 1400, policy), answer);
            }
        }
    }
}
