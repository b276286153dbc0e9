//! A BPF array mapped into the daemon: read and written without a system call.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::MapData;
use gre_ebpf_common::pod::{Plain, from_words, to_words};
use memmap2::{MmapMut, MmapOptions};

/// The values of an mmapable BPF array, one behind the other; each is a multiple of 8 bytes long.
pub struct Mapping(MmapMut);

impl Mapping {
    /// Maps all of `map`, whose values take `len` bytes together.
    pub fn of_map(map: &MapData, len: usize) -> io::Result<Self> {
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: the memory is shared with the programs and is only ever accessed through the
        // atomics below, so that a change under the daemon's eyes is no data race.
        unsafe { MmapOptions::new().len(len).map_mut(fd) }.map(Self)
    }

    /// Memory of the daemon's own, all zero, for tables that no program reads.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        MmapMut::map_anon(len).map(Self)
    }

    /// The value at `index`.
    pub fn load<T: Plain>(&self, index: u32) -> T {
        let words: Vec<u64> =
            self.value::<T>(index).iter().map(|word| word.load(Ordering::Acquire)).collect();
        from_words(&words)
    }

    /// Writes the value at `index`, word by word in ascending order.
    pub fn store<T: Plain>(&self, index: u32, value: &T) {
        let mut words = vec![0; T::WORDS];
        to_words(value, &mut words);
        for (slot, word) in self.value::<T>(index).iter().zip(words) {
            slot.store(word, Ordering::Release);
        }
    }

    fn value<T: Plain>(&self, index: u32) -> &[AtomicU64] {
        let start = index as usize * T::WORDS;
        &self.words64()[start..start + T::WORDS]
    }

    pub fn words32(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is page aligned, lives as long as `self`, and is accessed through
        // atomics alone; every pattern of bits is an `AtomicU32`.
        let (before, words, _) = unsafe { self.0.align_to::<AtomicU32>() };
        assert!(before.is_empty(), "a mapping starts on a page");
        words
    }

    pub fn words64(&self) -> &[AtomicU64] {
        // SAFETY: as in `words32`.
        let (before, words, _) = unsafe { self.0.align_to::<AtomicU64>() };
        assert!(before.is_empty(), "a mapping starts on a page");
        words
    }
}
