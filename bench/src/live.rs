//! Live frames (BPF_F_TEST_XDP_LIVE_FRAMES) through a subject, to a sink that counts them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{DevMap, MapData, PerCpuArray},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, Xdp,
        xdp::{XdpLinkId, XdpMode},
    },
    util::nr_cpus,
};

use crate::{
    Effort,
    aim::{Aim, Shape, TARGETS, Target},
    lab::{END, Lab},
    objects::{self, GENERATOR, NULL, SINK},
};

/// Frames of a side in a round.
const PACKETS: u32 = 1 << 20;
const QUICK_PACKETS: u32 = 1 << 16;

/// Frames of a burst: two milliseconds or so.
const BURST: u32 = 1 << 13;

/// Frames that enter the first veth at once: what NAPI takes in one poll.
pub const BATCH: u32 = 64;

/// Frames of the longer of two bursts that are carried to their end before the next: what the first
/// veth has room for, whoever empties it.
const SHORT_BURST: u32 = 4 * BATCH;
const SHORT_BURSTS: u32 = 400;
const QUICK_SHORT_BURSTS: u32 = 50;

/// How long a burst may be under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both ends of the line.
pub struct Line {
    generator: Generator,
    pub sink: Sink,
    packets: u32,
    short_bursts: u32,
}

impl Line {
    pub fn new(lab: &Lab, effort: &Effort) -> Result<Self> {
        let packets = if effort.quick { QUICK_PACKETS } else { PACKETS };
        let short_bursts = if effort.quick { QUICK_SHORT_BURSTS } else { SHORT_BURSTS };
        Ok(Self { generator: Generator::new(lab)?, sink: Sink::new(lab)?, packets, short_bursts })
    }

    pub fn aim(&mut self, shape: &Shape, targets: &[Target]) {
        self.generator.aim.at(shape, targets);
        self.generator.frame.clone_from(&shape.frame);
    }

    /// Millions of packets that reach the sink in a second, while nothing else wants the CPU: of the
    /// best of many bursts that are shorter than the scheduler's tick.
    pub fn rate(&mut self) -> Result<f64> {
        let before = self.sink.received()?;
        let mut setup = f64::MAX;
        let mut burst = f64::MAX;
        for _ in 0..self.packets / BURST {
            // A call makes a pool of pages first, and takes it down at the end.
            setup = setup.min(self.generator.send(BATCH)?);
            burst = burst.min(self.generator.send(BURST)?);
        }
        let sent = self.packets / BURST * (BURST + BATCH);
        let received = self.sink.received()? - before;
        ensure!(received == u64::from(sent), "{received} of {sent} packets reached the sink");
        Ok(f64::from(BURST - BATCH) / (burst - setup) / 1e6)
    }

    /// The same of what may be much slower than the generator, and loses what comes too fast: of what the
    /// frames of a burst cost beyond the first batch, the last of them included.
    pub fn lossless_rate(&mut self) -> Result<f64> {
        let mut batch = f64::MAX;
        let mut burst = f64::MAX;
        for _ in 0..self.short_bursts {
            batch = batch.min(self.carry(BATCH)?);
            burst = burst.min(self.carry(SHORT_BURST)?);
        }
        Ok(f64::from(SHORT_BURST - BATCH) / (burst - batch) / 1e6)
    }

    /// Seconds until all of so many frames are at the sink.
    fn carry(&mut self, frames: u32) -> Result<f64> {
        let wanted = self.sink.received()? + u64::from(frames);
        let started = Instant::now();
        self.generator.send(frames)?;
        while self.sink.received()? < wanted {
            ensure!(started.elapsed() < PATIENCE, "not all frames reached the sink");
            thread::yield_now();
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// The same of a subject that is attached for it alone.
    pub fn rate_of(&mut self, subject: &mut Xdp, ingress: u32) -> Result<f64> {
        let link = subject.attach_to_if_index(ingress, XdpMode::Driver)?;
        let rate = self.rate();
        subject.detach(link)?;
        rate
    }
}

struct Generator {
    ebpf: Ebpf,
    aim: Aim,
    frame: Vec<u8>,
}

impl Generator {
    fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("TARGET", &lab.generator, true)
            .map_max_entries("TARGETS", TARGETS)
            .load(GENERATOR)?;
        let generate = objects::program(&mut ebpf, "generate")?;
        generate.load()?;
        lab.make_known(generate)?;
        connect(&mut ebpf, "GENERATOR_PORTS", lab.generator)?;
        let aim = Aim::of(&ebpf)?;
        Ok(Self { ebpf, aim, frame: Vec::new() })
    }

    /// Sends this many frames. Returns how many seconds it took.
    fn send(&mut self, packets: u32) -> Result<f64> {
        let generate: &mut Xdp = objects::program(&mut self.ebpf, "generate")?;
        let mut options =
            TestRunOptions { data_in: Some(&self.frame), repeat: packets, ..TestRunOptions::new() };
        options.attrs = options.attrs.xdp_live_frames(BATCH);
        let started = Instant::now();
        generate.test_run(options)?;
        Ok(started.elapsed().as_secs_f64())
    }
}

pub struct Sink {
    ebpf: Ebpf,
    ifindex: u32,
    native: Option<XdpLinkId>,
}

impl Sink {
    fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = Ebpf::load(SINK)?;
        objects::program(&mut ebpf, "sink")?.load()?;
        let skbs: &mut SchedClassifier =
            ebpf.program_mut("sink_tc").context("there is no program sink_tc")?.try_into()?;
        skbs.load()?;
        skbs.attach(END, TcAttachType::Ingress)?;
        let mut sink = Self { ebpf, ifindex: lab.sink, native: None };
        sink.native(true)?;
        Ok(sink)
    }

    /// Whether frames are taken by XDP, or as skbs, which is cheaper where they come as such.
    pub fn native(&mut self, native: bool) -> Result<()> {
        let program = objects::program(&mut self.ebpf, "sink")?;
        match self.native.take() {
            Some(link) if !native => program.detach(link)?,
            None if native => {
                let link = program.attach_to_if_index(self.ifindex, XdpMode::Driver)?;
                self.native = Some(link);
            }
            unchanged => self.native = unchanged,
        }
        Ok(())
    }

    fn received(&mut self) -> Result<u64> {
        let map: PerCpuArray<&mut MapData, u64> =
            self.ebpf.map_mut("RECEIVED").context("there is no map RECEIVED")?.try_into()?;
        let received = map.get(&0, 0)?;
        ensure!(received.len() >= nr_cpus().unwrap_or(1), "a counter for each CPU");
        Ok(received.iter().sum())
    }
}

/// The program that only swaps the MAC addresses and redirects.
pub struct Null(Ebpf);

impl Null {
    pub fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().override_global("TARGET", &lab.egress, true).load(NULL)?;
        objects::program(&mut ebpf, "null_redirect")?.load()?;
        connect(&mut ebpf, "NULL_PORTS", lab.egress)?;
        Ok(Self(ebpf))
    }

    pub fn program(&mut self) -> Result<&mut Xdp> {
        objects::program(&mut self.0, "null_redirect")
    }
}

/// Makes an interface a redirect target under its own number.
fn connect(ebpf: &mut Ebpf, map: &str, ifindex: u32) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("there is no map {map}"))?;
    let mut map: DevMap<&mut MapData> = map.try_into()?;
    Ok(map.set(ifindex, ifindex, None, 0)?)
}
