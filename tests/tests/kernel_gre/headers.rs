//! What xgre sends is what the kernel sends: outer header, GRE header and inner packet, for every
//! set of options.

use std::{fmt, net::IpAddr, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use tests::{
    capture::{Capture, Unjudged},
    config::Xdp,
};

use crate::{
    lab::Lab,
    packets::{Answer, Echo, Pinger, checksum},
    rows::{Inner, RUNS, Row, rows},
};

/// What PC1 sends: Don't Fragment set and not, TOS with and without ECN, TTL, sizes up to what fits
/// every tunnel. Not ECN's "congestion experienced", which the kernel replaces outside (RFC 3168,
/// 9.1.1) and xgre copies (RFC 6040, 4.1).
const PINGS: [(bool, usize, u8, u8); 4] =
    [(true, 84, 0, 64), (false, 57, 0xb9, 64), (false, 1028, 0x22, 3), (true, 1428, 0, 255)];

/// What the kernel sends, which is the same for each of xgre's modes, and takes its time.
static KERNEL: Mutex<Option<Vec<Vec<Sent>>>> = Mutex::new(None);

pub fn outer_headers_are_the_kernels(xdp: Xdp) -> Result<()> {
    let rows = rows(RUNS);
    let lab = Lab::new(&rows)?;
    let mut kernel = KERNEL.lock().expect("no test panics in here");
    let expected = match &*kernel {
        Some(frames) => frames,
        None => {
            lab.kernel()?;
            let frames = sent(&lab, &rows)?;
            lab.without_kernel()?;
            kernel.insert(frames)
        }
    };
    let daemon = lab.xgre(xdp)?;
    let found = sent(&lab, &rows)?;
    for row in &rows {
        let packets = daemon.packets(&row.device())?;
        let count = (PINGS.len() * row.inner.len()) as u64;
        ensure!(xdp == Xdp::Off || packets.tx_xdp >= count, "{}: {packets:?}", row.options.name);
    }
    daemon.stop()?;
    let mut different = Vec::new();
    for ((row, expected), found) in rows.iter().zip(expected).zip(found) {
        ensure!(expected.len() == found.len(), "{}: {expected:?} {found:?}", row.options.name);
        for (expected, found) in expected.iter().zip(found) {
            if *expected != found {
                different.push(format!(
                    "`{}`:\nthe kernel {expected}\nxgre       {found}",
                    row.xgre_words()
                ));
            }
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

/// What is on the wire between the gateways when PC1 sends its pings through each tunnel, all of
/// which are answered.
fn sent(lab: &Lab, rows: &[Row]) -> Result<Vec<Vec<Sent>>> {
    let pingers = [Inner::Ipv4, Inner::Ipv6].map(|inner| {
        let version = rows[0].host(inner).parse::<IpAddr>()?;
        Pinger::new(&lab.pc1, &version)
    });
    let [v4, v6] = pingers;
    let (v4, v6) = (v4?, v6?);
    let filter = "src net 10.58.0.0/24 or src net fd58::/64";
    let capture = Capture::start(&lab.r2, "wan", filter)?;
    let mut count = 0;
    for row in rows {
        for inner in row.inner {
            let (source, target) = (row.host(*inner).parse()?, row.target(*inner).parse()?);
            let pinger = if *inner == Inner::Ipv4 { &v4 } else { &v6 };
            for (number, (dont_fragment, size, tos, ttl)) in (1..).zip(PINGS) {
                let echo = Echo { source, target, size, dont_fragment, tos, ttl, number };
                let answer = pinger.ping(&echo).with_context(|| row.xgre_words())?;
                ensure!(answer == Answer::Reply, "{}: {echo:?}: {answer:?}", row.xgre_words());
                count += 1;
            }
        }
    }
    // Others are the hosts' own: group memberships of the tunnels' devices.
    let wanted = |frame: &[u8]| Sent::read(frame).is_some();
    let frames = capture.finish_unjudged(Unjudged::NoTshark, count, wanted)?.bytes()?;
    let mut sent: Vec<_> = frames.iter().filter_map(|frame| Sent::read(frame)).collect();
    rows.iter()
        .map(|row| {
            let target: IpAddr = row.far().parse()?;
            let (own, rest) = sent.drain(..).partition(|frame| frame.target == target);
            sent = rest;
            relative(own)
        })
        .collect()
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

/// An encapsulated echo request, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    target: IpAddr,
    /// Without what is the sender's choice: identification, and with it IPv4's checksum, and the
    /// flow label.
    outer: Vec<u8>,
    flags_and_protocol: [u8; 4],
    /// Whether it is right. Its value follows from the rest.
    checksum: Option<bool>,
    key: Option<[u8; 4]>,
    sequence: Option<u32>,
    inner: Vec<u8>,
}

impl Sent {
    fn read(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (target, length) = match packet.first()? >> 4 {
            4 => (IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?), 20),
            _ => {
                let target = IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?);
                // Destination options, with an encapsulation limit.
                let options = if packet[6] == 60 { 8 } else { 0 };
                (target, 40 + options)
            }
        };
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
        let echo = match rest.first()? >> 4 {
            4 => *rest.get(20)? == 8 && rest[9] == 1,
            _ => *rest.get(40)? == 128 && rest[6] == 58,
        };
        let mut outer = outer.to_vec();
        match target {
            IpAddr::V4(_) => {
                outer[4..6].fill(0);
                outer[10..12].fill(0);
            }
            IpAddr::V6(_) => {
                outer[1] &= 0xf0;
                outer[2..4].fill(0);
            }
        }
        let inner = rest.to_vec();
        let sent = Self { target, outer, flags_and_protocol, checksum, key, sequence, inner };
        echo.then_some(sent)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outer, flags_and_protocol, checksum, key, sequence, inner, .. } = self;
        write!(f, "{outer:02x?} GRE {flags_and_protocol:02x?} checksum {checksum:?} ")?;
        write!(
            f,
            "key {key:02x?} sequence {sequence:?} inner {:02x?}",
            &inner[..inner.len().min(48)]
        )
    }
}
