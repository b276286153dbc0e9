//! A pair of veths, on which a test reads and writes frames.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
};

use gre_userspace::slowpath::io::send::Sender;
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt,
            socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

pub const MAC0: [u8; 6] = [2, 0, 0, 0, 0, 0];
pub const MAC1: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PATIENCE: i64 = 10;

pub struct Wire {
    frames: OwnedFd,
}

impl Wire {
    pub fn new() -> Self {
        for arguments in [
            "link add veth0 address 02:00:00:00:00:00 type veth peer name veth1",
            "link set veth1 address 02:00:00:00:00:01 up",
            "link set veth0 up",
            "addr add 10.9.0.1/24 dev veth0",
            "addr add fd09::1/64 dev veth0 nodad",
            "neigh add 10.9.0.2 lladdr 02:00:00:00:00:01 dev veth0",
            "neigh add fd09::2 lladdr 02:00:00:00:00:01 dev veth0",
        ] {
            ip(arguments);
        }
        let frames = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .unwrap();
        setsockopt(&frames, ReceiveTimeout, &TimeVal::new(PATIENCE, 0)).unwrap();
        Self { frames }
    }

    pub fn ifindex(&self, name: &str) -> u32 {
        if_nametoindex(name).unwrap()
    }

    pub fn send(&self, name: &str, frame: &[u8]) {
        Sender::open().unwrap().send_frame(self.ifindex(name), frame).unwrap();
    }

    /// The next `count` frames on an interface with packets to `destination`.
    pub fn received_on(&self, name: &str, destination: &[u8], count: usize) -> Vec<Vec<u8>> {
        let ifindex = self.ifindex(name) as usize;
        let at = if destination.len() == 4 { 30 } else { 38 };
        let mut frames = Vec::new();
        while frames.len() < count {
            let mut frame = vec![0; 65_536];
            let (len, from) = recvfrom::<LinkAddr>(self.frames.as_raw_fd(), &mut frame)
                .unwrap_or_else(|error| panic!("{error} behind {frames:x?}"));
            frame.truncate(len);
            if from.unwrap().ifindex() == ifindex
                && frame.get(at..at + destination.len()) == Some(destination)
            {
                frames.push(frame);
            }
        }
        frames
    }
}

/// The packet behind an Ethernet header.
pub fn framed(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&destination[..], &source, &ethertype, packet].concat()
}

/// Runs iproute2 in the thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}
