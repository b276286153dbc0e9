//! What xgre sends is what the kernel sends: outer header, GRE header and inner packet, for every
//! set of options.

use std::{fmt, net::IpAddr, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use tests::capture::Capture;

use crate::{
    lab::Lab,
    packets::{Answer, Echo, Pinger, checksum},
    rows::{Inner, Row},
};

/// What PC1 sends: Don't Fragment set and not, TOS with and without ECN, TTL, sizes up to what fits
/// every tunnel. Not ECN's "congestion experienced", which the kernel replaces outside (RFC 3168,
/// 9.1.1) and xgre copies (RFC 6040, 4.1).
const PINGS: [(bool, usize, u8, u8); 4] =
    [(true, 84, 0, 64), (false, 57, 0xb9, 64), (false, 1028, 0x22, 3), (true, 1428, 0, 255)];

/// What the kernel sends into each row's tunnel; the same for each of xgre's modes, and worked out
/// once.
static KERNEL: Mutex<Option<Vec<Vec<Sent>>>> = Mutex::new(None);

/// Has R1's tunnels be the kernel's for a while, unless that has been done.
pub fn of_kernel(lab: &Lab, pinger: &[Pinger; 2], rows: &[Row]) -> Result<Vec<Vec<Sent>>> {
    let mut kernel = KERNEL.lock().expect("no test panics in here");
    if let Some(frames) = &*kernel {
        return Ok(frames.clone());
    }
    lab.kernel()?;
    let frames = sent(lab, pinger, rows)?.into_iter().collect::<Result<Vec<_>>>()?;
    lab.without_kernel()?;
    Ok(kernel.insert(frames).clone())
}

/// Those of one inner protocol are the same, but for what xgre makes of congestion over IPv6.
pub fn compare(kernel: &[Sent], xgre: &[Sent], inner: Inner) -> Result<()> {
    let kernel: Vec<_> = kernel.iter().cloned().map(Sent::with_ecn).collect();
    same(&kernel, xgre, inner)
}

/// Those of one inner protocol are the same.
pub fn same(kernel: &[Sent], xgre: &[Sent], inner: Inner) -> Result<()> {
    let of = |frames: &[Sent]| -> Vec<Sent> {
        let version = if inner == Inner::Ipv4 { 4 } else { 6 };
        frames.iter().filter(|frame| frame.inner[0] >> 4 == version).cloned().collect()
    };
    let (kernel, xgre) = (of(kernel), of(xgre));
    ensure!(kernel.len() == PINGS.len(), "the kernel sent {} of {}", kernel.len(), PINGS.len());
    ensure!(xgre.len() == PINGS.len(), "xgre sent {} of {}", xgre.len(), PINGS.len());
    for (kernel, xgre) in kernel.iter().zip(&xgre) {
        ensure!(kernel == xgre, "the kernel sent {kernel}, and xgre {xgre}");
    }
    Ok(())
}

/// What is on the wire between the gateways when PC1 sends its pings through each row's tunnel; an
/// error for a row whose pings are not all answered.
pub fn sent(lab: &Lab, pingers: &[Pinger; 2], rows: &[Row]) -> Result<Vec<Result<Vec<Sent>>>> {
    let filter = "src net 10.58.0.0/24 or src net fd58::/64";
    let capture = Capture::start(&lab.r2, "wan", filter)?;
    let mut count = 0;
    let mut answered = |row: &Row| -> Result<()> {
        for inner in row.inner {
            let (source, target) = (row.host(*inner).parse()?, row.target(*inner).parse()?);
            for (number, (dont_fragment, size, tos, ttl)) in (1..).zip(PINGS) {
                let echo = Echo { source, target, size, dont_fragment, tos, ttl, number };
                let answer = pingers[*inner as usize].ping(&echo)?;
                ensure!(answer == Answer::Reply, "{echo:?}: {answer:?}");
                count += 1;
            }
        }
        Ok(())
    };
    let answered: Vec<_> = rows.iter().map(&mut answered).collect();
    // Others are the hosts' own: group memberships of the tunnels' devices.
    let wanted = |frame: &[u8]| Sent::read(frame).is_some();
    let frames = capture.finish_with(count, wanted)?.bytes()?;
    let frames: Vec<_> = frames.iter().filter_map(|frame| Sent::read(frame)).collect();
    let of = |(row, answered): (&Row, Result<()>)| -> Result<Vec<Sent>> {
        answered.with_context(|| row.xgre_words())?;
        let targets = [Inner::Ipv4, Inner::Ipv6].map(|inner| row.target(inner).parse::<IpAddr>());
        let own = |frame: &&Sent| targets.contains(&Ok(frame.target));
        relative(frames.iter().filter(own).cloned().collect())
    };
    Ok(rows.iter().zip(answered).map(of).collect())
}

/// Numbered from the first of them: where the device has sent something of its own before, so have
/// the kernel's, and xgre's not.
fn relative(mut frames: Vec<Sent>) -> Result<Vec<Sent>> {
    let first = frames.first().context("nothing was sent")?.sequence;
    for frame in &mut frames {
        if let (Some(number), Some(first)) = (&mut frame.sequence, first) {
            *number = number.wrapping_sub(first);
        }
        ensure!(frame.checksum != Some(false), "a wrong checksum: {frame}");
    }
    Ok(frames)
}

const ETHERNET: [u8; 2] = [0x65, 0x58];

/// An encapsulated echo request, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The inner packet's, which is one row's.
    target: IpAddr,
    /// Without what is the sender's choice: identification, and with it IPv4's checksum, and the
    /// flow label.
    outer: Vec<u8>,
    flags_and_protocol: [u8; 4],
    /// Whether it is right. Its value follows from the rest.
    checksum: Option<bool>,
    key: Option<[u8; 4]>,
    sequence: Option<u32>,
    /// Of a frame, its header.
    front: Vec<u8>,
    inner: Vec<u8>,
}

