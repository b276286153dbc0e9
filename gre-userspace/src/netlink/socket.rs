//! Sockets for what must not be guessed: dumps and notifications. The connection under `rtnetlink`
//! logs a message that it cannot decode and goes on without it; a snapshot made that way would
//! lack a route and nobody would know. Here every message counts, and only the attributes that are
//! needed are decoded, so that one the kernel adds tomorrow does no harm.

use std::{io, net::IpAddr, num::NonZeroI32, time::Duration};

use netlink_packet_core::{
    DecodeError, DefaultNla, DoneBuffer, Emitable, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkHeader,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::error::{DumpFault, NetlinkError};

/// How often a dump is tried before its failure is an error.
const ATTEMPTS: u32 = 8;

/// What to read, and how to ask.
pub(super) struct Dump {
    /// For messages: "routes".
    pub(super) what: &'static str,
    pub(super) protocol: isize,
    pub(super) message_type: u16,
    /// The family's header and attributes.
    pub(super) body: Vec<u8>,
}

impl Dump {
    /// An rtnetlink dump, `header_length` being the size of the family's header, all zero but for
    /// the address family in its first byte. A kernel without the family answers with all that it
    /// has (rtnl_dump_all).
    pub(super) fn route(
        what: &'static str,
        message_type: u16,
        family: i32,
        header_length: usize,
    ) -> Self {
        let mut body = vec![0; header_length];
        body[0] = family as u8;
        Self { what, protocol: NETLINK_ROUTE, message_type, body }
    }

    /// Everything that `parse` makes of the table's entries. A dump that failed in any way is
    /// thrown away and repeated, unless the kernel has no such table.
    pub(super) async fn read<T>(
        &self,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut attempts = 1;
        loop {
            match self.read_once(&parse).await {
                Ok(entries) => return Ok(entries),
                Err(fault) if attempts == ATTEMPTS || fault.is_lasting() => {
                    return Err(NetlinkError::Dump { what: self.what, attempts, fault });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(1 << attempts)).await,
            }
            attempts += 1;
        }
    }

    async fn read_once<T>(
        &self,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, DumpFault> {
        // A socket of its own: the rest of a dump that was given up cannot reach the next one.
        let mut socket = Socket::open(self.protocol)?;
        if self.protocol == NETLINK_ROUTE {
            // The kernel then leaves out of route dumps what we would only drop (cached routes).
            socket.0.socket_ref().set_netlink_get_strict_chk(true)?;
        }
        socket.send(self.message_type, NLM_F_REQUEST | NLM_F_DUMP, &self.body).await?;

        let mut entries = Vec::new();
        while !take(socket.receive().await?, &parse, &mut entries)? {}
        Ok(entries)
    }
}

/// Adds one datagram of a dump to `entries`; true if that was the last.
fn take<T>(
    datagram: &[u8],
    parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    entries: &mut Vec<T>,
) -> Result<bool, DumpFault> {
    let refused = |errno: i32| Err(DumpFault::Refused(io::Error::from_raw_os_error(-errno)));
    for message in messages(datagram) {
        let message = message?;
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            return Err(DumpFault::Interrupted);
        }
        match message.message_type() {
            NLMSG_DONE => {
                // Without a payload, or with the errno that the dump ended with.
                return match message.payload() {
                    [] => Ok(true),
                    payload => match DoneBuffer::new_checked(payload)?.code() {
                        0.. => Ok(true),
                        errno => refused(errno),
                    },
                };
            }
            NLMSG_ERROR => {
                let errno = ErrorBuffer::new_checked(message.payload())?.code();
                return refused(errno.map_or(0, NonZeroI32::get));
            }
            NLMSG_NOOP => {}
            NLMSG_OVERRUN => return Err(DumpFault::Interrupted),
            _ => entries.extend(parse(message.payload())?),
        }
    }
    Ok(false)
}

/// A netlink socket of the caller's network namespace, and room for one datagram.
pub(crate) struct Socket(TokioSocket, Vec<u8>);

impl Socket {
    /// The kernel makes datagrams of up to 32 KiB; one that fills this is taken for a truncated
    /// one.
    const DATAGRAM: usize = 128 * 1024;

    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self(socket, Vec::with_capacity(Self::DATAGRAM)))
    }

    /// Receives what the kernel sends to `group`.
    pub(crate) fn join(&self, group: u32) -> io::Result<()> {
        self.0.socket_ref().add_membership(group)
    }

    /// Makes room for `bytes` of notifications, whatever net.core.rmem_max says.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        Ok(setsockopt(self.0.socket_ref(), RcvBufForce, &bytes)?)
    }

    async fn send(&self, message_type: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.length = (size_of::<NetlinkHeader>() + body.len()) as u32;
        header.message_type = message_type;
        header.flags = flags;
        let mut datagram = vec![0; size_of::<NetlinkHeader>()];
        header.emit(&mut datagram);
        datagram.extend_from_slice(body);
        self.0.send_to(&datagram, &SocketAddr::new(0, 0)).await?;
        Ok(())
    }

    /// The next datagram from the kernel. ENOBUFS: notifications were lost.
    pub(crate) async fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            self.1.clear();
            let sender = self.0.recv_from(&mut self.1).await?;
            if self.1.len() >= Self::DATAGRAM {
                return Err(io::Error::other("a netlink datagram was cut short"));
            }
            // Other processes can send to this socket as well; only the kernel's port is 0.
            if sender.port_number() == 0 {
                return Ok(&self.1);
            }
        }
    }
}

