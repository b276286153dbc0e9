//! Captures by tcpdump, judged by tshark: what is on the wire, according to others.
//!
//! A guest has no tshark. There the same captures are kept, in the directory that `XGRE_CAPTURES` names, and
//! `cargo xtask test` judges them when the guest has ended ([`judge_kept`]).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    namespace::{Namespace, Resident},
    process::{run, wait_until},
};

const WITHIN: Duration = Duration::from_secs(10);

/// tcpdump at work on a device.
pub struct Capture {
    tcpdump: Resident,
    file: PathBuf,
    // Its scratch directory holds the file.
    _namespace: Namespace,
}

/// Why tshark is not asked about a capture.
#[derive(Debug, Clone, Copy)]
pub enum Unjudged {
    /// It is to complain.
    WrongOnPurpose,
}

/// A capture that has ended.
pub struct Frames {
    file: PathBuf,
    /// Whose scratch directory holds the file.
    _namespace: Option<Namespace>,
}

impl Capture {
    /// Returns once tcpdump listens, so that what is sent next is in the capture.
    pub fn start(namespace: &Namespace, device: &str, filter: &str) -> Result<Self> {
        let file = namespace.scratch().join(format!("{device}.pcap"));
        let path = file.to_str().context("the scratch directory's name is not UTF-8")?;
        // -Z root: else it writes as a user who may not write here. -U, -B: frames are written
        // within a second and buffered until then; --immediate-mode has room for eight only.
        let arguments = ["-Z", "root", "-U", "-B", "16384", "-i", device, "-w", path, filter];
        let mut tcpdump = namespace.spawn("tcpdump", &arguments)?;
        wait_until("tcpdump listens", WITHIN, || {
            tcpdump.process.still_runs()?;
            let output = tcpdump.process.output();
            if !output.stderr.contains("listening on") {
                bail!("it says:\n{output}");
            }
            Ok(())
        })?;
        Ok(Self { tcpdump, file, _namespace: namespace.clone() })
    }

    /// Ends the capture once it holds `count` frames. It is an error if tshark complains of any.
    pub fn finish(self, count: usize) -> Result<Frames> {
        self.finish_with(count, |_| true)
    }

