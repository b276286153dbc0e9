//! What the programs hand to the daemon: a packet that only tier 3 can finish, behind this header,
//! through the perf event array `EVENTS`.

/// In front of the frame, which starts with its Ethernet header.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event {
    /// A [`Kind`].
    pub kind: u32,
    /// The tunnel it belongs to; of a fragment, some tunnel between its addresses.
    pub tunnel: u32,
    /// The interface that it came in on, or the tunnel's device that it was sent to.
    pub ifindex: u32,
    /// Bytes of the frame that follows: all of it, but of an oversize GSO packet only the start,
    /// which an answer quotes.
    pub len: u32,
    /// VLAN tags that the frame had, outer first, each as it stands in a frame; 0 is none.
    pub tags: [u32; 2],
}

const _: () = assert!(size_of::<Event>() == Event::LEN);

impl Event {
    /// Bytes.
    pub const LEN: usize = 24;

    /// What a program wrote on this machine, and so in its byte order.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [kind, tunnel, ifindex, len, outer, inner] = core::array::from_fn(|i| {
            u32::from_ne_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        });
        Self { kind, tunnel, ifindex, len, tags: [outer, inner] }
    }
}

/// What is to be done with the frame. The program that sent it dropped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// From the underlay, a piece of a tunnel's packet: reassemble, then decapsulate.
    OuterFragment = 1,
    /// From the underlay, a whole packet of a tunnel whose outer header has IPv4 options or IPv6
    /// extension headers that the programs do not skip: decapsulate.
    OuterOptions = 2,
    /// From a tunnel's device: encapsulated it exceeds the path's or the underlay's MTU. Answer
    /// with ICMP, fragment the inner packet, or fragment the outer one.
    Oversize = 3,
    /// From a tunnel's device, neither IPv4 nor IPv6, for which TC has no room to give:
    /// encapsulate.
    OtherProtocol = 4,
    /// From a tunnel's device, IPv6 whose own encapsulation limit allows no further tunnel: answer with
    /// ICMP.
    EncapsulationLimit = 5,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::OuterFragment,
        Self::OuterOptions,
        Self::Oversize,
        Self::OtherProtocol,
        Self::EncapsulationLimit,
    ];

    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_lies_in_memory() {
        let words = [Kind::Oversize as u32, 7, 9, 1500, 3, 4];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let event = Event { kind: 3, tunnel: 7, ifindex: 9, len: 1500, tags: [3, 4] };
        assert_eq!(Event::from_bytes(bytes.try_into().unwrap()), event);
    }

    #[test]
    fn each_kind_has_a_code_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind as u32), Some(kind));
        }
        assert_eq!((Kind::from_code(0), Kind::from_code(6)), (None, None));
    }
}
