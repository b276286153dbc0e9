//! Packets that the programs hand up, from the perf event array `EVENTS`: a buffer for each CPU.

use std::{
    future::poll_fn,
    io,
    task::Poll,
    time::{Duration, Instant},
};

use aya::{
    maps::{
        MapData, PerfEventArray,
        perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use gre_ebpf_common::event::{Event, Kind};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

/// Pages of a CPU's buffer, 256 KiB: four of the longest packets, or 150 of 1500 bytes.
const PAGES: usize = 64;
/// At most one line about lost events in this time.
const QUIET: Duration = Duration::from_secs(10);

/// A packet that a program handed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedUp {
    pub kind: Kind,
    pub tunnel: u32,
    pub ifindex: u32,
    /// From its Ethernet header on.
    pub frame: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub packets: Vec<HandedUp>,
    /// Events that did not fit a buffer.
    pub lost: u64,
    /// Events that are none, from programs of another version, say.
    pub malformed: u64,
}

/// The buffers of all CPUs. The programs write to them while this exists.
pub struct Events {
    buffers: Vec<AsyncFd<PerfEventArrayBuffer<MapData>>>,
    warned: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("listing the CPUs ({0}): {1}")]
    Cpus(&'static str, io::Error),
    #[error("opening the buffer of CPU {0} for packets that the programs hand up: {1}")]
    Buffer(u32, PerfBufferError),
    #[error("waiting for the buffer of CPU {0}: {1}")]
    Wait(u32, io::Error),
}

impl Events {
    /// Opens a buffer for each CPU. Must be called in a Tokio runtime with I/O.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(mut array: PerfEventArray<MapData>) -> Result<Self, OpenError> {
        let cpus = online_cpus().map_err(|(file, error)| OpenError::Cpus(file, error))?;
        let mut buffers = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let buffer =
                array.open(cpu, Some(PAGES)).map_err(|error| OpenError::Buffer(cpu, error))?;
            // SAFETY: a buffer keeps its file descriptor, the same one, open for as long as it lives.
            let buffer = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) };
            buffers.push(buffer.map_err(|error| OpenError::Wait(cpu, error.into()))?);
        }
        Ok(Self { buffers, warned: None })
    }

    /// Waits until there is something, and takes all there is. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn next(&mut self) -> io::Result<Batch> {
        let batch = poll_fn(|context| {
            let mut batch = Batch::default();
            for buffer in &mut self.buffers {
                // Until it is pending, which is what registers this task to be woken.
                while let Poll::Ready(ready) = buffer.poll_read_ready_mut(context) {
                    let mut ready = ready?;
                    ready.get_inner_mut().for_each(|event| batch.take(event));
                    ready.clear_ready();
                }
            }
            if batch == Batch::default() {
                Poll::Pending
            } else {
                Poll::Ready(io::Result::Ok(batch))
            }
        })
        .await?;
        self.tell(&batch);
        Ok(batch)
    }

    fn tell(&mut self, batch: &Batch) {
        let lost = batch.lost;
        if lost > 0 && self.warned.is_none_or(|at| at.elapsed() > QUIET) {
            self.warned = Some(Instant::now());
            warn!(lost, "packets for the slow path come faster than the daemon takes them");
        }
    }
}

impl Batch {
    fn take(&mut self, event: PerfEvent<'_>) {
        match event {
            PerfEvent::Sample { head, tail } => match decode([head, tail].concat()) {
                Some(packet) => self.packets.push(packet),
                None => self.malformed += 1,
            },
            PerfEvent::Lost { count } => self.lost += count,
        }
    }
}

/// The kernel pads what a program wrote: the header says how long the frame is.
fn decode(mut bytes: Vec<u8>) -> Option<HandedUp> {
    let event = Event::from_bytes(bytes.get(..Event::LEN)?.try_into().ok()?);
    let end = Event::LEN.checked_add(event.len as usize)?;
    if end > bytes.len() {
        return None;
    }
    bytes.truncate(end);
    bytes.drain(..Event::LEN);
    // Behind both addresses.
    let tags = event.tags.into_iter().filter(|&tag| tag != 0).flat_map(u32::to_ne_bytes);
    let at = bytes.len().min(12);
    bytes.splice(at..at, tags);
    Some(HandedUp {
        kind: Kind::from_code(event.kind)?,
        tunnel: event.tunnel,
        ifindex: event.ifindex,
        frame: bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: u32, len: u32, rest: &[u8]) -> Vec<u8> {
        let words = [kind, 7, 9, len, 0, 0].map(u32::to_ne_bytes).concat();
        [&words[..], rest].concat()
    }

    #[test]
    fn a_frame_is_as_long_as_its_header_says() {
        let expected =
            HandedUp { kind: Kind::OuterOptions, tunnel: 7, ifindex: 9, frame: vec![1, 2, 3] };
        assert_eq!(decode(sample(2, 3, &[1, 2, 3, 0, 0])), Some(expected));
        assert_eq!(decode(sample(2, 6, &[1, 2, 3, 0, 0])), None);
        assert_eq!(decode(sample(0, 3, &[1, 2, 3])), None);
        assert_eq!(decode(vec![0; 23]), None);
    }

    #[test]
    fn tags_that_a_program_took_out_are_put_back() {
        let tags = [[0x88, 0xa8, 0, 9], [0x81, 0, 0x20, 7]];
        let words = [4, 7, 9, 14].map(u32::to_ne_bytes).concat();
        let frame: Vec<u8> = (0..14).collect();
        let sample = [words, tags.concat(), frame.clone()].concat();
        let expected = [&frame[..12], &tags.concat(), &frame[12..]].concat();
        assert_eq!(decode(sample).unwrap().frame, expected);
    }

    #[test]
    fn a_sample_that_wraps_round_the_buffer_is_put_together() {
        let bytes = sample(1, 4, &[1, 2, 3, 4]);
        let mut batch = Batch::default();
        let (head, tail) = bytes.split_at(26);
        batch.take(PerfEvent::Sample { head, tail });
        batch.take(PerfEvent::Lost { count: 5 });
        batch.take(PerfEvent::Sample { head: &[1], tail: &[] });
        assert_eq!(batch.packets[0].frame, [1, 2, 3, 4]);
        assert_eq!((batch.packets.len(), batch.lost, batch.malformed), (1, 5, 1));
    }
}
