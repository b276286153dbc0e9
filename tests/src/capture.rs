//! Captures by tcpdump, judged by tshark: what is on the wire, according to others.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

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
    /// A guest has none: the test looks at each frame itself.
    NoTshark,
}

/// A capture that has ended.
pub struct Frames {
    file: PathBuf,
    _namespace: Namespace,
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
        let frames = self.end(count, |_| true)?;
        frames.no_complaints()?;
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
        Ok(Frames { file: self.file, _namespace: self._namespace })
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
        let bad = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 \
                   || udp.checksum.status == 0 || icmp.checksum.status == 0 \
                   || icmpv6.checksum.status == 0 || gre.checksum.status == 0 || _ws.expert.severity == error";
        let complaints = self.tshark(&["-Y", bad, "-V"])?;
        if !complaints.is_empty() {
            bail!("tshark complains about these frames:\n{complaints}");
        }
        Ok(())
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
