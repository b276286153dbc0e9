//! What the kernel sends with a wrong GRE checksum, told by other means than xgre's.
//!
//! Of a stream's last packets that Linux cuts in software, now and then one leaves with a checksum
//! that is not its own (6.1 and 7.3 alike). A receiver must drop it, and how many it dropped can be
//! told exactly only by looking at the wire.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};
use tests::namespace::Namespace;

use crate::packets::checksum;

/// More than a stream and its acknowledgements.
const ROOM: usize = 16 << 20;

/// A packet socket that sees every frame of a namespace.
pub struct Tap(OwnedFd);

impl Tap {
    pub fn new(namespace: &Namespace) -> Result<Self> {
        namespace.within(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let (family, kind) = (AddressFamily::Packet, SockType::Raw);
            let socket = socket(family, kind, flags, SockProtocol::EthAll).context("a tap")?;
            setsockopt(&socket, RcvBufForce, &ROOM)?;
            Ok(Self(socket))
        })
    }

    /// How many frames with a wrong GRE checksum have left for a destination since the last look.
    pub fn wrong_sums(&self, destination: &IpAddr) -> u64 {
        let mut buffer = [0; 65536];
        let mut wrong = 0;
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
            let sent = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
            let gre = gre(&buffer[..length], destination);
            wrong +=
                u64::from(sent && gre.is_some_and(|gre| gre[0] & 0x80 != 0 && checksum(gre) != 0));
        }
        wrong
    }
}

/// The GRE header of a frame to a destination, with what follows it. Not of a fragment.
fn gre<'a>(frame: &'a [u8], destination: &IpAddr) -> Option<&'a [u8]> {
    let packet = frame.get(14..)?;
    let length =
        |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let (start, end, target) = match packet.first()? >> 4 {
        4 if length(6)? & 0x3fff == 0 && packet[9] == 47 => (20, length(2)?, packet.get(16..20)?),
        6 if *packet.get(6)? == 47 => (40, 40 + length(4)?, packet.get(24..40)?),
        // Destination options, with an encapsulation limit.
        6 if packet[6] == 60 && *packet.get(40)? == 47 => {
            (48, 40 + length(4)?, packet.get(24..40)?)
        }
        _ => return None,
    };
    let meant = match destination {
        IpAddr::V4(address) => target == address.octets(),
        IpAddr::V6(address) => target == address.octets(),
    };
    packet.get(start..end).filter(|_| meant)
}
