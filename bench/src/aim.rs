//! What is sent: one packet, and where each goes. Laid out as `bench/c/aim.h` has it.

use std::{net::Ipv4Addr, sync::atomic::Ordering};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use gre_ebpf_common::checksum;
use gre_userspace::maps::mapping::Mapping;

/// Bytes at the start of a packet that are written anew each time: more than all headers.
const TEMPLATE: usize = 96;
/// Bytes of the template with what is said about it, and where the turn is in it.
const TEMPLATE_LEN: usize = 136;
const TURN: usize = 132;
/// Bytes of a target, and how many there can be.
const TARGET_LEN: usize = 16;
pub const TARGETS: u32 = 1 << 20;

/// A packet.
#[derive(Clone)]
pub struct Shape {
    pub frame: Vec<u8>,
    /// Where its inner IPv4 header starts, which may be the only one.
    pub inner: usize,
    /// Where the outer one does.
    pub outer: Option<usize>,
    /// Where the last two bytes are of the MAC address that it is bridged to.
    pub station: Option<usize>,
}

/// Where one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub destination: Ipv4Addr,
    /// The outer header's source: the tunnel's remote end.
    pub source: Ipv4Addr,
    /// The last two bytes of the MAC address.
    pub station: u16,
}

impl Shape {
    /// Where the packet goes as it is.
    pub fn target(&self) -> Target {
        let address = |at: usize| {
            let bytes: [u8; 4] = self.frame[at..][..4].try_into().expect("four bytes");
            Ipv4Addr::from(bytes)
        };
        Target {
            destination: address(self.inner + 16),
            source: address(self.outer.unwrap_or(self.inner) + 12),
            station: 0,
        }
    }

    /// The packet that goes there.
    pub fn to(&self, target: &Target) -> Vec<u8> {
        let mut shape = self.clone();
        let headers = [(Some(self.inner), 16, target.destination), (self.outer, 12, target.source)];
        for (offset, at, address) in headers {
            if let Some(offset) = offset {
                shape.frame[offset + at..][..4].copy_from_slice(&address.octets());
            }
        }
        shape.summed().frame
    }

    /// The same with the checksums that belong into its headers.
    pub fn summed(mut self) -> Self {
        for offset in [Some(self.inner), self.outer].into_iter().flatten() {
            let sum = !(self.sum(offset, None) as u16);
            self.frame[offset + 10..][..2].copy_from_slice(&sum.to_ne_bytes());
        }
        self
    }

    /// The sum of the header at `offset` without its checksum and, where there is one, the word at `without`.
    fn sum(&self, offset: usize, without: Option<usize>) -> u64 {
        let words: [u32; 5] = std::array::from_fn(|i| {
            let mut word: [u8; 4] = self.frame[offset + 4 * i..][..4].try_into().expect("four");
            if i == 2 {
                word[2..].fill(0);
            }
            if Some(4 * i) == without {
                word.fill(0);
            }
            u32::from_ne_bytes(word)
        });
        checksum::sum_ipv4(&words).into()
    }

    fn to_template(&self, targets: usize) -> Vec<u8> {
        let mut template = self.frame[..TEMPLATE].to_owned();
        let outer_sum = self.outer.map_or(0, |outer| self.sum(outer, Some(12)));
        for sum in [self.sum(self.inner, Some(16)), outer_sum] {
            template.extend(sum.to_ne_bytes());
        }
        template.extend((self.frame.len() as u32).to_ne_bytes());
        for offset in [self.inner, self.outer.unwrap_or(0), self.station.unwrap_or(0), 0, 0, 0] {
            template.extend((offset as u16).to_ne_bytes());
        }
        template.extend((targets as u32 - 1).to_ne_bytes());
        template.extend(0u32.to_ne_bytes());
        template
    }
}

/// The maps of a program that sends.
pub struct Aim {
    template: Mapping,
    targets: Mapping,
}

impl Aim {
    /// Of a program that has been loaded with room for [`TARGETS`].
    pub fn of(ebpf: &Ebpf) -> Result<Self> {
        let template = Mapping::of_map(array(ebpf, "TEMPLATE")?, TEMPLATE_LEN)?;
        let targets = Mapping::of_map(array(ebpf, "TARGETS")?, TARGETS as usize * TARGET_LEN)?;
        Ok(Self { template, targets })
    }

    /// From here on packets of this shape go to these in turn, of which there is a power of two.
    pub fn at(&self, shape: &Shape, targets: &[Target]) {
        assert!(targets.len().is_power_of_two() && targets.len() <= TARGETS as usize);
        let targets_bytes = targets.iter().flat_map(|target| {
            let [destination, source] = [target.destination, target.source].map(|ip| ip.octets());
            let [low, high] = target.station.to_be_bytes();
            [destination, source, [low, high, 0, 0], [0; 4]]
        });
        store(&self.targets, targets_bytes);
        let template = shape.to_template(targets.len());
        store(&self.template, template.chunks_exact(4).map(|c| c.try_into().expect("four bytes")));
    }

    /// The first target is next.
    pub fn rewind(&self) {
        self.template.words32()[TURN / 4].store(0, Ordering::Relaxed);
    }
}

fn store(mapping: &Mapping, words: impl Iterator<Item = [u8; 4]>) {
    for (slot, word) in mapping.words32().iter().zip(words) {
        slot.store(u32::from_ne_bytes(word), Ordering::Relaxed);
    }
}

/// A map of a program by name.
pub fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData> {
    match ebpf.map(name).with_context(|| format!("there is no map {name}"))? {
        Map::Array(map) => Ok(map),
        _ => bail!("{name} is no array"),
    }
}
