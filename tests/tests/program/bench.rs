//! The programs, loaded once for all tests of this binary, in a network namespace of their own.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    maps::{Array, Map, MapData, PerfEventArray, ProgramArray, perf::PerfEventArrayBuffer},
    programs::{ProgramError, TestRun as _, TestRunOptions, TestRunResult},
    util::online_cpus,
};
use gre_ebpf_common::{
    counters::Tier,
    mismatch::Mismatch,
    outcome::Outcome,
    reassembly::{Bucket, TIMEOUT_NS, WAYS},
    sequence::Sequence,
};
use gre_userspace::{
    dataplane::DataPlane,
    loader::{self, Build, Loaded, Programs, XdpModes},
    maps::Maps,
    model::Limits,
};
use nix::sched::{CloneFlags, setns};

use crate::{
    frame::{ETHERNET, IPV4},
    pins::Pins,
    test_run,
    world::{LIMITS, interfaces},
};

pub struct Bench {
    pub programs: Programs,
    maps: Maps,
    /// Held, since the kernel empties an array of programs that nobody holds.
    detours: ProgramArray<MapData>,
    /// The fragments that wait, a bucket a value.
    held: Array<MapData, HeldBucket>,
    tunnels: u32,
    /// Interface indexes are this namespace's.
    namespace: File,
}

/// A [`Bucket`], as its words: the lock, and then of each slot what, since when, and whose.
type HeldBucket = [u64; size_of::<Bucket>() / 8];

/// Where a packet comes in: the interface's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Xdp(u32),
    /// The program for all packets, without the plain one before it.
    XdpAny(u32),
    TcIn(u32),
    TcOut(u32),
}

impl Hook {
    /// Bytes of the shortest frame of IPv4 that the kernel runs the program on: an Ethernet header,
    /// and for TC an IPv4 header as well (bpf_prog_test_run_skb, since 6.18).
    pub fn shortest(self) -> usize {
        match self {
            Self::Xdp(_) | Self::XdpAny(_) => ETHERNET,
            Self::TcIn(_) | Self::TcOut(_) => ETHERNET + IPV4,
        }
    }

    pub fn tier(self) -> Tier {
        match self {
            Self::Xdp(_) | Self::XdpAny(_) => Tier::Xdp,
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

/// What the kernel says of a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// XDP: bytes of metadata before the frame, which leave so much less headroom.
    pub metadata: usize,
    /// TC: segments of a super-packet.
    pub segments: u32,
    /// TC: their size. BPF_PROG_TEST_RUN tells no protocol of segmentation, so that the kernel
    /// refuses to change a packet that has one.
    pub segment_size: u32,
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
    static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| Mutex::new(Bench::new(&LIMITS)));
    // A test that failed leaves nothing behind that the next one does not set anew.
    let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    bench.enter();
    bench
}

impl Bench {
    pub fn new(limits: &Limits) -> Self {
        // Gone when the programs are loaded, and so before any test begins.
        let pins = Pins::new();
        let namespace = thread::spawn(|| test_run::namespace(&interfaces()))
            .join()
            .expect("making a network namespace");
        let Loaded { programs, maps, .. } =
            loader::load(&Build::THIS, limits, pins.path(), XdpModes::NATIVE)
                .expect("loading the programs");
        let detours =
            MapData::from_pin(Build::THIS.maps(pins.path()).join("DETOURS")).expect("it is pinned");
        let detours = ProgramArray::try_from(Map::ProgramArray(detours)).expect("it is one");
        let held =
            MapData::from_pin(Build::THIS.maps(pins.path()).join("HELD")).expect("it is pinned");
        let held = Array::try_from(Map::Array(held)).expect("it is one");
        Self { programs, maps, detours, held, tunnels: limits.tunnels, namespace }
    }

    /// Whether XDP has a program for what is not plain.
    pub fn lay_detour(&mut self, there: bool) {
        let program = self.programs.xdp_any().expect("it was loaded");
        let program = program.fd().expect("it was loaded");
        let result =
            if there { self.detours.set(0, program, 0) } else { self.detours.clear_index(&0) };
        result.expect("writing the map of programs");
    }

    /// Reads what TC hands up, as the daemon would, until the buffers are dropped.
    pub fn listen(&mut self) -> Vec<PerfEventArrayBuffer<MapData>> {
        let program = self.programs.tc_out().expect("it was loaded").info().expect("it is loaded");
        let ids = program.map_ids().expect("root sees them").expect("kernels tell since 4.15");
        let maps = ids.into_iter().map(|id| MapData::from_id(id).expect("it is used"));
        let events = maps
            .filter(|map| map.info().is_ok_and(|info| info.name_as_str() == Some("EVENTS")))
            .map(Map::PerfEventArray)
            .next()
            .expect("the program has the map");
        let mut events = PerfEventArray::try_from(events).expect("it is one");
        let cpus = online_cpus().expect("listing the CPUs");
        cpus.into_iter().map(|cpu| events.open(cpu, None).expect("opening a buffer")).collect()
    }

    /// Forgets what went through the tunnels.
    pub fn reset(&mut self) {
        for index in 0..self.held.len() {
            self.held.set(index, [0; size_of::<Bucket>() / 8], 0).expect("writing a bucket");
        }
        (0..self.tunnels).for_each(|tunnel| self.maps.reset(tunnel));
    }

