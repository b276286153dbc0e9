//! The way of a tunnel's outer packets: by the mirror of the kernel's tables, or where those do not tell all, by
//! the kernel's own answer.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Compiler, Hop, PathMtus};
use crate::{
    model::{Desired, Tunnel},
    observed::{Rules, Snapshot},
    rib::Via,
};

/// What the daemon knows besides the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    pub path_mtus: PathMtus,
    pub underlays: Underlays,
}

/// What the kernel has answered; none where no route leads there.
pub type Underlays = BTreeMap<Question, Option<Via>>;

/// By which way do packets go from here to there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    pub remote: IpAddr,
    /// Their source; unspecified is for the kernel to choose.
    pub local: IpAddr,
    /// The interface that they must leave by; 0 is any.
    pub link: u32,
}

impl Question {
    fn of(tunnel: &Tunnel, remote: IpAddr, snapshot: &Snapshot) -> Self {
        Self { remote, local: tunnel.local, link: link_of(tunnel, snapshot).unwrap_or(0) }
    }
}

/// The interface that a tunnel is bound to; one that is not there cannot be sent on.
pub(super) fn link_of(tunnel: &Tunnel, snapshot: &Snapshot) -> Option<u32> {
    let name = tunnel.dev.as_ref()?;
    let link = snapshot.links.values().find(|link| link.name == *name);
    Some(link.map_or(u32::MAX, |link| link.ifindex))
}

/// What has to be asked: rules may lead packets of some sources elsewhere, and of a tunnel that is bound to an
/// interface the best route of all is not always the best one there.
pub fn questions(desired: &Desired, snapshot: &Snapshot) -> Vec<Question> {
    let kernels = super::kernels(desired, snapshot);
    let tunnels = desired.tunnels.values().chain(kernels.values().map(|kernel| &kernel.tunnel));
    let asked = tunnels.filter(|tunnel| {
        let rules = if tunnel.mode.is_over_ipv6() { snapshot.rules6 } else { snapshot.rules };
        !tunnel.remote.is_unspecified() && (rules == Rules::Others || tunnel.dev.is_some())
    });
    asked.map(|tunnel| Question::of(tunnel, tunnel.remote, snapshot)).collect()
}

impl Compiler<'_> {
    /// The next hop of a tunnel's packets to a remote, if any route leads there.
    pub(super) fn underlay(&self, tunnel: &Tunnel, remote: IpAddr) -> Option<Hop> {
        let via = self.via(tunnel, remote)?;
        Some(Hop { ifindex: via.ifindex, ip: via.gateway.unwrap_or(remote), mtu: via.mtu })
    }

    pub(super) fn via(&self, tunnel: &Tunnel, remote: IpAddr) -> Option<Via> {
        let question = Question::of(tunnel, remote, self.snapshot);
        if let Some(answer) = self.known.underlays.get(&question) {
            return *answer;
        }
        self.rib.via(remote).filter(|via| [0, via.ifindex].contains(&question.link))
    }
}