    /// The same with `count` of the frames that are waited for.
    pub fn finish_with(self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Frames> {
        let frames = self.end(count, wanted)?;
        match env::var_os(KEPT) {
            Some(directory) => frames.keep(Path::new(&directory))?,
            None => frames.no_complaints()?,
        }
        Ok(frames)
    }

    /// Ends the capture once it holds `count` of the frames that are waited for, and does not ask
    /// tshark about them.
    pub fn finish_unjudged(
        self,
        _: Unjudged,
        count: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Frames> {
        self.end(count, wanted)
    }

    fn end(self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Result<Frames> {
        wait_until(&format!("{count} frames are captured"), WITHIN, || {
            match frames(&fs::read(&self.file)?).filter(|frame| wanted(frame)).count() {
                found if found >= count => Ok(()),
                found => bail!("there are {found}"),
            }
        })?;
        let finished = self.tcpdump.process.stop(WITHIN)?;
        let said = finished.output.stderr.clone();
        finished.success()?;
        if !said.contains("\n0 packets dropped by kernel") {
            bail!("the capture is not whole:\n{said}");
        }
        Ok(Frames { file: self.file, _namespace: Some(self._namespace) })
    }
}

impl Frames {
    /// The frames, from the Ethernet header on.
    pub fn bytes(&self) -> Result<Vec<Vec<u8>>> {
        Ok(frames(&fs::read(&self.file)?).map(<[u8]>::to_vec).collect())
    }

    /// The values of tshark's fields, a row a frame; of a field that occurs twice (outer and inner
    /// header) both, with a comma between them.
    pub fn fields(&self, names: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut arguments = vec!["-T", "fields", "-E", "occurrence=a", "-E", "separator=|"];
        for name in names {
            arguments.extend(["-e", name]);
        }
        let row = |line: &str| line.split('|').map(str::to_owned).collect();
        Ok(self.tshark(&arguments)?.lines().map(row).collect())
    }

    /// An error that shows the frames of which tshark says "malformed" or "bad checksum".
    pub fn no_complaints(&self) -> Result<()> {
        self.complaints_only_of(&[])
    }

    /// The same, and of exactly the frames with these numbers, from 1, that their GRE checksum is wrong.
    fn complaints_only_of(&self, wrong_sums: &[u64]) -> Result<()> {
        let complaints = self.tshark(&[
            "-Y",
            &format!("{BAD} || {BAD_GRE}"),
            "-T",
            "fields",
            "-e",
            "frame.number",
        ])?;
        let complaints: Vec<u64> = complaints.lines().map(str::parse).collect::<Result<_, _>>()?;
        if complaints == wrong_sums {
            if wrong_sums.is_empty() {
                return Ok(());
            }
            // Nothing else is wrong with them.
            let others = self.tshark(&["-Y", BAD, "-V"])?;
            ensure!(others.is_empty(), "tshark complains about these frames:\n{others}");
            return Ok(());
        }
        let expected = |number: &u64| !wrong_sums.contains(number);
        let numbers: Vec<_> = complaints.iter().filter(|number| expected(number)).collect();
        let first = numbers.iter().take(SHOWN).map(|number| format!("frame.number == {number}"));
        let shown = first.collect::<Vec<_>>().join(" || ");
        let shown = if shown.is_empty() { shown } else { self.tshark(&["-Y", &shown, "-V"])? };
        bail!(
            "tshark complains about frames {complaints:?}, expected {wrong_sums:?}; the first of the others:\n\
             {shown}"
        );
    }

    /// Keeps a copy, all of which tshark must find right.
    fn keep(&self, directory: &Path) -> Result<()> {
        let mut kept = Kept::new(directory)?;
        fs::copy(&self.file, &kept.file)
            .with_context(|| format!("keeping {}", self.file.display()))?;
        kept.cell("all", frames(&fs::read(&self.file)?).count());
        kept.finish()
    }

    fn count(&self) -> Result<u64> {
        Ok(self.fields(&["frame.number"])?.len() as u64)
    }

    fn tshark(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tshark");
        // Off by default, because cards compute them; here a wrong one is a fault. Those of ICMP and
        // GRE are always checked.
        command.arg("-n");
        for protocol in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        // iperf3's payload is random, and now and then looks like a protocol, and a malformed one.
        command.args(["-d", "tcp.port==5201,data"]);
        command.arg("-r").arg(&self.file).args(arguments);
        run(command, Duration::from_secs(60))
    }
}

/// What tshark must say of no frame at all. A TCP checksum of all ones is as right as one of zero (RFC 1624), and
/// Linux writes it, which has one way for TCP and UDP (CSUM_MANGLED_0): of 65,000 packets one has it.
const BAD: &str = "_ws.malformed || ip.checksum.status == 0 \
                   || (tcp.checksum.status == 0 \
                       && !(tcp.checksum == 0xffff && tcp.checksum_calculated == 0)) \
                   || udp.checksum.status == 0 || icmp.checksum.status == 0 \
                   || icmpv6.checksum.status == 0 || (_ws.expert.severity == error && !(gre.checksum.status == 0))";
/// And of none but those that are known to be wrong.
const BAD_GRE: &str = "gre.checksum.status == 0";
/// Frames that are shown when there are many to complain of.
const SHOWN: usize = 3;

/// Names the directory in which a guest keeps its captures.
const KEPT: &str = "XGRE_CAPTURES";

/// A capture that is kept to be judged later, and what is known of it: how many frames are of what, and which
/// are wrong.
pub struct Kept {
    pub file: PathBuf,
    cells: Vec<(String, usize)>,
    wrong_sums: Vec<u64>,
}

impl Kept {
    /// None where captures are judged at once.
    pub fn wanted() -> Result<Option<Self>> {
        env::var_os(KEPT).map(|directory| Self::new(Path::new(&directory))).transpose()
    }

    /// In this directory.
    pub fn new(directory: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}.pcap", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { file: directory.join(name), cells: Vec::new(), wrong_sums: Vec::new() })
    }

    /// The next so many frames are of this.
    pub fn cell(&mut self, name: &str, frames: usize) {
        self.cells.push((name.to_owned(), frames));
    }

    /// The GRE checksum of the frame with this number, from 1, is wrong, and that is no fault of xgre's.
    pub fn wrong_sum(&mut self, number: u64) {
        self.wrong_sums.push(number);
    }

    /// Writes what is known of it beside the file.
    pub fn finish(self) -> Result<()> {
        let known = json!({ "cells": self.cells, "wrong_sums": self.wrong_sums });
        let file = self.file.with_extension("json");
        fs::write(&file, known.to_string()).with_context(|| format!("writing {}", file.display()))
    }
}

/// What has been judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judged {
    pub captures: usize,
    pub cells: usize,
    pub frames: u64,
    /// Of these, GRE checksums that are wrong and known to be.
    pub wrong_sums: usize,
}

/// Judges the captures that a guest has kept. That there are none, or nothing in one, is an error.
pub fn judge_kept(directory: &Path) -> Result<Judged> {
    let mut judged = Judged::default();
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let known = entry?.path();
        if known.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let one = judge(&known).with_context(|| format!("the capture {}", known.display()))?;
        judged.captures += 1;
        judged.cells += one.cells;
        judged.frames += one.frames;
        judged.wrong_sums += one.wrong_sums;
    }
    ensure!(judged.captures > 0, "there is no capture in {} to judge", directory.display());
    Ok(judged)
}

