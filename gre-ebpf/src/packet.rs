//! The one place that touches packet memory.

use core::ptr;

use aya_ebpf::{
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    checksum::fold,
    outcome::Outcome,
    wire::{
        ethernet::{self, EthernetHeader},
        gre::{self, GreBase},
        ipv4::{self, Ipv4Header},
        ipv6::{self, Ipv6Header},
    },
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
// SAFETY: an integer.
unsafe impl Plain for u64 {}
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
/// Bytes of an IP header, and of what is read of TCP's.
pub const INNER_HEADERS: u32 = ipv6::HEADER_LEN as u32 + 20;

/// Bytes of all that the programs read of a packet that comes in pieces: drivers put more into the first.
const FIRST_PIECE: usize = 256;

impl Packet {
    /// The first piece of a packet, which is mostly all of it.
    #[inline(always)]
    pub fn of_xdp(ctx: &XdpContext) -> Self {
        let (data, end) = (ctx.data(), ctx.data_end());
        Self { data, end, len: (end - data) as u32 }
    }

    /// A packet of which only the first piece can be read directly: a jumbo frame, which drivers receive
    /// into several buffers.
    #[inline(always)]
    pub fn in_pieces(ctx: &XdpContext) -> Result<Self, Outcome> {
        // SAFETY: the context is the program's own.
        let len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
        let packet = Self { len, ..Self::of_xdp(ctx) };
        if packet.is_in_pieces() && packet.end - packet.data < FIRST_PIECE {
            return Err(Outcome::InPieces);
        }
        Ok(packet)
    }

    #[inline(always)]
    pub fn is_in_pieces(&self) -> bool {
        self.len != (self.end - self.data) as u32
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

    /// The same without its first `offset` bytes.
    #[inline(always)]
    pub fn from_offset(&self, offset: usize) -> Self {
        // SAFETY: as in `at`.
        Self { data: unsafe { self.data.unchecked_add(offset) }, ..*self }
    }

    /// The one's complement sum of the IPv4 header at `offset`, which is `len` bytes long.
    #[inline(always)]
    pub fn sum_words(&self, offset: usize, len: usize) -> Option<u16> {
        let mut sum = 0;
        for word in 0..ipv4::LONGEST / 4 {
            if word * 4 >= len {
                break;
            }
            sum += u64::from(self.read::<u32>(offset + word * 4)?);
        }
        Some(fold(sum))
    }

    /// Where `N` bytes from `offset` on are, for a helper to read.
    #[inline(always)]
    pub fn address<const N: usize>(&self, offset: usize) -> Option<*mut u32> {
        self.at::<[u8; N]>(offset).map(|bytes| bytes.cast())
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
