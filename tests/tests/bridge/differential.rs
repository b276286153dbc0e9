//! The same events and frames, drawn at random, in two laboratories: with XDP, and without.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context as _, Result, ensure};
use tests::{config::Xdp, gateways::SOON, process::wait_until};

use crate::{
    events::{Event, VLANS, stations},
    frames::{EVERYONE, Mac, frame, tagged},
    lab::{Delivered, Filtering, Lab, PLACES, Place, mac},
    random::Random,
};

const STEPS: u32 = 60;
/// Frames after each event, in two halves: what the first one teaches holds for the second.
const FRAMES: u32 = 96;

/// Of frames, one in so many is forwarded by XDP at the least: else the test would prove little.
const FAST: u64 = 6;

#[test]
fn whatever_happens_to_a_bridge_its_frames_go_where_the_kernels_would() -> Result<()> {
    agree(Filtering::Off, STEPS, FAST)
}

/// In guests: not every kernel's bridges filter VLANs. Most frames have no tag, and VLANs come and go.
#[test]
#[ignore = "needs a kernel with CONFIG_BRIDGE_VLAN_FILTERING"]
fn whatever_happens_to_vlans_frames_go_where_the_kernels_would() -> Result<()> {
    agree(Filtering::On, STEPS / 3, 2 * FAST)
}

fn agree(filtering: Filtering, steps: u32, share: u64) -> Result<()> {
    let mut both = Both::new(filtering)?;
    for step in 0..steps {
        let said = both.step()?;
        both.compare().with_context(|| format!("step {step}, after {said:#?}"))?;
    }
    both.mend_all()?;
    for place in PLACES {
        both.send(place, &frame([2, 0, 0, 0, 7, place as u8], EVERYONE, 0))?;
    }
    both.compare().context("at the end")?;

    let [sent, fast] = [both.sent, both.native.fast()?];
    println!("XDP forwarded {fast} of {sent} frames");
    ensure!(fast > sent / share, "XDP forwarded only {fast} of {sent} frames, which proves little");
    Ok(())
}

/// Two laboratories, to which the same happens.
struct Both {
    filtering: Filtering,
    native: Lab,
    off: Lab,
    random: Random,
    stations: Vec<Mac>,
    /// Where a station speaks from.
    at: HashMap<Mac, Place>,
    /// What mends what is broken, oldest first.
    broken: VecDeque<Vec<String>>,
    sent: u64,
    /// What has come out with XDP oftener than without, or, below zero, less often.
    surplus: HashMap<Delivered, i32>,
}

impl Both {
    fn new(filtering: Filtering) -> Result<Self> {
        let mut random = Random::seeded();
        let stations = stations();
        let at = stations.iter().map(|&station| (station, random.pick(&PLACES))).collect();
        Ok(Self {
            filtering,
            native: Lab::new(Xdp::Native, filtering)?,
            off: Lab::new(Xdp::Off, filtering)?,
            random,
            stations,
            at,
            broken: VecDeque::new(),
            sent: 0,
            surplus: HashMap::new(),
        })
    }

    /// Something happens, and then frames are sent. Says what happened.
    fn step(&mut self) -> Result<Vec<String>> {
        let said = if self.broken.len() > self.random.below(3) as usize {
            let mend = self.broken.pop_front().unwrap_or_default();
            self.run(mend)?
        } else {
            let event = if self.filtering == Filtering::On && self.random.once_in(2) {
                Event::of_vlans(&mut self.random)
            } else {
                Event::random(&mut self.random, &self.stations)
            };
            self.happens(event)?
        };
        self.talk()?;
        for station in self.stations.clone() {
            self.speak(station)?;
        }
        self.talk()?;
        Ok(said)
    }

    /// Frames at random, of stations that do not move by them: that is followed, but not at once.
    fn talk(&mut self) -> Result<()> {
        self.native.follow()?;
        let known = self.native.stations()?;
        let is_elsewhere = |station: Mac| {
            let address = format!("\"{}\" ", mac(station));
            let here = format!("\"{}\" ", self.at[&station].device());
            let places = known.iter().filter_map(|line| line.strip_prefix(&address));
            places.into_iter().any(|place| !place.starts_with(&here))
        };
        let sources: Vec<_> =
            self.stations.iter().copied().filter(|&station| !is_elsewhere(station)).collect();
        if sources.is_empty() {
            return Ok(());
        }
        for _ in 0..FRAMES / 2 {
            let source = self.random.pick(&sources);
            let to = self.likely_from(source);
            let number = self.sent as u32;
            let frame = self.random.frame(source, &to, number);
            self.send(self.at[&source], &frame)?;
        }
        Ok(())
    }

