//! VRFs. What comes in on a member of one is routed by its own table, and that is not mirrored.

use std::{fmt, iter::successors};

use super::Compiler;
use crate::observed::{Link, Snapshot};

/// How deep the kernel lets links be members of each other (MAX_NEST_DEV).
const DEPTH: usize = 8;

/// A link and the VRF that decides about its packets.
pub(super) struct Membership<'a> {
    link: &'a Link,
    vrf: &'a Link,
}

impl fmt::Display for Membership<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, vrf } = self;
        write!(f, "{} is in VRF {}, whose table xgre does not mirror", link.name, vrf.name)
    }
}

pub fn is_vrf(link: &Link) -> bool {
    link.kind.as_deref() == Some("vrf")
}

impl<'a> Compiler<'a> {
    /// The VRF of a link, or of the bridge or bond that it belongs to.
    pub(super) fn vrf_of(&self, link: &'a Link) -> Option<Membership<'a>> {
        let snapshot: &Snapshot = self.snapshot;
        let masters = successors(Some(link), |link| snapshot.links.get(&link.master?));
        let vrf = masters.skip(1).take(DEPTH).find(|master| is_vrf(master))?;
        Some(Membership { link, vrf })
    }

    /// The first port or tunnel's device that is in a VRF.
    pub(super) fn vrf_of_any(&self) -> Option<Membership<'a>> {
        let ports = self.ports.keys().filter_map(|ifindex| self.snapshot.links.get(ifindex));
        let devices = self.devices.values().map(|device| device.link);
        ports.chain(devices).find_map(|link| self.vrf_of(link))
    }

    /// Any VRF of the namespace.
    pub(super) fn a_vrf(&self) -> Option<&'a Link> {
        self.snapshot.links.values().find(|link| is_vrf(link))
    }
}
