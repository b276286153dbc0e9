//! How long frames are under way, one at a time at a steady rate.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, TcAttachType, Xdp, xdp::XdpMode},
};
use gre_userspace::{maps::mapping::Mapping, slowpath::io::send::Sender};
use std::sync::atomic::Ordering;

use crate::{
    aim::array,
    lab::{GENERATOR, Lab},
    objects::{self, METER},
};

/// 50,000 frames a second.
const PERIOD: Duration = Duration::from_micros(20);

/// Frames that are measured before they are read.
const SAMPLES: u32 = 1 << 13;

/// Sends, and measures at the end of the line.
pub struct Meter {
    /// Attached while it lives.
    _ebpf: Ebpf,
    taken: Mapping,
    samples: Mapping,
    sender: Sender,
    generator: u32,
    /// Frames that were not sent when they should have been: something else had the CPU.
    pub late: u64,
}

impl Meter {
    pub fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SAMPLES", SAMPLES)
            .override_global("SAMPLES_MASK", &(SAMPLES - 1), true)
            .load(METER)?;
        let meter = objects::program(&mut ebpf, "meter")?;
        meter.load()?;
        meter.attach_to_if_index(lab.sink, XdpMode::Driver)?;
        let stamp = ebpf.program_mut("stamp").context("there is no program stamp")?;
        let stamp: &mut SchedClassifier = stamp.try_into()?;
        stamp.load()?;
        stamp.attach(GENERATOR, TcAttachType::Egress)?;
        Ok(Self {
            taken: Mapping::of_map(array(&ebpf, "TAKEN")?, 8)?,
            samples: Mapping::of_map(array(&ebpf, "SAMPLES")?, 8 * SAMPLES as usize)?,
            _ebpf: ebpf,
            sender: Sender::open()?,
            generator: lab.generator,
            late: 0,
        })
    }

    /// Nanoseconds of each of the frames, one after the other, through a subject.
    pub fn measure(&mut self, subject: &mut Xdp, lab: u32, frames: &[Vec<u8>]) -> Result<Vec<u64>> {
        let link = subject.attach_to_if_index(lab, XdpMode::Driver)?;
        let samples = self.send(frames);
        subject.detach(link)?;
        samples
    }

    fn send(&mut self, frames: &[Vec<u8>]) -> Result<Vec<u64>> {
        assert!(frames.len() <= SAMPLES as usize);
        self.taken.words64()[0].store(0, Ordering::Relaxed);
        let mut next = Instant::now();
        for frame in frames {
            // Without sleeping, which takes longer than it is told to.
            while Instant::now() < next {
                hint::spin_loop();
            }
            let now = Instant::now();
            if now > next + PERIOD {
                // What was missed is not caught up with, which would be a burst.
                self.late += 1;
                next = now;
            }
            self.sender.send_frame(self.generator, frame)?;
            next += PERIOD;
        }
        self.wait(frames.len() as u64)?;
        let samples = self.samples.words64()[..frames.len()].iter();
        Ok(samples.map(|sample| sample.load(Ordering::Relaxed)).collect())
    }

    /// A frame is there when its call returns, but for one that the kernel has put off.
    fn wait(&self, frames: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let taken = || self.taken.words64()[0].load(Ordering::Relaxed);
        while taken() < frames && Instant::now() < deadline {
            thread::yield_now();
        }
        ensure!(taken() == frames, "{} of {frames} frames reached the end of the line", taken());
        Ok(())
    }
}
