//! The programs, loaded once for all tests of this binary, in a network namespace of their own.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    maps::MapData,
    programs::{ProgramError, TestRun as _, TestRunOptions, TestRunResult},
};
use gre_ebpf_common::{counters::Tier, outcome::Outcome, sequence::Sequence};
use gre_userspace::{
    dataplane::DataPlane,
    loader::{self, Build, Loaded, Programs, XdpModes},
    maps::Maps,
};
use nix::sched::{CloneFlags, setns};

use crate::{
    pins::Pins,
    test_run,
    world::{LIMITS, TUNNELS, interfaces},
};

pub struct Bench {
    programs: Programs,
    maps: Maps,
    /// An array of programs is emptied when it is neither pinned nor open.
    _detours: MapData,
    /// Interface indexes are this namespace's.
    namespace: File,
}

/// Where a packet comes in: the interface's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Xdp(u32),
    TcIn(u32),
    TcOut(u32),
}

impl Hook {
    pub fn tier(self) -> Tier {
        match self {
            Self::Xdp(_) => Tier::Xdp,
            Self::TcIn(_) | Self::TcOut(_) => Tier::Tc,
        }
    }
}

/// What a program made of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The kernel's number.
    pub action: u32,
    pub bytes: Vec<u8>,
}

/// A counter: its tier or tunnel, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    Outcome(u32, &'static str),
    Dropped(u32, &'static str),
    /// Tunnel, tier, and which.
    Traffic(u32, u32, &'static str),
}

/// Counters that are not zero.
pub type Counts = BTreeMap<Counter, u64>;

/// The bench, for this thread alone as long as it keeps the guard.
pub fn bench() -> MutexGuard<'static, Bench> {
    static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| Mutex::new(Bench::new()));
    // A test that failed leaves nothing behind that the next one does not set anew.
    let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    setns(&bench.namespace, CloneFlags::CLONE_NEWNET).expect("entering the bench's namespace");
    bench
}

impl Bench {
    fn new() -> Self {
        // Gone when the programs are loaded, and so before any test begins.
        let pins = Pins::new();
        let namespace = thread::spawn(|| test_run::namespace(&interfaces()))
            .join()
            .expect("making a network namespace");
        let Loaded { programs, maps, .. } =
            loader::load(&Build::THIS, &LIMITS, pins.path(), XdpModes::NATIVE)
                .expect("loading the programs");
        let detours =
            MapData::from_pin(Build::THIS.maps(pins.path()).join("DETOURS")).expect("it is pinned");
        Self { programs, maps, _detours: detours, namespace }
    }

    /// Fills the maps, and sets the tunnels' sequence numbers; those not told start anew.
    pub fn apply(&mut self, plane: DataPlane, sequences: &BTreeMap<u32, Sequence>) {
        self.maps.apply(plane).expect("filling the maps");
        for spec in TUNNELS {
            let sequence = sequences.get(&spec.id).copied().unwrap_or_default();
            self.maps.sequences.store(spec.id, &sequence);
        }
    }

    /// The tunnels' sequence numbers that are not zero.
    pub fn sequences(&self) -> BTreeMap<u32, Sequence> {
        TUNNELS
            .iter()
            .map(|spec| (spec.id, self.maps.sequences.load(spec.id)))
            .filter(|(_, sequence)| *sequence != Sequence::default())
            .collect()
    }

    /// Runs a program on a frame; the counters that moved are told as well.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> (Run, Counts) {
        let before = self.counts();
        let run = match hook {
            Hook::Xdp(ifindex) => self.xdp(ifindex, frame),
            Hook::TcIn(ifindex) | Hook::TcOut(ifindex) => self.tc(hook, ifindex, frame),
        };
        let mut moved = self.counts();
        moved.retain(|counter, value| {
            *value -= before.get(counter).copied().unwrap_or(0);
            *value != 0
        });
        let run = run.unwrap_or_else(|error| panic!("BPF_PROG_TEST_RUN: {error}: {frame:02x?}"));
        (run, moved)
    }

    fn xdp(&mut self, ifindex: u32, frame: &[u8]) -> Result<Run, ProgramError> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [0, frame.len() as u32, 0, ifindex, 0, 0];
        let program = self.programs.xdp().expect("it was loaded");
        test_run(&words, frame, |options| program.test_run(options))
    }

    fn tc(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<Run, ProgramError> {
        // struct __sk_buff, 192 bytes: ifindex of it.
        let mut words = [0; 48];
        words[10] = ifindex;
        let program = match hook {
            Hook::TcOut(_) => self.programs.tc_out(),
            Hook::TcIn(_) | Hook::Xdp(_) => self.programs.tc_in(),
        };
        let program = program.expect("it was loaded");
        test_run(&words, frame, |options| program.test_run(options))
    }

    fn counts(&self) -> Counts {
        let counters = &self.maps.counters;
        let mut counts = Counts::new();
        for &outcome in Outcome::ALL {
            for tier in [Tier::Xdp, Tier::Tc] {
                let counter = Counter::Outcome(tier as u32, outcome.label());
                counts.insert(counter, counters.outcome(tier, outcome));
            }
            for spec in TUNNELS {
                let counter = Counter::Dropped(spec.id, outcome.label());
                counts.insert(counter, counters.tunnel_drops(spec.id, outcome));
            }
        }
        for spec in TUNNELS {
            for (tier, traffic) in (0..).zip(counters.tunnel(spec.id)) {
                for (name, value) in [
                    ("rx_packets", traffic.rx_packets),
                    ("rx_bytes", traffic.rx_bytes),
                    ("tx_packets", traffic.tx_packets),
                    ("tx_bytes", traffic.tx_bytes),
                ] {
                    counts.insert(Counter::Traffic(spec.id, tier, name), value);
                }
            }
        }
        counts.retain(|_, value| *value != 0);
        counts
    }
}

/// Room for the longest outer header, and then some: more than that is an error.
const ROOM: usize = 128;

fn test_run(
    context: &[u32],
    data: &[u8],
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Result<Run, ProgramError> {
    let (action, bytes) = test_run::test_run(context, data, ROOM, run)?;
    Ok(Run { action, bytes })
}
