//! The ends of a gateway's wires: TAP devices, whose other side is a file of the test's.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{Ipv4HeaderSlice, PacketBuilder, ip_number};
use nix::libc;
use tests::namespace::Namespace;

/// A device of the gateway's.
pub struct Tap(File);

impl Tap {
    /// Makes it in the namespace; it goes with the handle.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        namespace.within(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context("opening /dev/net/tun")?;
            // SAFETY: zeros are an `ifreq`.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: TUNSETIFF reads and writes an `ifreq`.
            let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
            ensure!(made == 0, "making {name}: {}", std::io::Error::last_os_error());
            Ok(Self(file))
        })
    }

    /// Whether it took the frame; a device that is down does not.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        match (&self.0).write(frame) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next frame that has come out of the device.
    pub fn received(&self) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 4096];
        match (&self.0).read(&mut buffer) {
            Ok(len) => Ok(Some(buffer[..len].to_vec())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
pub const LOCAL: [u8; 4] = [192, 0, 2, 1];
pub const REMOTE: [u8; 4] = [192, 0, 2, 2];
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
pub const REMOTE_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];

/// The GRE header of an Ethernet frame.
fn gre(key: Option<u32>) -> Vec<u8> {
    match key {
        None => vec![0, 0, 0x65, 0x58],
        Some(key) => [&[0x20, 0, 0x65, 0x58][..], &key.to_be_bytes()].concat(),
    }
}

/// A frame as the remote sends it through a tunnel with this key.
pub fn encapsulated(key: Option<u32>, frame: &[u8]) -> Vec<u8> {
    let mut outer = Vec::new();
    PacketBuilder::ethernet2(REMOTE_MAC, WAN_MAC)
        .ipv4(REMOTE, LOCAL, 64)
        .write(&mut outer, ip_number::GRE, &[&gre(key), frame].concat())
        .expect("a vector takes all");
    outer
}

/// What has come out of `wan` for the remote.
pub struct Sent {
    pub key: Option<u32>,
    pub frame: Vec<u8>,
    /// DSCP and ECN, fragmentation flags, TTL.
    pub outer: [u8; 3],
}

impl Sent {
    pub fn read(outer: &[u8]) -> Result<Self> {
        let header = [&REMOTE_MAC[..], &WAN_MAC, &[8, 0]].concat();
        ensure!(outer.starts_with(&header), "not for the remote: {outer:02x?}");
        let packet = &outer[ETHERNET..];
        let ip = Ipv4HeaderSlice::from_slice(packet)?.to_header();
        ensure!(ip.header_checksum == ip.calc_header_checksum(), "its checksum: {outer:02x?}");
        ensure!(
            (ip.source, ip.destination, ip.protocol) == (LOCAL, REMOTE, ip_number::GRE)
                && usize::from(ip.total_len) == packet.len(),
            "{outer:02x?}"
        );
        let payload = &packet[IPV4..];
        let key = match payload.first() {
            Some(0x20) => Some(u32::from_be_bytes(payload[4..8].try_into()?)),
            Some(0) => None,
            _ => bail!("GRE header: {outer:02x?}"),
        };
        let frame = payload.strip_prefix(&gre(key)[..]).context("a GRE header of another kind")?;
        let outer = [packet[1], packet[6], ip.time_to_live];
        Ok(Self { key, frame: frame.to_vec(), outer })
    }
}
