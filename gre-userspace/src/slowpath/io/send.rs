//! Sends IP packets that the kernel routes, and frames out of the peers of tunnels' devices.

use std::{
    io,
    net::{SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
        SockaddrIn6, SockaddrLike as _, sendto, socket,
    },
};

use super::super::packet::{Ipv4, Ipv6};

pub struct Sender {
    v4: OwnedFd,
    /// Where the kernel has IPv6.
    v6: Option<OwnedFd>,
    frames: OwnedFd,
}

impl Sender {
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: what is sent has its IP header, and nothing is received.
        let v6 = match open(AddressFamily::Inet6, Some(SockProtocol::Raw)) {
            Ok(socket) => Some(socket),
            Err(Errno::EAFNOSUPPORT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            v4: open(AddressFamily::Inet, Some(SockProtocol::Raw))?,
            v6,
            // Protocol 0: nothing is received.
            frames: open(AddressFamily::Packet, None)?,
        })
    }

    /// Sends a packet to where the kernel routes its destination. It must fit the MTU of the way.
    ///
    /// Of an IPv4 packet the kernel fills in the checksum, and the identification and the source if
    /// they are zero: fragments must have an identification.
    ///
    /// # Errors
    /// What `sendto` fails with, or `InvalidInput` for what is no IP packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        if let Some(header) = Ipv4::whole(packet) {
            let to = SockaddrIn::from(SocketAddrV4::new(header.destination().into(), 0));
            return sent(sendto(self.v4.as_raw_fd(), packet, &to, MsgFlags::empty()), packet);
        }
        let header = Ipv6::whole(packet).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let to = SockaddrIn6::from(SocketAddrV6::new(header.destination().into(), 0, 0, 0));
        sent(sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()), packet)
    }

    /// Sends a frame, which starts with its Ethernet header, out of an interface.
    ///
    /// # Errors
    /// What `sendto` fails with; `EMSGSIZE` above the interface's MTU.
    pub fn send_frame(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = link_address(ifindex, frame).ok_or(io::ErrorKind::InvalidInput)?;
        sent(sendto(self.frames.as_raw_fd(), frame, &to, MsgFlags::empty()), frame)
    }
}

fn open(family: AddressFamily, protocol: Option<SockProtocol>) -> nix::Result<OwnedFd> {
    socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
}

/// These sockets send all or nothing.
fn sent(result: nix::Result<usize>, packet: &[u8]) -> io::Result<()> {
    match result? {
        len if len == packet.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn link_address(ifindex: u32, frame: &[u8]) -> Option<LinkAddr> {
    let mut address = [0; 8];
    address[..6].copy_from_slice(frame.get(..6)?);
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        // In memory order, as it stands in the frame.
        sll_protocol: u16::from_ne_bytes(frame.get(12..14)?.try_into().ok()?),
        sll_ifindex: ifindex.try_into().ok()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: it points to `len` bytes of a `sockaddr_ll`, whose family says that it is one.
    unsafe { LinkAddr::from_raw(ptr::from_ref(&address).cast(), Some(len)) }
}
