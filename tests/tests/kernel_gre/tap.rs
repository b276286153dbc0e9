//! What is on the wire between the gateways: the first frames of each cell of the matrix, kept to be judged
//! by tshark, and what the kernel sends with a wrong GRE checksum, told by other means than xgre's.
//!
//! Of a stream's last packets that Linux cuts in software, now and then one leaves with a checksum
//! that is not its own (6.1 and 7.3 alike). A receiver must drop it, and how many it dropped can be
//! told exactly only by looking at the wire.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};
use tests::{
    capture::{Kept, file_header, record},
    namespace::Namespace,
};

use crate::packets::checksum;

/// More than a stream and its acknowledgements.
const ROOM: usize = 16 << 20;
/// Frames of a cell that are kept.
const KEPT: usize = 40;

/// A packet socket that sees every frame of a namespace.
pub struct Tap {
    socket: OwnedFd,
    /// None on a machine that could judge at once, where this is only looked at.
    capture: Option<Recorded>,
}

/// A capture in the making.
struct Recorded {
    kept: Kept,
    file: BufWriter<File>,
    frames: u64,
}

impl Tap {
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.within(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let (family, kind) = (AddressFamily::Packet, SockType::Raw);
            let socket = socket(family, kind, flags, SockProtocol::EthAll).context("a tap")?;
            setsockopt(&socket, RcvBufForce, &ROOM)?;
            Ok(socket)
        })?;
        let capture = Kept::wanted()?.map(Recorded::new).transpose()?;
        Ok(Self { socket, capture })
    }

    /// What has left since the last look, which is of this cell: how many frames had a wrong GRE checksum and
    /// were for this destination.
    pub fn look(&mut self, cell: &str, destination: &IpAddr) -> Result<u64> {
        let mut buffer = [0; 65536];
        let (mut seen, mut wrong) = (0, 0);
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            // What came in is seen again where it leaves, as it is on the wire.
            if from.is_none_or(|from| from.pkttype() != libc::PACKET_OUTGOING) {
                continue;
            }
            let frame = &buffer[..length];
            let gre = gre(frame, destination);
            let is_wrong = gre.is_some_and(|gre| gre[0] & 0x80 != 0 && checksum(gre) != 0);
            wrong += u64::from(is_wrong);
            if let Some(capture) = &mut self.capture
                && seen < KEPT
            {
                capture.add(frame, is_wrong)?;
                seen += 1;
            }
        }
        if let Some(capture) = &mut self.capture {
            capture.kept.cell(cell, seen);
        }
        Ok(wrong)
    }

    pub fn finish(self) -> Result<()> {
        self.capture.map_or(Ok(()), Recorded::finish)
    }
}

impl Recorded {
    fn new(kept: Kept) -> Result<Self> {
        let file = File::create(&kept.file)
            .with_context(|| format!("creating {}", kept.file.display()))?;
        let mut file = BufWriter::new(file);
        file.write_all(&file_header())?;
        Ok(Self { kept, file, frames: 0 })
    }

    fn add(&mut self, frame: &[u8], is_wrong: bool) -> Result<()> {
        self.file.write_all(&record(frame))?;
        self.frames += 1;
        if is_wrong {
            self.kept.wrong_sum(self.frames);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        self.kept.finish()
    }
}

/// The GRE header of a frame to a destination, with what follows it. Not of a fragment.
fn gre<'a>(frame: &'a [u8], destination: &IpAddr) -> Option<&'a [u8]> {
    let packet = frame.get(14..)?;
    let length =
        |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let (start, end, target) = match packet.first()? >> 4 {
        4 if length(6)? & 0x3fff == 0 && packet[9] == 47 => (20, length(2)?, packet.get(16..20)?),
        6 if *packet.get(6)? == 47 => (40, 40 + length(4)?, packet.get(24..40)?),
        // Destination options, with an encapsulation limit.
        6 if packet[6] == 60 && *packet.get(40)? == 47 => {
            (48, 40 + length(4)?, packet.get(24..40)?)
        }
        _ => return None,
    };
    let meant = match destination {
        IpAddr::V4(address) => target == address.octets(),
        IpAddr::V6(address) => target == address.octets(),
    };
    packet.get(start..end).filter(|_| meant)
}
