//! Follows the kernel: after every change a new snapshot, read whole for each class of things that
//! the change concerns. Where anything is in doubt, everything is read again.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use nix::libc;
use tokio::{
    sync::watch,
    time::{sleep, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    netlink::{
        Class, Kernel, NetlinkError, management_group,
        socket::{Socket, messages},
    },
    observed::Snapshot,
};

/// Room for notifications while the daemon is busy, in bytes.
const RECEIVE_BUFFER: usize = 16 << 20;
/// After the first notification of a burst the rest is waited for no longer than this.
const BURST: Duration = Duration::from_millis(5);
/// After notifications were lost everything is read again, but no more often than this.
const RESYNC_PAUSE: Duration = Duration::from_secs(1);

/// RTNLGRP_* (linux/rtnetlink.h): links, neighbours, IPv4 addresses, routes, rules and settings.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 8, 24];

/// Starts following. The receiver holds a snapshot from the start, and sees each that differs from
/// the one before.
///
/// # Errors
/// When the kernel gives no socket or cannot be read.
pub async fn watch(kernel: &Kernel) -> Result<watch::Receiver<Arc<Snapshot>>, NetlinkError> {
    // Listening comes first: what changes while the snapshot is read is then read again.
    let route = listen(NETLINK_ROUTE, &GROUPS)?;
    let management: Vec<u32> = management_group().await?.into_iter().collect();
    let generic = listen(NETLINK_GENERIC, &management)?;
    let snapshot = kernel.snapshot().await?;
    let (sender, receiver) = watch::channel(Arc::new(snapshot));
    let follower = Follower { kernel: kernel.clone(), route, generic, sender, lost: None };
    tokio::spawn(follower.run());
    Ok(receiver)
}

fn listen(protocol: isize, groups: &[u32]) -> Result<Socket, NetlinkError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::open(protocol)?;
        socket.set_receive_buffer(RECEIVE_BUFFER)?;
        for group in groups {
            socket.join(*group)?;
        }
        Ok(socket)
    };
    open().map_err(|source| NetlinkError::Socket { purpose: "for notifications", source })
}

struct Follower {
    kernel: Kernel,
    route: Socket,
    generic: Socket,
    sender: watch::Sender<Arc<Snapshot>>,
    /// When notifications were last lost.
    lost: Option<Instant>,
}

impl Follower {
    async fn run(mut self) {
        while !self.sender.is_closed() {
            let classes = self.burst().await;
            self.publish(classes).await;
        }
    }

    /// Waits for a notification and gathers those that follow on its heels.
    async fn burst(&mut self) -> BTreeSet<Class> {
        let mut classes = self.next().await;
        let end = tokio::time::Instant::now() + BURST;
        while let Ok(more) = timeout_at(end, self.next()).await {
            classes.extend(more);
        }
        classes
    }

    /// The classes that the next datagram concerns.
    async fn next(&mut self) -> BTreeSet<Class> {
        let result = tokio::select! {
            result = self.route.receive() => result.and_then(route_classes),
            // The management group only tells of XDP features.
            result = self.generic.receive() => result.map(|_| BTreeSet::from([Class::Links])),
            () = self.sender.closed() => Ok(BTreeSet::new()),
        };
        match result {
            Ok(classes) => classes,
            Err(error) => self.resync(&error).await,
        }
    }

    /// Something was lost or not understood: all must be read again.
    async fn resync(&mut self, error: &io::Error) -> BTreeSet<Class> {
        let overrun = error.raw_os_error() == Some(libc::ENOBUFS);
        let pause =
            self.lost.map_or(Duration::ZERO, |lost| RESYNC_PAUSE.saturating_sub(lost.elapsed()));
        if pause.is_zero() {
            warn!(%error, overrun, "lost track of the kernel's changes; reading everything again");
        } else {
            sleep(pause).await;
        }
        self.lost = Some(Instant::now());
        Class::ALL.into()
    }

    async fn publish(&mut self, mut classes: BTreeSet<Class>) {
        loop {
            let mut snapshot = Snapshot::clone(&self.sender.borrow());
            match self.reread(&classes, &mut snapshot).await {
                Ok(()) => {
                    self.sender.send_if_modified(|current| {
                        let differs = **current != snapshot;
                        if differs {
                            *current = Arc::new(snapshot);
                        }
                        differs
                    });
                    return;
                }
                Err(error) => {
                    warn!("{error}; trying again");
                    sleep(RESYNC_PAUSE).await;
                    classes = Class::ALL.into();
                }
            }
        }
    }

    async fn reread(
        &self,
        classes: &BTreeSet<Class>,
        snapshot: &mut Snapshot,
    ) -> Result<(), NetlinkError> {
        debug!(?classes, "reading");
        for class in classes {
            self.kernel.read(*class, snapshot).await?;
        }
        Ok(())
    }
}

/// The classes that the messages of a datagram concern.
fn route_classes(datagram: &[u8]) -> io::Result<BTreeSet<Class>> {
    let mut classes = BTreeSet::new();
    for message in messages(datagram) {
        let message = message.map_err(io::Error::other)?;
        classes.extend(concerned(message.message_type()));
    }
    Ok(classes)
}

/// What a message type (RTM_*, linux/rtnetlink.h) means for the snapshot. A link that goes down and
/// an address that goes take routes with them of which the kernel says nothing.
fn concerned(message_type: u16) -> &'static [Class] {
    match message_type {
        // RTM_NEWLINK, RTM_DELLINK
        16 | 17 => &[Class::Links, Class::Addresses, Class::Routes, Class::Neighbours],
        // RTM_NEWADDR, RTM_DELADDR
        20 | 21 => &[Class::Addresses, Class::Routes],
        // RTM_NEWROUTE, RTM_DELROUTE
        24 | 25 => &[Class::Routes],
        // RTM_NEWNEIGH, RTM_DELNEIGH
        28 | 29 => &[Class::Neighbours],
        // RTM_NEWRULE, RTM_DELRULE
        32 | 33 => &[Class::Rules],
        // RTM_NEWNETCONF, RTM_DELNETCONF: forwarding and rp_filter, which links carry.
        80 | 81 => &[Class::Links],
        // Not understood: anything may have changed.
        _ => &Class::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_leads_to_reading_what_it_may_have_changed() {
        assert_eq!(concerned(24), [Class::Routes]);
        assert_eq!(concerned(29), [Class::Neighbours]);
        assert_eq!(concerned(80), [Class::Links]);
        assert!(concerned(17).contains(&Class::Routes), "a link's routes go without notice");
        assert!(concerned(21).contains(&Class::Routes), "an address's routes go without notice");
        assert_eq!(concerned(9999), Class::ALL);
    }
}