impl Sent {
    /// With the inner packet's ECN outside, which the kernel's ip6gre leaves out where the traffic
    /// class is fixed, though RFC 6040 (4.1) has it copied.
    fn with_ecn(mut self) -> Self {
        let ecn = match self.inner[0] >> 4 {
            4 => self.inner[1] & 3,
            _ => self.inner[1] >> 4 & 3,
        };
        if self.outer[0] >> 4 == 6 {
            self.outer[1] = self.outer[1] & 0xcf | ecn << 4;
        }
        self
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let version = packet.first()? >> 4;
        let (protocol, length) = match version {
            4 => (*packet.get(9)?, 20),
            // Destination options, with an encapsulation limit.
            _ if *packet.get(6)? == 60 => (*packet.get(40)?, 48),
            _ => (packet[6], 40),
        };
        if protocol != 47 {
            return None;
        }
        let (outer, gre) = packet.split_at_checked(length)?;
        let flags_and_protocol: [u8; 4] = gre.get(..4)?.try_into().ok()?;
        let mut rest = &gre[4..];
        let mut word = |bit: u8| -> Option<[u8; 4]> {
            if flags_and_protocol[0] & bit == 0 {
                return None;
            }
            let (word, after) = rest.split_first_chunk()?;
            rest = after;
            Some(*word)
        };
        let checksum = word(0x80).map(|word| word[2..] == [0, 0] && checksum(gre) == 0);
        let (key, sequence) = (word(0x20), word(0x10).map(u32::from_be_bytes));
        let (front, packet) =
            rest.split_at_checked(if flags_and_protocol[2..] == ETHERNET { 14 } else { 0 })?;
        let (echo, target) = match packet.first()? >> 4 {
            4 => {
                let target: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
                (packet[9] == 1 && *packet.get(20)? == 8, IpAddr::from(target))
            }
            _ => {
                let target: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
                (packet[6] == 58 && *packet.get(40)? == 128, IpAddr::from(target))
            }
        };
        let front = front.to_vec();
        let inner = packet.to_vec();
        let mut outer = outer.to_vec();
        if version == 4 {
            outer[4..6].fill(0);
            outer[10..12].fill(0);
        } else {
            outer[1] &= 0xf0;
            outer[2..4].fill(0);
        }
        let sent =
            Self { target, outer, flags_and_protocol, checksum, key, sequence, front, inner };
        echo.then_some(sent)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outer, flags_and_protocol, checksum, key, sequence, front, inner, .. } = self;
        write!(f, "{outer:02x?} GRE {flags_and_protocol:02x?} checksum {checksum:?} ")?;
        write!(
            f,
            "key {key:02x?} sequence {sequence:?} frame {front:02x?} inner {:02x?}",
            &inner[..inner.len().min(48)]
        )
    }
}
