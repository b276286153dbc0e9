//! Where a packet leaves, and the Ethernet addresses it leaves with.

use crate::wire::{
    ethernet,
    vlan::{TAG_LEN, Tag},
};

/// Map `NEXT_HOPS`: next hop id to this. All zero is none.
#[repr(C, align(32))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextHop {
    /// Destination and source MAC, 12 bytes in memory order. The destination lies within the first
    /// eight, which the kernel's array update writes at once.
    pub ethernet: [u32; 3],
    /// 0 where no route leads to the next hop.
    pub ifindex: u32,
    /// The longest IP packet, in bytes.
    pub mtu: u32,
    pub flags: Flags,
    /// VLAN tags of its frames, outer first.
    pub tags: [Tag; 2],
}

const _: () = assert!(size_of::<NextHop>() == 32);

#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// The MAC addresses are good.
    pub const RESOLVED: Self = Self(1);
    /// Natively received frames can be redirected out of the interface (NETDEV_XDP_ACT_NDO_XMIT).
    pub const NATIVE_REDIRECT: Self = Self(1 << 1);
    /// Frames in several buffers can be redirected too (NETDEV_XDP_ACT_NDO_XMIT_SG).
    pub const REDIRECT_IN_PIECES: Self = Self(1 << 2);

    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { self }
    }
}

impl NextHop {
    pub const fn new(
        destination: [u8; 6],
        source: [u8; 6],
        ifindex: u32,
        mtu: u32,
        flags: Flags,
    ) -> Self {
        let (d, s) = (destination, source);
        Self {
            ethernet: [
                u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
                u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
                u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
            ],
            ifindex,
            mtu,
            flags,
            tags: [Tag::NONE; 2],
        }
    }

    #[inline(always)]
    pub const fn is_untagged(&self) -> bool {
        self.tags[0].0 | self.tags[1].0 == 0
    }

    /// Bytes of its frames' Ethernet header, VLAN tags included.
    #[inline(always)]
    pub const fn frame_header_len(&self) -> usize {
        ethernet::HEADER_LEN
            + if self.tags[0].0 != 0 { TAG_LEN } else { 0 }
            + if self.tags[1].0 != 0 { TAG_LEN } else { 0 }
    }
}
