//! ICMP errors that this host receives, by raw sockets.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::super::icmp::{
    V4_TIME_EXCEEDED, V4_UNREACHABLE, V6_PACKET_TOO_BIG, V6_TIME_EXCEEDED, V6_UNREACHABLE,
};

/// linux/icmp.h.
const ICMP_FILTER: libc::c_int = 1;
/// linux/icmpv6.h.
const ICMPV6_FILTER: libc::c_int = 1;
/// A quote is no longer than this, as a rule; what is behind it is not missed.
const MAX_LEN: usize = 2048;

/// ICMP errors of one family. Must be made in a Tokio runtime with I/O.
pub struct IcmpErrors(AsyncFd<OwnedFd>);

impl IcmpErrors {
    /// Unreachable and time exceeded of IPv4.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn v4() -> io::Result<Self> {
        let socket = raw(AddressFamily::Inet, SockProtocol::Icmp)?;
        // A bit that is set keeps a type out.
        let filter = !(1u32 << V4_UNREACHABLE | 1 << V4_TIME_EXCEEDED);
        set_option(&socket, libc::SOL_RAW, ICMP_FILTER, &[filter])?;
        wait_for(socket).map(Self)
    }

    /// Unreachable, packet too big and time exceeded of IPv6; `None` where the kernel has no IPv6.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn v6() -> io::Result<Option<Self>> {
        let socket = match raw(AddressFamily::Inet6, SockProtocol::IcmpV6) {
            Ok(socket) => socket,
            Err(Errno::EAFNOSUPPORT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut filter = [u32::MAX; 8];
        filter[0] = !(1u32 << V6_UNREACHABLE | 1 << V6_PACKET_TOO_BIG | 1 << V6_TIME_EXCEEDED);
        set_option(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &filter)?;
        wait_for(socket).map(Self).map(Some)
    }

    /// The next error: of IPv4 with its IP header, of IPv6 without. Cancelling it loses nothing.
    ///
    /// # Errors
    /// What `recv` fails with.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = vec![0; MAX_LEN];
            let received = ready
                .try_io(|socket| Ok(recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            if let Ok(len) = received {
                buffer.truncate(len?);
                return Ok(buffer);
            }
        }
    }
}

fn raw(family: AddressFamily, protocol: SockProtocol) -> nix::Result<OwnedFd> {
    socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
}

fn wait_for(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn set_option(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    words: &[u32],
) -> io::Result<()> {
    let len = size_of_val(words) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from the start of `words`, which has that many.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, words.as_ptr().cast(), len) };
    Ok(Errno::result(result).map(drop)?)
}
