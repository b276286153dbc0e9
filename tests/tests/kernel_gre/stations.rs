//! Hosts of a LAN that send what they are told, frame by frame, from packet sockets.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::{
    ifaddrs::getifaddrs,
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
        socket,
    },
};
use tests::namespace::Namespace;

use crate::packets::checksum;

pub type Mac = [u8; 6];

/// EtherType for experiments.
const EXPERIMENT: u16 = 0x88b5;
const IPV4: u16 = 0x0800;

/// An Ethernet frame, whose last two bytes are its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub source: Mac,
    pub destination: Mac,
    /// Each TPID and control information, outer first.
    pub tags: &'a [(u16, u16)],
    pub number: u16,
}

impl Frame<'_> {
    /// Of a protocol that nobody knows.
    pub fn bytes(&self) -> Vec<u8> {
        self.with(EXPERIMENT, &[0x5a; 60])
    }

    /// A datagram to an IPv4 group, to nobody's port.
    pub fn datagram(&self, source: [u8; 4], group: [u8; 4]) -> Vec<u8> {
        // Without a checksum.
        let udp = [&[0x40, 0, 0, 9, 0, 42, 0, 0][..], &[0x5a; 32]].concat();
        self.ip(17, source, group, &udp)
    }

    /// A message of IGMP, which has no number.
    pub fn igmp(&self, source: [u8; 4], group: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut frame = self.ip(2, source, group, &message);
        frame.truncate(frame.len() - 2);
        frame
    }

    fn ip(&self, protocol: u8, source: [u8; 4], group: [u8; 4], payload: &[u8]) -> Vec<u8> {
        // The number is the datagram's last two bytes; of IGMP they are cut off again.
        let number = if protocol == 17 { 2 } else { 0 };
        let length = ((24 + payload.len() + number) as u16).to_be_bytes();
        let mut packet = vec![0x46, 0, length[0], length[1], 0, 0, 0, 0, 1, protocol, 0, 0];
        packet.extend([source, group].concat());
        // Router alert, as IGMP wants (RFC 2236, 2).
        packet.extend([0x94, 4, 0, 0]);
        let sum = checksum(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        self.with(IPV4, &[&packet, payload].concat())
    }

    fn with(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [self.destination, self.source].concat();
        for (protocol, control) in self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame.extend(self.number.to_be_bytes());
        frame
    }
}

/// The number of a frame.
pub fn number(frame: &[u8]) -> u16 {
    frame.last_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// The group address that an IPv4 group has on Ethernet (RFC 1112, 6.4).
pub fn group_mac([_, b, c, d]: [u8; 4]) -> Mac {
    [1, 0, 0x5e, b & 0x7f, c, d]
}

/// A host's device.
pub struct Station {
    socket: OwnedFd,
    device: LinkAddr,
}

impl Station {
    pub fn new(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.within(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let (family, kind) = (AddressFamily::Packet, SockType::Raw);
            let socket = socket(family, kind, flags, SockProtocol::EthAll).context("a station")?;
            let of_device = |address: nix::ifaddrs::InterfaceAddress| {
                let link =
                    address.address.as_ref().and_then(|address| address.as_link_addr().copied());
                link.filter(|_| address.interface_name == device)
            };
            let device =
                getifaddrs()?.find_map(of_device).with_context(|| format!("no {device}"))?;
            Ok(Self { socket, device })
        })
    }

    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.device, MsgFlags::empty());
        sent.with_context(|| format!("sending {frame:02x?}")).map(drop)
    }

    /// The numbers of the frames that have arrived since the last look.
    pub fn received(&self) -> Vec<u16> {
        let mut numbers = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            // Promiscuous or not is no matter to what is sent to others: a packet socket sees it all.
            if from.is_some_and(|from| from.pkttype() != libc::PACKET_OUTGOING) {
                numbers.push(number(&buffer[..length]));
            }
        }
        numbers
    }
}
