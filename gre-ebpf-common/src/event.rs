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
    /// Bytes of the frame that follows: all of it.
    pub len: u32,
}

const _: () = assert!(size_of::<Event>() == 16);

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
}

impl Kind {
    pub const ALL: [Self; 4] =
        [Self::OuterFragment, Self::OuterOptions, Self::Oversize, Self::OtherProtocol];
}