    /// Makes all fragments that wait too old.
    pub fn age_fragments(&mut self) {
        for index in 0..self.held.len() {
            let mut bucket = self.held.get(&index, 0).expect("reading a bucket");
            for way in 0..WAYS {
                let since = &mut bucket[1 + 4 * way + 2];
                *since = since.saturating_sub(TIMEOUT_NS);
            }
            self.held.set(index, bucket, 0).expect("writing a bucket");
        }
    }

    pub fn sequence(&self, tunnel: u32) -> Sequence {
        self.maps.sequence(tunnel)
    }

    pub fn set_sequence(&mut self, tunnel: u32, sequence: Sequence) {
        self.maps.sequences.store(tunnel, &sequence);
    }

    pub fn mismatch(&self, tunnel: u32) -> Mismatch {
        self.maps.mismatch(tunnel)
    }

    /// Moves this thread into its namespace.
    pub fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("entering the bench's namespace");
    }

    pub fn apply(&mut self, plane: DataPlane) {
        self.maps.apply(plane).expect("filling the maps");
    }

    /// Runs a program on a frame; the counters that moved are told as well.
    pub fn run(&mut self, hook: Hook, context: Context, frame: &[u8]) -> (Run, Counts) {
        let before = self.counts();
        let run = self.test_run(hook, context, frame);
        let mut moved = self.counts();
        moved.retain(|counter, value| {
            *value -= before.get(counter).copied().unwrap_or(0);
            *value != 0
        });
        (run, moved)
    }

    /// Runs a program on a frame, and looks at no counters.
    pub fn send(&mut self, hook: Hook, frame: &[u8]) -> Run {
        self.test_run(hook, Context::default(), frame)
    }

    fn test_run(&mut self, hook: Hook, context: Context, frame: &[u8]) -> Run {
        let run = match hook {
            Hook::Xdp(ifindex) | Hook::XdpAny(ifindex) => self.xdp(hook, ifindex, context, frame),
            Hook::TcIn(ifindex) | Hook::TcOut(ifindex) => self.tc(hook, ifindex, context, frame),
        };
        run.expect("BPF_PROG_TEST_RUN")
    }

    /// Packets and bytes that have come from a tunnel, of both tiers.
    pub fn received(&self, tunnel: u32) -> (u64, u64) {
        let tiers = self.maps.counters.tunnel(tunnel);
        tiers.iter().fold((0, 0), |(packets, bytes), tier| {
            (packets + tier.rx_packets, bytes + tier.rx_bytes)
        })
    }

    pub fn outcome(&self, tier: Tier, outcome: Outcome) -> u64 {
        self.maps.counters.outcome(tier, outcome)
    }

    fn xdp(
        &mut self,
        hook: Hook,
        ifindex: u32,
        context: Context,
        frame: &[u8],
    ) -> Result<Run, ProgramError> {
        let data = [&vec![0; context.metadata], frame].concat();
        let (start, end) = (context.metadata as u32, data.len() as u32);
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [start, end, 0, ifindex, 0, 0];
        let program = match hook {
            Hook::XdpAny(_) => self.programs.xdp_any(),
            Hook::Xdp(_) | Hook::TcIn(_) | Hook::TcOut(_) => self.programs.xdp(),
        };
        let program = program.expect("it was loaded");
        let mut run = test_run(&words, &data, |options| program.test_run(options))?;
        run.bytes.drain(..context.metadata);
        Ok(run)
    }

    fn tc(
        &mut self,
        hook: Hook,
        ifindex: u32,
        context: Context,
        frame: &[u8],
    ) -> Result<Run, ProgramError> {
        // struct __sk_buff, 192 bytes: ifindex, gso_segs and gso_size of it.
        let mut words = [0; 48];
        words[10] = ifindex;
        words[41] = context.segments;
        words[44] = context.segment_size;
        let program = match hook {
            Hook::TcOut(_) => self.programs.tc_out(),
            Hook::TcIn(_) | Hook::Xdp(_) | Hook::XdpAny(_) => self.programs.tc_in(),
        };
        let program = program.expect("it was loaded");
        test_run(&words, frame, |options| program.test_run(options))
    }

    pub fn counts(&self) -> Counts {
        let counters = &self.maps.counters;
        let mut counts = Counts::new();
        let mut count = |counter, value| {
            if value != 0 {
                counts.insert(counter, value);
            }
        };
        for &outcome in Outcome::ALL {
            for tier in [Tier::Xdp, Tier::Tc] {
                let counter = Counter::Outcome(tier as u32, outcome.label());
                count(counter, counters.outcome(tier, outcome));
            }
            for id in 0..self.tunnels {
                let counter = Counter::Dropped(id, outcome.label());
                count(counter, counters.tunnel_drops(id, outcome));
            }
        }
        for id in 0..self.tunnels {
            for (tier, traffic) in (0..).zip(counters.tunnel(id)) {
                for (name, value) in [
                    ("rx_packets", traffic.rx_packets),
                    ("rx_bytes", traffic.rx_bytes),
                    ("tx_packets", traffic.tx_packets),
                    ("tx_bytes", traffic.tx_bytes),
                ] {
                    count(Counter::Traffic(id, tier, name), value);
                }
            }
        }
        counts
    }
}

/// Room for two outer headers, or for the other one of two fragments: more than that is an error.
const ROOM: usize = 2048;

fn test_run(
    context: &[u32],
    data: &[u8],
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Result<Run, ProgramError> {
    let (action, bytes) = test_run::test_run(context, data, ROOM, run)?;
    Ok(Run { action, bytes })
}
