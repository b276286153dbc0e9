//! A tunnel as the data plane sees it: one cache line, ready to be written in front of a packet.

use crate::wire::{
    gre::{self, GreBase},
    ipv4::{self, DONT_FRAGMENT, PROTOCOL_GRE},
};

/// Map `TUNNELS`: tunnel id to this. All zero is no tunnel.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tunnel {
    pub flags: Flags,
    /// Index into `NEXT_HOPS`: the underlay's next hop towards the remote.
    pub next_hop: u32,
    /// Index into `NEXT_HOPS`: the way to the tunnel's own device.
    pub device: u32,
    /// Interface index of the tunnel's device.
    pub ifindex: u32,
    /// Key that received packets must carry, in memory order; zero without [`Flags::KEY`].
    pub key: u32,
    /// MTU of the tunnel's device: the longest inner packet, in bytes.
    pub mtu: u16,
    /// Bytes that encapsulation adds: [`ipv4::HEADER_LEN`] and the GRE header.
    pub overhead: u16,
    /// Outer header, in memory order: IPv4 (length, identification and checksum zero), GRE, key.
    pub outer: [u32; OUTER_WORDS],
    reserved: [u32; 3],
}

/// Words of the longest outer header: IPv4, GRE base, key.
pub const OUTER_WORDS: usize = 7;

const _: () = assert!(size_of::<Tunnel>() == 64);

#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// The record is in use and its device is administratively up.
    pub const UP: Self = Self(1);
    /// Packets carry a key, both ways.
    pub const KEY: Self = Self(1 << 1);
    /// `ttl inherit`.
    pub const TTL_INHERIT: Self = Self(1 << 2);
    /// `tos inherit`.
    pub const TOS_INHERIT: Self = Self(1 << 3);
    /// Packets from the tunnel may be forwarded: net.ipv4.conf.TUNNEL.forwarding.
    pub const FORWARDING: Self = Self(1 << 4);
    /// rp_filter is strict on the device: sources must be routed to the tunnel.
    pub const REVERSE_PATH_STRICT: Self = Self(1 << 5);
    /// rp_filter is loose on the device: sources must be routed somewhere.
    pub const REVERSE_PATH_LOOSE: Self = Self(1 << 6);

    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { self }
    }
}

/// What the outer header is made of. Addresses are in memory order, the key in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    pub local: u32,
    pub remote: u32,
    /// 0 inherits.
    pub ttl: u8,
    /// Bit 0 inherits.
    pub tos: u8,
    pub dont_fragment: bool,
    pub key: Option<u32>,
}

impl Tunnel {
    /// A record with the outer header filled in; next hops and state are the caller's.
    pub const fn new(outer: Outer) -> Self {
        let tos = if outer.tos & 1 == 1 { 0 } else { outer.tos };
        let fragment = (if outer.dont_fragment { DONT_FRAGMENT } else { 0 }).to_be_bytes();
        let (gre_flags, key) = match outer.key {
            Some(key) => (gre::KEY, key.to_be()),
            None => (0, 0),
        };
        Self {
            flags: Flags(0)
                .with(Flags::KEY, outer.key.is_some())
                .with(Flags::TTL_INHERIT, outer.ttl == 0)
                .with(Flags::TOS_INHERIT, outer.tos & 1 == 1),
            next_hop: 0,
            device: 0,
            ifindex: 0,
            key,
            mtu: 0,
            overhead: (ipv4::HEADER_LEN + GreBase::new(gre_flags, 0).header_len()) as u16,
            outer: [
                u32::from_ne_bytes([0x45, tos, 0, 0]),
                u32::from_ne_bytes([0, 0, fragment[0], fragment[1]]),
                u32::from_ne_bytes([outer.ttl, PROTOCOL_GRE, 0, 0]),
                outer.local,
                outer.remote,
                GreBase::new(gre_flags, gre::PROTOCOL_IPV4).0,
                key,
            ],
            reserved: [0; 3],
        }
    }

    /// In memory order.
    #[inline(always)]
    pub const fn local(&self) -> u32 {
        self.outer[3]
    }

    /// In memory order.
    #[inline(always)]
    pub const fn remote(&self) -> u32 {
        self.outer[4]
    }

    /// Whether a packet with these outer addresses and this key is the tunnel's.
    #[inline(always)]
    pub const fn accepts(&self, local: u32, remote: u32, key: Option<u32>) -> bool {
        let (has_key, key) = match key {
            Some(key) => (true, key),
            None => (false, 0),
        };
        self.local() == local
            && self.remote() == remote
            && self.flags.has(Flags::KEY) == has_key
            && self.key == key
    }
}