/// The capture that something is known of.
fn judge(known: &Path) -> Result<Judged> {
    let frames = Frames { file: known.with_extension("pcap"), _namespace: None };
    let known: Value = serde_json::from_slice(&fs::read(known)?)?;
    let cells: Vec<(String, u64)> = serde_json::from_value(known["cells"].clone())?;
    let wrong_sums: Vec<u64> = serde_json::from_value(known["wrong_sums"].clone())?;
    ensure!(!cells.is_empty(), "there is nothing in it");
    for (name, count) in &cells {
        ensure!(*count > 0, "nothing of {name} is in it");
    }
    let expected: u64 = cells.iter().map(|(_, count)| count).sum();
    let found = frames.count()?;
    ensure!(found == expected, "there are {found} frames in it, not {expected}");
    frames.complaints_only_of(&wrong_sums)?;
    Ok(Judged { captures: 1, cells: cells.len(), frames: found, wrong_sums: wrong_sums.len() })
}

/// The header of a file in the classic pcap format, of Ethernet frames.
pub fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
    header[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    header[6..8].copy_from_slice(&4_u16.to_ne_bytes());
    header[16..20].copy_from_slice(&65_535_u32.to_ne_bytes());
    header[20..24].copy_from_slice(&1_u32.to_ne_bytes());
    header
}

/// A frame in such a file, without its time.
pub fn record(frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_ne_bytes();
    [&[0; 8], &length[..], &length, frame].concat()
}

/// Those of a file in the classic pcap format, which has a 24-byte header, and before each frame 16
/// bytes of which the third word is its length. A frame that is not yet whole does not count.
fn frames(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = file.get(24..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (header, body) = rest.split_at_checked(16)?;
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let (frame, after) = body.split_at_checked(length as usize)?;
        rest = after;
        Some(frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_counted() {
        let mut file = vec![0; 24];
        assert_eq!(frames(&file[..10]).count(), 0);
        for length in [60_u32, 1514] {
            file.extend([0; 8]);
            file.extend(length.to_ne_bytes());
            file.extend([0; 4]);
            file.extend(vec![0; length as usize]);
        }
        assert_eq!(frames(&file).map(<[u8]>::len).collect::<Vec<_>>(), [60, 1514]);
        assert_eq!(frames(&file[..file.len() - 1]).count(), 1);
    }
}
