//! The kernel's links, addresses, routes, neighbours and rules, read whole, and the changes that
//! the daemon makes to them. All of it concerns the network namespace of the calling process.

mod addresses;
mod changes;
mod error;
mod features;
mod links;
mod neighbours;
mod routes;
mod rules;
pub(crate) mod socket;

use std::io;

use crate::observed::Snapshot;

pub use self::error::{DumpFault, NetlinkError};
pub(crate) use self::features::management_group;

/// A connection to the kernel; cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    handle: rtnetlink::Handle,
}

impl Kernel {
    /// Opens the connection for changes; the runtime's background task serves it.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetlinkError::Socket { purpose: "for changes", source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// When a table cannot be read whole after several attempts.
    pub async fn snapshot(&self) -> Result<Snapshot, NetlinkError> {
        let mut snapshot = Snapshot::default();
        for class in Class::ALL {
            self.read(class, &mut snapshot).await?;
        }
        Ok(snapshot)
    }

    /// Reads one class of things anew.
    pub(crate) async fn read(
        &self,
        class: Class,
        snapshot: &mut Snapshot,
    ) -> Result<(), NetlinkError> {
        match class {
            Class::Links => {
                let mut links = links::read().await?;
                if let Some(features) = features::read().await? {
                    for link in links.values_mut() {
                        link.xdp_features = Some(features.get(&link.ifindex).copied().unwrap_or(0));
                    }
                }
                snapshot.links = links;
            }
            Class::Addresses => snapshot.addresses = addresses::read().await?,
            Class::Routes => snapshot.routes = routes::read().await?,
            Class::Neighbours => snapshot.neighbours = neighbours::read().await?,
            Class::Rules => snapshot.custom_rules = rules::are_custom().await?,
        }
        Ok(())
    }
}

/// What is read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Links,
    Addresses,
    Routes,
    Neighbours,
    Rules,
}

impl Class {
    pub(crate) const ALL: [Self; 5] =
        [Self::Links, Self::Addresses, Self::Routes, Self::Neighbours, Self::Rules];
}

/// net.ipv4.conf.all.rp_filter of the calling task's namespace.
fn rp_filter_of_all() -> io::Result<u8> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter")?;
    text.trim().parse().map_err(io::Error::other)
}
