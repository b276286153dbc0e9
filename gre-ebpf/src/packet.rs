//! The one place that touches packet memory.

use core::ptr;

use aya_ebpf::programs::{TcContext, XdpContext};
use gre_ebpf_common::wire::{
    ethernet::{self, EthernetHeader},
    gre::{self, GreBase},
    ipv4::Ipv4Header,
    ipv6::{self, Ipv6Header},
};

/// The bytes of a packet that can be read directly, and how long the packet is in all.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    end: usize,
    len: u32,
}

/// Types of which every pattern of bits is a value, and which have no padding.
///
/// # Safety
/// Both must be true of the type.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an array of such.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: `repr(C)` around seven `u16`.
unsafe impl Plain for EthernetHeader {}
// SAFETY: `repr(C)` around five `u32`.
unsafe impl Plain for Ipv4Header {}
// SAFETY: `repr(C)` around ten `u32`.
unsafe impl Plain for Ipv6Header {}
// SAFETY: `repr(C)` around one `u32`.
unsafe impl Plain for GreBase {}

/// Bytes of Ethernet and an IP header.
pub const INNER: u32 = (ethernet::HEADER_LEN + ipv6::HEADER_LEN) as u32;
/// Bytes of all headers before and in a tunnel: Ethernet, IP, the longest GRE, IP.
pub const OUTER_AND_INNER: u32 = INNER + (gre::MAX_LEN + ipv6::HEADER_LEN) as u32;

impl Packet {
    #[inline(always)]
    pub fn of_xdp(ctx: &XdpContext) -> Self {
        let (data, end) = (ctx.data(), ctx.data_end());
        Self { data, end, len: (end - data) as u32 }
    }

    /// Brings the first `wanted` bytes together, should the kernel hold them in pieces.
    #[inline(always)]
    pub fn of_tc(ctx: &TcContext, wanted: u32) -> Self {
        let wanted = wanted.min(ctx.len());
        if ((ctx.data_end() - ctx.data()) as u32) < wanted {
            // Where this fails for want of memory, reading says that the packet is too short.
            let _ = ctx.pull_data(wanted);
        }
        Self { data: ctx.data(), end: ctx.data_end(), len: ctx.len() }
    }

    /// The bytes between two addresses of a packet.
    #[inline(always)]
    pub fn between(data: usize, end: usize) -> Self {
        Self { data, end, len: 0 }
    }

    /// Address of the byte at `offset` and of the end, for [`Self::between`].
    #[inline(always)]
    pub fn span(&self, offset: usize) -> (usize, usize) {
        // SAFETY: as in `at`.
        (unsafe { self.data.unchecked_add(offset) }, self.end)
    }

    /// Bytes, the part that cannot be read directly included.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn at<T: Plain>(&self, offset: usize) -> Option<*mut T> {
        // SAFETY: a packet lies well below the end of the address space, and headers are short. Told
        // so, the compiler leaves out the checks that an earlier one implies.
        let start = unsafe { self.data.unchecked_add(offset) };
        let end = unsafe { start.unchecked_add(size_of::<T>()) };
        if end > self.end {
            return None;
        }
        Some(start as *mut T)
    }

    /// Reads at `offset` bytes from the start, if the packet is that long.
    #[inline(always)]
    pub fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked that all of it lies in the packet, and any bits are a `T`. The
        // verifier checks both again.
        self.at(offset).map(|pointer| unsafe { ptr::read_unaligned(pointer) })
    }

    /// Writes words at `offset` bytes from the start, if the packet is that long: one store each,
    /// since a copy of the whole array would become a call to a loop over its bytes.
    #[inline(always)]
    pub fn write<T: Plain, const N: usize>(&self, offset: usize, words: [T; N]) -> Option<()>
    where
        [T; N]: Plain,
    {
        let pointer = self.at::<[T; N]>(offset)?.cast::<T>();
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: `at` has checked that all of it lies in the packet, which the program may
            // write; a `T` has no padding to leak. The verifier checks it again.
            unsafe { ptr::write_unaligned(pointer.add(i), word) };
        }
        Some(())
    }
}
