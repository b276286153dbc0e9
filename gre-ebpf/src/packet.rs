//! The one place that touches packet memory.

use core::ptr;

use aya_ebpf::programs::{TcContext, XdpContext};
use gre_ebpf_common::wire::{
    ethernet::{self, EthernetHeader},
    gre::{self, GreBase},
    ipv4::{self, Ipv4Header},
};

/// The bytes of a packet that can be read directly, and how long the packet is in all.
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
// SAFETY: an array of integers.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an array of integers.
unsafe impl<const N: usize> Plain for [u16; N] {}
// SAFETY: `repr(C)` around seven `u16`.
unsafe impl Plain for EthernetHeader {}
// SAFETY: `repr(C)` around five `u32`.
unsafe impl Plain for Ipv4Header {}
// SAFETY: `repr(C)` around one `u32`.
unsafe impl Plain for GreBase {}

/// Bytes of all headers that are looked at: Ethernet, IPv4, the longest GRE, IPv4.
const HEADERS: u32 =
    (ethernet::HEADER_LEN + ipv4::HEADER_LEN + gre::MAX_LEN + ipv4::HEADER_LEN) as u32;

impl Packet {
    #[inline(always)]
    pub fn of_xdp(ctx: &XdpContext) -> Self {
        let (data, end) = (ctx.data(), ctx.data_end());
        Self { data, end, len: (end - data) as u32 }
    }

    /// Brings the headers together first, should the kernel hold them in pieces.
    #[inline(always)]
    pub fn of_tc(ctx: &TcContext) -> Self {
        let wanted = HEADERS.min(ctx.len());
        if ((ctx.data_end() - ctx.data()) as u32) < wanted {
            // Where this fails for want of memory, reading says that the packet is too short.
            let _ = ctx.pull_data(wanted);
        }
        Self { data: ctx.data(), end: ctx.data_end(), len: ctx.len() }
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
