//! The sockets and buffers of the slow path. What to do is decided elsewhere.

pub mod errors;
pub mod events;
pub mod send;

use std::{
    io,
    time::{Duration, Instant},
};

use tracing::warn;

use self::{
    errors::IcmpErrors,
    events::{Batch, Events},
    send::Sender,
};
use super::{
    handle::{Action, Input, PathMtu},
    reason::{Counts, Reason},
};

/// All that the slow path gets.
pub struct Inputs {
    events: Events,
    icmp_v4: IcmpErrors,
    icmp_v6: Option<IcmpErrors>,
}

impl Inputs {
    /// Must be called in a Tokio runtime with I/O.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open(events: Events) -> io::Result<Self> {
        Ok(Self { events, icmp_v4: IcmpErrors::v4()?, icmp_v6: IcmpErrors::v6()? })
    }

    /// Waits until there is something. Cancelling it loses nothing.
    ///
    /// # Errors
    /// What reading fails with.
    pub async fn next(&mut self) -> io::Result<Arrived> {
        let icmp_v6 = async {
            match &mut self.icmp_v6 {
                Some(errors) => errors.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            batch = self.events.next() => {
                let Batch { packets, lost, malformed } = batch?;
                let inputs = packets.into_iter().map(Input::HandedUp).collect();
                Ok(Arrived { inputs, lost, malformed })
            }
            packet = self.icmp_v4.next() => Ok(Arrived::one(Input::IcmpV4(packet?))),
            message = icmp_v6 => Ok(Arrived::one(Input::IcmpV6(message?))),
        }
    }
}

/// What has come, and how many events of the programs have not.
#[derive(Debug, Default)]
pub struct Arrived {
    pub inputs: Vec<Input>,
    pub lost: u64,
    pub malformed: u64,
}

impl Arrived {
    fn one(input: Input) -> Self {
        Self { inputs: vec![input], ..Self::default() }
    }
}

/// Does what was decided.
pub struct Outputs {
    sender: Sender,
    warned: Option<Instant>,
}

/// At most one line about packets that the kernel did not take in this time.
const QUIET: Duration = Duration::from_secs(10);

impl Outputs {
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        Ok(Self { sender: Sender::open()?, warned: None })
    }

    /// Sends what is to be sent, and returns the path MTUs that have changed. Goes on after an
    /// error, which it counts.
    pub fn carry_out(&mut self, actions: Vec<Action>, counts: &mut Counts) -> Vec<PathMtu> {
        let mut path_mtus = Vec::new();
        for action in actions {
            let sent = match &action {
                Action::Send(packet) => self.sender.send(packet),
                Action::SendFrame { ifindex, frame } => self.sender.send_frame(*ifindex, frame),
                Action::PathMtu(path_mtu) => {
                    path_mtus.push(path_mtu.clone());
                    Ok(())
                }
            };
            if let Err(error) = sent {
                counts.add(Reason::SendFailed);
                self.tell(&error);
            }
        }
        path_mtus
    }

    fn tell(&mut self, error: &io::Error) {
        if self.warned.is_none_or(|at| at.elapsed() > QUIET) {
            self.warned = Some(Instant::now());
            warn!("sending a packet of the slow path: {error}");
        }
    }
}
