//! Bridges as the data plane sees them: which of its members an address is behind, mirrored from the
//! kernel's forwarding database.
//!
//! A frame is forwarded here only if the bridge has learned both its addresses, the source behind
//! the member that it came in on. Whatever else there is goes through the kernel's bridge: unknown
//! and moved addresses, broadcast, multicast, and control frames. So does one frame of each source
//! per [`Member::refresh`], which keeps the kernel's entry from ageing out.

use crate::wire::ethernet::Mac;

/// Map `BRIDGE_MEMBERS`: interface index of a bridge's member to this. All zero is no member, or one
/// whose frames only the kernel forwards.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// The bridge's interface index.
    pub bridge: u32,
    /// VLAN of untagged frames where the bridge filters VLANs; 0 is none, and such frames are the
    /// kernel's.
    pub pvid: u16,
    pub flags: Flags,
    /// Milliseconds after which the kernel must see a frame of a source again.
    pub refresh: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Member>() == 16);

#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The bridge filters VLANs: addresses are learned for each VLAN apart. Otherwise all are of VLAN
    /// 0, and tags are carried like any data.
    pub const FILTERS_VLANS: Self = Self(1);

    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

impl Member {
    pub const fn new(bridge: u32, pvid: u16, flags: Flags, refresh: u32) -> Self {
        Self { bridge, pvid, flags, refresh, reserved: 0 }
    }

    #[inline(always)]
    pub const fn filters_vlans(&self) -> bool {
        self.flags.has(Flags::FILTERS_VLANS)
    }
}

/// Map `FDB`: what is looked up. No padding.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address {
    /// The bridge's interface index.
    pub bridge: u32,
    /// 0 where the bridge does not filter VLANs.
    pub vlan: u16,
    pub mac: Mac,
    reserved: u32,
}

const _: () = assert!(size_of::<Address>() == 16);

impl Address {
    #[inline(always)]
    pub const fn new(bridge: u32, vlan: u16, mac: Mac) -> Self {
        Self { bridge, vlan, mac, reserved: 0 }
    }
}

/// Map `FDB`: where an address is. Its member forwards, and is of the VLAN.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Station {
    /// The member's interface index.
    pub member: u32,
    /// The tunnel whose device the member is, plus one; 0 for a port.
    tunnel: u32,
    /// Index into `NEXT_HOPS`: the way out of a port, whose MAC addresses do not count. Of a tunnel
    /// it is the way to its device.
    pub next_hop: u32,
    /// Frames of the VLAN leave the member without a tag; only where the bridge filters VLANs.
    pub untagged: u32,
    /// When the kernel must see a frame from here again, in nanoseconds of CLOCK_MONOTONIC. Written by
    /// the programs; the daemon writes 0, which is now.
    pub refresh_at: u64,
}

const _: () = assert!(size_of::<Station>() == 24);

impl Station {
    pub const fn behind_port(member: u32, next_hop: u32, untagged: bool) -> Self {
        Self { member, tunnel: 0, next_hop, untagged: untagged as u32, refresh_at: 0 }
    }

    pub const fn behind_tunnel(member: u32, tunnel: u32, device: u32, untagged: bool) -> Self {
        let port = Self::behind_port(member, device, untagged);
        Self { tunnel: tunnel + 1, ..port }
    }

    #[inline(always)]
    pub const fn tunnel(&self) -> Option<u32> {
        self.tunnel.checked_sub(1)
    }
}

/// Map `BRIDGES_UNTIL`: one word, up to when the daemon vouches for the mirror, in nanoseconds of
/// CLOCK_MONOTONIC. Later, which is without a daemon, the kernel forwards all frames.
pub type Until = u64;
