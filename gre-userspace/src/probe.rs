//! Whether a tunnel carries IPv6 packets of 1280 bytes, as it must (RFC 7676, 3.2): ICMPv6 echo requests
//! of that length, which the far end answers with as much.

use std::{
    io::{self, Read as _},
    net::{Ipv6Addr, SocketAddrV6},
    process,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::slowpath::packet::MIN_MTU_IPV6;

/// Every node at the far end of a link, and on a tunnel there is one (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A packet, in bytes, that any path carries which carries anything.
pub const SHORT: u16 = 64;
/// What IPv6 is promised, in bytes.
pub const LONG: u16 = MIN_MTU_IPV6;

/// The first of a length may teach the path's MTU, and be lost by that.
const ATTEMPTS: u16 = 3;
const PATIENCE: Duration = Duration::from_secs(1);

const IPV6_HEADER: u16 = 40;
const ICMPV6_HEADER: usize = 8;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Packets of [`LONG`] bytes are carried there and back.
    Carried { by: Ipv6Addr, within: Duration },
    /// Packets of [`SHORT`] bytes are, and those of [`LONG`] are not.
    TooLong { by: Ipv6Addr },
    /// Not even short ones are answered.
    Silent,
}

/// Asks `address` by way of `device`; three packets of each length at most, and a second for each.
///
/// # Errors
/// Without CAP_NET_RAW, and where the kernel has no way to `address` by `device` or no address of its
/// own to send from.
pub fn probe(device: &str, address: Ipv6Addr) -> io::Result<Verdict> {
    let mut asker = Asker::new(device, address)?;
    let Some((by, _)) = asker.ask(SHORT)? else { return Ok(Verdict::Silent) };
    Ok(match asker.ask(LONG)? {
        Some((by, within)) => Verdict::Carried { by, within },
        None => Verdict::TooLong { by },
    })
}

struct Asker {
    socket: Socket,
    to: SockAddr,
    identifier: u16,
    sequence: u16,
}

impl Asker {
    fn new(device: &str, address: Ipv6Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(device.as_bytes()))?;
        // This host is a node as well.
        socket.set_multicast_loop_v6(false)?;
        let to = SocketAddrV6::new(address, 0, 0, 0).into();
        // The kernel tells each socket of all answers, so that two at once must differ.
        Ok(Self { socket, to, identifier: process::id() as u16, sequence: 0 })
    }

    /// Who answers a packet of `len` bytes, and how soon.
    fn ask(&mut self, len: u16) -> io::Result<Option<(Ipv6Addr, Duration)>> {
        for _ in 0..ATTEMPTS {
            self.sequence += 1;
            let request = echo(ECHO_REQUEST, self.identifier, self.sequence, len);
            let sent = Instant::now();
            self.socket.send_to(&request, &self.to)?;
            if let Some(by) = self.answer(&request, sent + PATIENCE)? {
                return Ok(Some((by, sent.elapsed())));
            }
        }
        Ok(None)
    }

    fn answer(&self, request: &[u8], until: Instant) -> io::Result<Option<Ipv6Addr>> {
        let mut buffer = [0; LONG as usize];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let from = match self.socket.peek_sender() {
                Ok(from) => from,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let len = (&self.socket).read(&mut buffer)?;
            if answers(&buffer[..len], request) {
                return Ok(from.as_socket_ipv6().map(|from| *from.ip()));
            }
        }
    }
}

/// An ICMPv6 message that makes an IPv6 packet of `len` bytes; the kernel fills in its checksum.
fn echo(kind: u8, identifier: u16, sequence: u16, len: u16) -> Vec<u8> {
    let mut message = vec![0; usize::from(len - IPV6_HEADER)];
    message[0] = kind;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    for (at, byte) in message[ICMPV6_HEADER..].iter_mut().enumerate() {
        *byte = at as u8;
    }
    message
}

/// The same identifier, sequence number and data, of the same length (RFC 4443, 4.2).
fn answers(message: &[u8], request: &[u8]) -> bool {
    message.first() == Some(&ECHO_REPLY) && message.get(4..) == request.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7676_3_a_probe_makes_a_packet_of_exactly_so_many_bytes() {
        assert_eq!(echo(ECHO_REQUEST, 0x1234, 5, LONG).len() + 40, 1280);
        let short = echo(ECHO_REQUEST, 0x1234, 5, SHORT);
        assert_eq!(short[..12], [128, 0, 0, 0, 0x12, 0x34, 0, 5, 0, 1, 2, 3]);
        assert_eq!(short.len() + 40, 64);
    }

    #[test]
    fn rfc7676_3_only_the_answer_to_this_very_request_counts() {
        let request = echo(ECHO_REQUEST, 7, 9, LONG);
        let mut answer = echo(ECHO_REPLY, 7, 9, LONG);
        // The checksum.
        answer[2..4].fill(0xa5);
        assert!(answers(&answer, &request));
        assert!(!answers(&request, &request));
        assert!(!answers(&answer[..answer.len() - 1], &request));
        assert!(!answers(&[], &request));
        for (identifier, sequence, len) in [(8, 9, LONG), (7, 8, LONG), (7, 9, SHORT)] {
            assert!(!answers(&echo(ECHO_REPLY, identifier, sequence, len), &request));
        }
        *answer.last_mut().unwrap() ^= 1;
        assert!(!answers(&answer, &request));
    }
}
