//! What the service manager is told (sd_notify(3)). Without one there is nobody to tell, which is no error.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The least time between two signs of life. The unit's WatchdogSec is many of these.
const BEAT: Duration = Duration::from_millis(500);
/// How long a start may take from its last sign of life on, in microseconds.
const START: u32 = 60_000_000;

/// The daemon as a service.
pub(super) struct Service {
    starting: bool,
    beat: Option<Instant>,
    status: String,
}

impl Service {
    pub(super) fn starting() -> Self {
        Self { starting: true, beat: None, status: String::new() }
    }

    /// The data plane is as the config says.
    pub(super) fn ready(&mut self, status: &str) {
        self.starting = false;
        tell(&[NotifyState::Ready]);
        self.status(status);
    }

    /// Where the daemon's one task calls this, it gets on: in its loop, and between the steps of what
    /// takes long.
    pub(super) fn alive(&mut self) {
        if self.beat.is_some_and(|beat| beat.elapsed() < BEAT) {
            return;
        }
        self.beat = Some(Instant::now());
        tell(&[if self.starting {
            NotifyState::ExtendTimeoutUsec(START)
        } else {
            NotifyState::Watchdog
        }]);
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            tell(&[NotifyState::Status(status)]);
            status.clone_into(&mut self.status);
        }
    }

    pub(super) fn reloading(&self) {
        // systemd 253 and later take no such message without the time.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    pub(super) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
