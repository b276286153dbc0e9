//! The task in which the slow path runs, apart from the one that follows the kernel: that may be
//! busy with the maps for longer than a buffer lasts.

use std::{
    future, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{sync::mpsc, time::sleep_until};

use super::{
    handle::{PathMtu, SlowPath},
    io::{Arrived, Inputs, Outputs},
    reason::Reason,
    sequence::Sequences,
};
use crate::maps::mapping::Mapping;

/// What the daemon's tasks share.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<SlowPath>>);

impl Shared {
    pub fn new(slow_path: SlowPath) -> Self {
        Self(Arc::new(Mutex::new(slow_path)))
    }

    /// To give it tunnels, or to read its counts. Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, SlowPath> {
        // Counts and tables are right after each step, even of a thread that has died.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deals with packets until it fails or is dropped. `sequences` is the map `SEQUENCES`; each path
/// MTU that has changed is sent to `path_mtus`.
///
/// # Errors
/// What reading fails with.
pub async fn run(
    shared: Shared,
    mut inputs: Inputs,
    mut outputs: Outputs,
    sequences: Mapping,
    path_mtus: mpsc::UnboundedSender<PathMtu>,
) -> io::Result<()> {
    loop {
        let expiry = shared.lock().next_expiry();
        let expired = async {
            match expiry {
                Some(expiry) => sleep_until(expiry.into()).await,
                None => future::pending().await,
            }
        };
        let arrived = tokio::select! {
            arrived = inputs.next() => arrived?,
            () = expired => Arrived::default(),
        };
        let now = Instant::now();
        let mut slow_path = shared.lock();
        slow_path.counts.add_many(Reason::EventsLost, arrived.lost);
        slow_path.counts.add_many(Reason::FrameMalformed, arrived.malformed);
        let mut actions = slow_path.expire(now);
        for input in &arrived.inputs {
            actions.extend(slow_path.handle(input, Sequences(sequences.words64()), now));
        }
        for path_mtu in outputs.carry_out(actions, &mut slow_path.counts) {
            // Nobody listens any more when the daemon is about to end.
            let _ = path_mtus.send(path_mtu);
        }
    }
}
