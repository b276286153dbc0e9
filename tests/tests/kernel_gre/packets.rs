//! Pings and TCP streams from sockets of this process, which a guest's processor makes many of in the
//! time that it takes to start one program.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::{
    namespace::Namespace,
    topology::{like_wire, wire},
};

/// For what takes milliseconds, in an emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
const STREAM: usize = 256 * 1024;

/// An echo request, every byte of it.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    pub source: IpAddr,
    pub target: IpAddr,
    /// Of the whole packet, IP header included.
    pub size: usize,
    /// IPv4's; of IPv6 no router fragments a packet.
    pub dont_fragment: bool,
    pub tos: u8,
    pub ttl: u8,
    /// Tells this ping's answer from others'.
    pub number: u16,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Reply,
    /// ICMP's "fragmentation needed" or "packet too big", and the MTU that it says.
    TooBig(u32),
}

/// Sockets in a namespace that send and receive pings of one IP version.
pub struct Pinger {
    sender: Socket,
    receiver: Socket,
}

impl Pinger {
    pub fn new(namespace: &Namespace, version: &IpAddr) -> Result<Self> {
        let (domain, icmp) = match version {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        namespace.within(|| {
            // IPPROTO_RAW: the IP header is ours.
            let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
            let receiver = Socket::new(domain, Type::RAW, Some(icmp))?;
            receiver.set_recv_buffer_size(1 << 20)?;
            Ok(Self { sender, receiver })
        })
    }

    /// The answer; that there is none is an error.
    pub fn ping(&self, echo: &Echo) -> Result<Answer> {
        let answer = self.answer(echo, PATIENCE)?;
        answer.with_context(|| format!("no answer within {PATIENCE:?}"))
    }

    /// The answer, if there is one soon enough.
    pub fn answer(&self, echo: &Echo, within: Duration) -> Result<Option<Answer>> {
        let mut buffer = [0; 65536];
        // What others have sent here since; too much of it would leave no room for the answer.
        self.receiver.set_nonblocking(true)?;
        while (&self.receiver).read(&mut buffer).is_ok() {}
        self.receiver.set_nonblocking(false)?;
        let target = SocketAddr::new(echo.target, 0);
        let sent = self.sender.send_to(&echo.packet(), &target.into());
        sent.with_context(|| format!("sending {echo:?}"))?;
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.receiver.set_read_timeout(Some(left))?;
            let length = match (&self.receiver).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            if let Some(answer) = echo.answered_by(&buffer[..length]) {
                return Ok(Some(answer));
            }
        }
    }
}

impl Echo {
    fn packet(&self) -> Vec<u8> {
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let flags = if self.dont_fragment { 0x40 } else { 0 };
                let length = u16::try_from(self.size).expect("a packet's size").to_be_bytes();
                // An identification that is not 0 is kept.
                let [id0, id1] = (self.number | 0x8000).to_be_bytes();
                let mut packet =
                    vec![0x45, self.tos, length[0], length[1], id0, id1, flags, 0, self.ttl, 1];
                packet.extend([0, 0]);
                packet.extend(source.octets());
                packet.extend(target.octets());
                let sum = checksum(&packet).to_be_bytes();
                packet[10..12].copy_from_slice(&sum);
                packet.extend(self.message(8, 20, &[]));
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let length = u16::try_from(self.size - 40).expect("a packet's size").to_be_bytes();
                let mut packet =
                    vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0, length[0], length[1], 58];
                packet.push(self.ttl);
                let addresses = [source.octets(), target.octets()].concat();
                packet.extend(&addresses);
                let mut pseudo = addresses;
                pseudo.extend([0, 0, length[0], length[1], 0, 0, 0, 58]);
                packet.extend(self.message(128, 40, &pseudo));
                packet
            }
            _ => panic!("source and target are of one IP version"),
        }
    }

    /// The ICMP message behind a header of some bytes.
    fn message(&self, kind: u8, header: usize, pseudo: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.number.to_be_bytes());
        message.extend([0, 1]);
        message.extend((0..self.size - header - 8).map(|index| (index % 251) as u8));
        let sum = checksum(&[pseudo, &message].concat()).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        message
    }

    /// Whether a received message is an answer to this; IPv4's have their IP header.
    fn answered_by(&self, received: &[u8]) -> Option<Answer> {
        let number = self.number.to_be_bytes();
        let (message, quoted, [reply, too_big], code, mtu) = match self.target {
            IpAddr::V4(target) => {
                let message = received.get(usize::from(received.first()? & 15) * 4..)?;
                let mtu = message.get(6..8)?;
                let mtu = u32::from(u16::from_be_bytes(mtu.try_into().ok()?));
                (message, (16 + 8, target.octets().to_vec()), [0, 3], 4, mtu)
            }
            IpAddr::V6(target) => {
                let mtu = u32::from_be_bytes(received.get(4..8)?.try_into().ok()?);
                (received, (24 + 8, target.octets().to_vec()), [129, 2], 0, mtu)
            }
        };
        if message[0] == reply && message.get(4..6)? == number {
            return Some(Answer::Reply);
        }
        let (at, target) = quoted;
        let of_this = message.get(at..at + target.len())? == target;
        (message[0] == too_big && message[1] == code && of_this).then_some(Answer::TooBig(mtu))
    }
}

