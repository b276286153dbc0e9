//! An interface that the programs run on.

use crate::wire::ethernet::Mac;

/// Map `PORTS`: interface index to this. All zero is no port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Port {
    /// Zeros for a bridge's member, to which nothing is addressed: what is, goes to the bridge.
    pub mac: Mac,
    pub flags: Flags,
    /// The tunnel whose device this is, plus one; 0 for a port.
    tunnel: u32,
    /// Its own interface index, that of the VLAN device for tagged frames.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Port>() == 16);

#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The entry is in use.
    pub const VALID: Self = Self(1);
    /// net.ipv4.conf.IF.forwarding
    pub const FORWARDING: Self = Self(1 << 1);
    /// XDP runs in generic mode, from which any interface can be redirected to.
    pub const GENERIC: Self = Self(1 << 2);
    /// rp_filter is strict: sources must be routed out of the port.
    pub const REVERSE_PATH_STRICT: Self = Self(1 << 3);
    /// rp_filter is loose: sources must be routed somewhere.
    pub const REVERSE_PATH_LOOSE: Self = Self(1 << 4);
    /// net.ipv6.conf.IF.forwarding
    pub const FORWARDING6: Self = Self(1 << 5);
    /// A tunnel is bound to this interface.
    pub const TUNNEL_BOUND: Self = Self(1 << 6);
    /// The other end of a tunnel's device: what arrives on it the device has sent, cut to its MTU
    /// and with its checksums done.
    pub const PEER: Self = Self(1 << 7);
    /// A bridge's member that `BRIDGE_MEMBERS` has: the bridge's frames arrive on it.
    pub const BRIDGED: Self = Self(1 << 8);

    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { self }
    }
}

impl Port {
    /// An interface that frames arrive on.
    pub const fn new(mac: [u8; 6], flags: Flags, ifindex: u32) -> Self {
        Self {
            mac: Mac::from_bytes(mac),
            flags: flags.with(Flags::VALID, true),
            tunnel: 0,
            ifindex,
        }
    }

    /// The device of a tunnel, where the kernel sends what it routes into the tunnel.
    pub const fn device_of(tunnel: u32, ifindex: u32) -> Self {
        Self { mac: Mac::from_bytes([0; 6]), flags: Flags::VALID, tunnel: tunnel + 1, ifindex }
    }

    /// The other end of a tunnel's device.
    pub const fn peer_of(tunnel: u32, ifindex: u32) -> Self {
        let device = Self::device_of(tunnel, ifindex);
        Self { flags: Flags::VALID.with(Flags::PEER, true), ..device }
    }

    /// The id of the tunnel whose device this is, or an id that none has.
    #[inline(always)]
    pub const fn tunnel(&self) -> u32 {
        self.tunnel.wrapping_sub(1)
    }
}

/// An id of no tunnel.
const NO_TUNNEL: u32 = u32::MAX;

const _: () = assert!(Port::new([0; 6], Flags(0), 1).tunnel() == NO_TUNNEL);
