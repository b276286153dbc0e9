//! P2: packets per second of live frames, against a program that only swaps the MAC addresses and
//! redirects.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Array, DevMap, MapData, PerCpuArray},
    programs::{TestRun as _, Xdp, xdp::XdpMode},
    util::nr_cpus,
};
use gre_ebpf_common::checksum;
use tests::interrupt;

use crate::{
    Effort,
    figure::{Bound, Figure, Side},
    frames::{self, DESTINATIONS, ETHERNET, IPV4, Network, TEMPLATE},
    lab::Lab,
    objects::{self, GENERATOR, NULL, SINK},
};

struct Case {
    name: &'static str,
    frame: Vec<u8>,
    /// Where its inner IPv4 header starts.
    inner: usize,
    /// Where the last two bytes are of the MAC address that it is bridged to.
    station: Option<usize>,
}

fn cases() -> Vec<Case> {
    let routed = |name, frame, inner| Case { name, frame, inner, station: None };
    let bridged =
        |name, frame, inner| Case { name, frame, inner, station: Some(inner - ETHERNET + 4) };
    let inner = ETHERNET + IPV4 + 4;
    let out_of = |to| frames::encapsulated(Network::Keyless, to);
    vec![
        routed("encap", frames::plain(Network::Keyless), ETHERNET),
        routed("decap to next hop", out_of(Network::NextHop), inner),
        routed("hub transit", out_of(Network::Onward), inner),
        bridged("bridge to tunnel", frames::bridged(), ETHERNET),
        bridged("tunnel to bridge", frames::bridged_out_of_tunnel(), inner + ETHERNET),
    ]
}

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let lab = &mut Lab::new(effort)?;
    let packets = if effort.quick { QUICK_PACKETS } else { PACKETS };
    let mut sink = Sink::new(lab)?;
    let mut null = null(lab)?;
    let mut figures = Vec::new();
    for case in cases() {
        let mut generator = Generator::new(lab, &case)?;
        let mut sides: Vec<Side> = Vec::new();
        for _ in 0..effort.rounds {
            interrupt::check()?;
            let ingress = lab.ingress;
            let mut subjects = lab.subjects.all()?;
            // The comparator knows no bridges.
            subjects.retain(|(name, _)| case.station.is_none() || *name != "c");
            subjects.push(("null", objects::program(&mut null, "null_redirect")?));
            for (i, (name, subject)) in subjects.into_iter().enumerate() {
                let link = subject.attach_to_if_index(ingress, XdpMode::Driver)?;
                let rate = rate(&mut generator, &mut sink, packets)
                    .with_context(|| format!("{}, {name}", case.name));
                subject.detach(link)?;
                if sides.len() == i {
                    sides.push(Side::new(name));
                }
                sides[i].rounds.push(rate?);
            }
        }
        let null = sides.pop().expect("null was measured last");
        for side in sides {
            let bound = if side.name == "rust" { Bound::AtLeast(0.85) } else { Bound::None };
            figures.push(Figure::ratio("P2", case.name, "Mpps", bound, side, null.clone()));
        }
    }
    Ok(figures)
}

/// Millions of packets that reach the sink in a second, while nothing else wants the CPU: of the
/// best of many bursts that are shorter than the scheduler's tick.
fn rate(generator: &mut Generator, sink: &mut Sink, packets: u32) -> Result<f64> {
    let before = sink.received()?;
    let mut setup = f64::MAX;
    let mut burst = f64::MAX;
    for _ in 0..packets / BURST {
        // A call makes a pool of pages first, and takes it down at the end.
        setup = setup.min(generator.send(BATCH)?);
        burst = burst.min(generator.send(BURST)?);
    }
    let sent = packets / BURST * (BURST + BATCH);
    let received = sink.received()? - before;
    ensure!(received == u64::from(sent), "{received} of {sent} packets reached the sink");
    Ok(f64::from(BURST - BATCH) / (burst - setup) / 1e6)
}

/// Frames of a side in a round.
const PACKETS: u32 = 1 << 20;
const QUICK_PACKETS: u32 = 1 << 16;

/// Frames of a burst: two milliseconds or so.
const BURST: u32 = 1 << 13;

struct Generator {
    ebpf: Ebpf,
    frame: Vec<u8>,
}

impl Generator {
    fn new(lab: &Lab, case: &Case) -> Result<Self> {
        let mask = DESTINATIONS - 1;
        let inner = case.inner as u32;
        let station = case.station.unwrap_or(0) as u32;
        let mut ebpf = EbpfLoader::new()
            .override_global("TARGET", &lab.generator, true)
            .override_global("INNER", &inner, true)
            .override_global("STATION", &station, true)
            .override_global("DESTINATIONS_MASK", &mask, true)
            .load(GENERATOR)?;
        let generate = objects::program(&mut ebpf, "generate")?;
        generate.load()?;
        lab.make_known(generate)?;

        let header: [u8; IPV4] = case.frame[case.inner..][..IPV4].try_into()?;
        let mut words: [u32; 5] = std::array::from_fn(|i| {
            u32::from_ne_bytes(header[4 * i..][..4].try_into().expect("four bytes"))
        });
        let destination = u32::from_be(words[4]);
        // Without checksum and destination, which the generator writes.
        words[2] &= u32::from_ne_bytes([0xff, 0xff, 0, 0]);
        words[4] = 0;
        let mut template = [0; TEMPLATE + 16];
        template[..TEMPLATE].copy_from_slice(&case.frame[..TEMPLATE]);
        template[TEMPLATE..][..8]
            .copy_from_slice(&u64::from(checksum::sum_ipv4(&words)).to_ne_bytes());
        template[TEMPLATE + 8..][..4].copy_from_slice(&destination.to_ne_bytes());
        let mut map: Array<&mut MapData, [u8; TEMPLATE + 16]> =
            ebpf.map_mut("TEMPLATE").context("there is no map TEMPLATE")?.try_into()?;
        map.set(0, template, 0)?;
        connect(&mut ebpf, "GENERATOR_PORTS", lab.generator)?;
        Ok(Self { ebpf, frame: case.frame.clone() })
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

/// Frames that enter the first veth at once: what NAPI takes in one poll.
const BATCH: u32 = 64;

struct Sink {
    ebpf: Ebpf,
}

impl Sink {
    fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = Ebpf::load(SINK)?;
        let sink = objects::program(&mut ebpf, "sink")?;
        sink.load()?;
        sink.attach_to_if_index(lab.sink, XdpMode::Driver)?;
        Ok(Self { ebpf })
    }

    fn received(&mut self) -> Result<u64> {
        let map: PerCpuArray<&mut MapData, u64> =
            self.ebpf.map_mut("RECEIVED").context("there is no map RECEIVED")?.try_into()?;
        let received = map.get(&0, 0)?;
        ensure!(received.len() >= nr_cpus().unwrap_or(1), "a counter for each CPU");
        Ok(received.iter().sum())
    }
}

fn null(lab: &Lab) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().override_global("TARGET", &lab.egress, true).load(NULL)?;
    objects::program(&mut ebpf, "null_redirect")?.load()?;
    connect(&mut ebpf, "NULL_PORTS", lab.egress)?;
    Ok(ebpf)
}

/// Makes an interface a redirect target under its own number.
fn connect(ebpf: &mut Ebpf, map: &str, ifindex: u32) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("there is no map {map}"))?;
    let mut map: DevMap<&mut MapData> = map.try_into()?;
    Ok(map.set(ifindex, ifindex, None, 0)?)
}