/// The Internet checksum (RFC 1071); of data with its checksum in place it is 0.
pub fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in data.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A TCP stream of 256 KiB from one address to another, each of its namespace; all of it must arrive
/// as it was sent.
pub fn stream(from: (&Namespace, IpAddr), to: (&Namespace, IpAddr)) -> Result<()> {
    // Of this port tshark makes no guess what is in the stream.
    let server = socket(to, 5201)?;
    server.listen(1)?;
    let target = server.local_addr()?;
    let client = socket(from, 0)?;
    client.connect_timeout(&target, PATIENCE).context("connecting")?;
    let (accepted, _) = server.accept()?;
    for socket in [&client, &accepted] {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
    }
    let sent: Vec<u8> = (0..STREAM).map(|index| (index * 7 + index / 251) as u8).collect();
    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<Vec<u8>> {
            let mut received = Vec::with_capacity(STREAM);
            (&accepted).read_to_end(&mut received).context("receiving")?;
            Ok(received)
        });
        (&client).write_all(&sent).context("sending")?;
        client.shutdown(Shutdown::Write)?;
        reader.join().expect("the reader does not panic")
    })?;
    ensure!(received == sent, "{} of {STREAM} bytes arrived, or others", received.len());
    Ok(())
}

fn socket((namespace, address): (&Namespace, IpAddr), port: u16) -> Result<Socket> {
    namespace.within(|| {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A stream before this one may still linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into()).with_context(|| format!("binding to {address}"))?;
        Ok(socket)
    })
}

/// The instruments themselves, without GRE: on any kernel.
#[test]
fn pings_and_streams_of_either_version_arrive() -> Result<()> {
    let [a, b] = [Namespace::new("a")?, Namespace::new("b")?];
    wire((&a, "eth0"), (&b, "eth0"))?;
    for (namespace, number) in [(&a, 1), (&b, 2)] {
        like_wire(namespace, "eth0")?;
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 0)?;
        namespace.ip(&format!("addr add 192.0.2.{number}/24 dev eth0"))?;
        namespace.ip(&format!("addr add 2001:db8::{number}/64 dev eth0 nodad"))?;
    }
    for addresses in [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]] {
        let [source, target] = [addresses[0].parse()?, addresses[1].parse()?];
        let pinger = Pinger::new(&a, &source)?;
        for (number, size) in [(1, 84), (2, 85), (3, 1500)] {
            let echo =
                Echo { source, target, size, dont_fragment: true, tos: 0xb9, ttl: 3, number };
            ensure!(pinger.ping(&echo)? == Answer::Reply, "{echo:?}");
        }
        stream((&a, source), (&b, target))?;
    }
    Ok(())
}