/// The messages in a datagram.
pub(crate) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkBuffer<&[u8]>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(rest);
        let length = message.as_ref().map_or(rest.len(), |message| message.length() as usize);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// A family's header of `N` bytes, and the attributes after it.
pub(super) fn split<const N: usize>(payload: &[u8]) -> Result<(&[u8; N], &[u8]), DecodeError> {
    payload
        .split_first_chunk()
        .ok_or_else(|| format!("{} bytes, too short for a header of {N}", payload.len()).into())
}

/// Four bytes from `offset` of a header, in host byte order.
pub(super) fn word(header: &[u8], offset: usize) -> u32 {
    header[offset..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// An address of the family that its length says.
pub(super) fn address(value: &[u8]) -> Result<IpAddr, DecodeError> {
    let ipv4 = || <[u8; 4]>::try_from(value).map(IpAddr::from);
    let ipv6 = || <[u8; 16]>::try_from(value).map(IpAddr::from);
    ipv4().or_else(|_| ipv6()).map_err(|_| format!("an address of {} bytes", value.len()).into())
}

/// A string up to its NUL. Names are bytes to the kernel; those that are not UTF-8 are shown as
/// well as can be.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An attribute as it goes on the wire, padded to four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message_type: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        let mut header = NetlinkHeader::default();
        header.length = 16 + body.len() as u32;
        header.message_type = message_type;
        header.flags = flags;
        header.emit(&mut bytes);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_split_into_its_padded_messages() {
        let datagram = [message(24, 0, &[1, 2, 3, 4, 5]), message(25, 0, &[6])].concat();

        let found: Vec<_> = messages(&datagram)
            .map(|message| message.map(|m| (m.message_type(), m.payload().to_vec())).unwrap())
            .collect();

        assert_eq!(found, [(24, vec![1, 2, 3, 4, 5]), (25, vec![6])]);
    }

    #[test]
    fn a_table_that_the_kernel_does_not_have_is_asked_for_once() {
        let refused = |errno| DumpFault::Refused(io::Error::from_raw_os_error(errno));
        for errno in [nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT] {
            assert!(refused(errno).is_lasting());
        }
        assert!(!refused(nix::libc::ENOMEM).is_lasting());
        assert!(!DumpFault::Interrupted.is_lasting());
    }

    #[test]
    fn a_message_longer_than_its_datagram_is_an_error_and_ends_it() {
        let mut datagram = [message(24, 0, &[1]), message(25, 0, &[6])].concat();
        datagram.truncate(datagram.len() - 4);

        let found: Vec<_> = messages(&datagram).map(|message| message.is_ok()).collect();

        assert_eq!(found, [true, false]);
    }

    /// What `take` makes of a datagram whose entries are single bytes, 0 being undecodable.
    fn taken(datagram: &[Vec<u8>]) -> (Vec<u8>, Result<bool, String>) {
        let parse = |payload: &[u8]| match payload {
            [0] => Err(DecodeError::from("zero")),
            payload => Ok(payload.first().copied()),
        };
        let mut entries = Vec::new();
        let result = take(&datagram.concat(), parse, &mut entries);
        (entries, result.map_err(|fault| fault.to_string()))
    }

    #[test]
    fn a_dump_goes_on_until_it_is_done() {
        let more = [message(24, 0, &[1]), message(24, 0, &[2])];
        assert_eq!(taken(&more), (vec![1, 2], Ok(false)));

        let last = [message(24, 0, &[3]), message(NLMSG_DONE, 0, &0i32.to_ne_bytes())];
        assert_eq!(taken(&last), (vec![3], Ok(true)));
    }

    #[test]
    fn a_dump_that_is_not_whole_is_a_fault() {
        let errno = (-nix::libc::ENOMEM).to_ne_bytes();
        for (flawed, expected) in [
            (message(24, NLM_F_DUMP_INTR, &[2]), "changed while"),
            (message(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]), "changed while"),
            (message(NLMSG_DONE, 0, &errno), "Cannot allocate memory"),
            (message(NLMSG_ERROR, 0, &[&errno[..], &[0; 16]].concat()), "Cannot allocate memory"),
            (message(NLMSG_OVERRUN, 0, &[]), "changed while"),
            (message(24, 0, &[0]), "cannot be decoded: zero"),
            (message(24, 0, &[])[..12].to_vec(), "cannot be decoded"),
        ] {
            let (_, result) = taken(&[message(24, 0, &[1]), flawed]);
            assert!(result.as_ref().is_err_and(|fault| fault.contains(expected)), "{result:?}");
        }
    }
}
