//! A steady stream of small datagrams, each of which has a number, to say exactly what was lost.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::namespace::Namespace;

const PORT: u16 = 4747;
/// Of the payload.
const SIZE: usize = 64;
/// How often the sender looks at the clock.
const TICK: Duration = Duration::from_millis(1);
/// The receiver waits so long for the last ones.
const LAST: Duration = Duration::from_millis(500);
/// Seconds of traffic that the receiver may fall behind.
const ROOM: usize = 256 << 20;

/// Under way.
pub struct Steady {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Vec<u64>>>,
    started: Instant,
}

/// What became of it.
#[derive(Debug)]
pub struct Received {
    pub sent: u64,
    /// Numbers of those that did not arrive, from 0.
    pub lost: Vec<u64>,
    /// As sent, in datagrams a second.
    pub rate: f64,
}

impl Steady {
    /// Sends `rate` datagrams a second from one namespace to an address of the other. A sender that has been
    /// kept from it sends no more at once than in any other millisecond: it is then slower, and bursts fill no
    /// queue.
    pub fn start(from: &Namespace, to: &Namespace, address: &str, rate: u32) -> Result<Self> {
        let address = SocketAddr::new(address.parse()?, PORT);
        let receiver = to.within(|| Ok(UdpSocket::bind(address)?))?;
        setsockopt(&receiver, RcvBufForce, &ROOM).context("room for datagrams")?;
        receiver.set_read_timeout(Some(LAST))?;
        let sender = from.within(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        sender.connect(address)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_sender, stop_receiver) = (stop.clone(), stop.clone());
        Ok(Self {
            stop,
            sender: thread::spawn(move || send(&sender, rate, &stop_sender)),
            receiver: thread::spawn(move || receive(&receiver, &stop_receiver)),
            started: Instant::now(),
        })
    }

    pub fn finish(self) -> Result<Received> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender does not panic")?;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut received = self.receiver.join().expect("the receiver does not panic")?;
        received.sort_unstable();
        received.dedup();
        let mut arrived = received.into_iter().peekable();
        let lost = (0..sent).filter(|number| arrived.next_if_eq(number).is_none()).collect();
        Ok(Received { sent, lost, rate: sent as f64 / seconds })
    }
}

fn send(socket: &UdpSocket, rate: u32, stop: &AtomicBool) -> Result<u64> {
    let burst = u64::from(rate / 1000);
    let mut datagram = [0; SIZE];
    let mut number = 0_u64;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..burst {
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            socket.send(&datagram).with_context(|| format!("sending datagram {number}"))?;
            number += 1;
        }
        // The pace of the traffic: nobody waits for anything.
        next = (next + TICK).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(number)
}

/// The numbers of what arrives, until nothing does any more.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<Vec<u64>> {
    let mut datagram = [0; SIZE];
    let mut numbers = Vec::new();
    loop {
        match socket.recv(&mut datagram) {
            Ok(SIZE) => {
                let number = datagram[..8].try_into().expect("eight bytes");
                numbers.push(u64::from_be_bytes(number));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(numbers);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