    /// To everyone, in every VLAN.
    fn speak(&mut self, station: Mac) -> Result<()> {
        let at = self.at[&station];
        let everyone = frame(station, EVERYONE, self.sent as u32);
        self.send(at, &everyone)?;
        if self.filtering == Filtering::On {
            for vlan in VLANS {
                self.send(at, &tagged(vlan, &everyone))?;
            }
        }
        Ok(())
    }

    /// Stations that one speaks to: mostly such as its bridge reaches while nothing is broken.
    fn likely_from(&mut self, source: Mac) -> Vec<Mac> {
        let from = self.at[&source];
        let is_near = |station: &&Mac| {
            let at = self.at[*station];
            at != from && at.bridge() == from.bridge()
        };
        let near: Vec<_> = self.stations.iter().filter(is_near).copied().collect();
        if near.is_empty() || self.random.once_in(4) { self.stations.clone() } else { near }
    }

    fn happens(&mut self, event: Event) -> Result<Vec<String>> {
        match event {
            Event::Commands { commands, mend } => {
                if !mend.is_empty() {
                    self.broken.push_back(mend);
                }
                self.run(commands)
            }
            Event::Moves { station, to } => {
                self.at.insert(station, to);
                self.speak(station)?;
                Ok(vec![format!("{station:02x?} moves to {to:?}")])
            }
            Event::Told { station, at } => {
                self.at.insert(station, at);
                let address = mac(station);
                self.run(vec![format!(
                    "bridge fdb replace {address} dev {} master static",
                    at.device()
                )])
            }
            Event::Ages { bridge } => {
                let set =
                    |time: u32| format!("ip link set {bridge} type bridge ageing_time {time}");
                let mut said = self.run(vec![set(1)])?;
                for lab in [&self.native, &self.off] {
                    wait_until("all that was learned is forgotten", SOON, || {
                        let left = lab.stations()?;
                        let of_it = |line: &&String| line.contains(bridge) && line.contains("\"\"");
                        let learned: Vec<_> = left.iter().filter(of_it).collect();
                        ensure!(learned.is_empty(), "{learned:?}");
                        Ok(())
                    })?;
                }
                said.extend(self.run(vec![set(30_000)])?);
                Ok(said)
            }
        }
    }

    /// Commands in both; what fails in one fails in the other.
    fn run(&self, commands: Vec<String>) -> Result<Vec<String>> {
        let [native, off] = [&self.native, &self.off].map(|lab| lab.run(&commands));
        let (native, off) = (native?, off?);
        ensure!(native == off, "with XDP: {native:?}, without: {off:?}");
        Ok(native)
    }

    fn mend_all(&mut self) -> Result<()> {
        while let Some(mend) = self.broken.pop_front() {
            self.run(mend)?;
        }
        self.native.follow()
    }

    fn send(&mut self, at: Place, frame: &[u8]) -> Result<()> {
        let [native, off] = [self.native.send(at, frame)?, self.off.send(at, frame)?];
        ensure!(native == off, "{at:?} takes frames in one laboratory only");
        self.sent += 1;
        Ok(())
    }

    /// The kernel's bridges have learned the same, and the same has come out everywhere.
    fn compare(&mut self) -> Result<()> {
        let Self { native, off, surplus, .. } = self;
        wait_until("both bridges know the same", SOON, || {
            let [native, off] = [native.stations()?, off.stations()?];
            let differ: Vec<_> = native.symmetric_difference(&off).collect();
            ensure!(differ.is_empty(), "{differ:#?}");
            Ok(())
        })?;
        wait_until("the same has come out", SOON, || {
            for (lab, weight) in [(&*native, 1), (&*off, -1)] {
                for delivered in lab.delivered()? {
                    *surplus.entry(delivered).or_default() += weight;
                }
            }
            surplus.retain(|_, count| *count != 0);
            ensure!(surplus.is_empty(), "with XDP, less without: {surplus:02x?}");
            Ok(())
        })
    }
}
