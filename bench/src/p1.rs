//! P1: what a packet costs, against a C program that does the same.
//!
//! BPF_PROG_TEST_RUN repeats a program on the packet that its last run left. So what is run is a
//! program that writes the packet anew and tail-calls the subject; what that costs before a subject
//! that does nothing is taken off. Warm, it is the same packet each time. Cold, each goes by another
//! of a million routes and 100,000 tunnels, so that hardly any of what is looked up is in the cache.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{MapData, ProgramArray},
    programs::{ProgramFd, TestRun as _, Xdp},
};
use tests::interrupt;

use crate::{
    Effort,
    aim::{Aim, Shape, TARGETS, Target},
    figure::{Bound, Figure, Side},
    frames::{self, Network},
    lab::Lab,
    objects::{self, RESTORE},
    scale::{self, Scale, Variety},
};

struct Case {
    name: &'static str,
    shape: Shape,
    targets: Vec<Target>,
    action: u32,
}

// Of enum xdp_action.
const PASS: u32 = 2;
pub const REDIRECT: u32 = 4;

fn cases(scale: &Scale) -> Vec<Case> {
    let warm = |name, shape: Shape, action| {
        let targets = vec![shape.target()];
        Case { name, shape, targets, action }
    };
    let cold = |name, (shape, targets)| Case { name, shape, targets, action: REDIRECT };
    let out_of = frames::encapsulated;
    vec![
        warm("encap", frames::plain(Network::Keyless), REDIRECT),
        warm("encap, key", frames::plain(Network::Keyed), REDIRECT),
        warm("decap to next hop", out_of(Network::Keyless, Network::NextHop), REDIRECT),
        warm("decap to next hop, key", out_of(Network::Keyed, Network::NextHop), REDIRECT),
        warm("transit", out_of(Network::Keyless, Network::Onward), REDIRECT),
        warm("pass, no tunnel route", frames::plain(Network::Unknown), PASS),
        cold("encap, cold", scale.encapsulated(Variety::Both)),
        cold("decap to next hop, cold", scale.decapsulated(Variety::Both)),
        cold("transit, cold", scale.transit(Variety::Both)),
    ]
}

/// Runs of a program in a call, which is shorter than the scheduler's tick so that some calls are
/// not interrupted at all, and calls in a round: the fastest counts, being the least disturbed.
const REPEAT: u32 = 10_000;
const TRIES: u32 = 50;
const QUICK_TRIES: u32 = 10;

pub fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let scale = Scale::new();
    let lab = &mut Lab::large(effort, &scale)?;
    let mut harness = Harness::new(lab, effort)?;
    let cases = cases(&scale);
    // By case, then by subject.
    let mut costs: Vec<Vec<Side>> = vec![Vec::new(); cases.len()];
    for round in 0..effort.rounds as usize {
        interrupt::check()?;
        lab.subjects.reload()?;
        let subjects: Vec<(&str, ProgramFd)> = lab
            .subjects
            .all()?
            .into_iter()
            .map(|(name, program)| Ok((name, program.fd()?.try_clone()?)))
            .collect::<Result<_>>()?;
        for turn in 0..cases.len() {
            // Each case comes first once: what is left of loading the programs disturbs it.
            let index = (round + turn) % cases.len();
            let (case, sides) = (&cases[index], &mut costs[index]);
            harness.take(&case.shape, &case.targets);
            harness.same_answers(lab, case, &subjects)?;
            let costs = harness.costs(&subjects)?;
            sides.resize_with(subjects.len(), || Side::new(""));
            for (side, ((name, _), cost)) in sides.iter_mut().zip(subjects.iter().zip(costs)) {
                side.name = (*name).to_owned();
                side.rounds.push(cost);
            }
        }
    }
    Ok(cases.iter().zip(costs).flat_map(|(case, sides)| figures(case.name, sides)).collect())
}

/// This build against the comparator and, where there is one, the earlier build.
fn figures(case: &'static str, sides: Vec<Side>) -> Vec<Figure> {
    let mut sides = sides.into_iter();
    let Some(rust) = sides.next() else { return Vec::new() };
    [Bound::AtMost(1.05), Bound::None]
        .into_iter()
        .zip(sides)
        .map(|(bound, other)| Figure::ratio("P1", case, "ns", bound, rust.clone(), other))
        .collect()
}

/// A packet, and programs that it is run through.
pub struct Harness {
    ebpf: Ebpf,
    aim: Aim,
    subject: ProgramArray<MapData>,
    nothing: ProgramFd,
    frame: Vec<u8>,
    tries: u32,
}

impl Harness {
    pub fn new(lab: &Lab, effort: &Effort) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().map_max_entries("TARGETS", TARGETS).load(RESTORE)?;
        objects::program(&mut ebpf, "nothing")?.load()?;
        let restore = objects::program(&mut ebpf, "restore")?;
        restore.load()?;
        lab.make_known(restore)?;
        let subject = ebpf.take_map("SUBJECT").context("there is no map SUBJECT")?.try_into()?;
        let nothing = objects::program(&mut ebpf, "nothing")?.fd()?.try_clone()?;
        let tries = if effort.quick { QUICK_TRIES } else { TRIES };
        let aim = Aim::of(&ebpf)?;
        Ok(Self { ebpf, aim, subject, nothing, frame: Vec::new(), tries })
    }

    pub fn take(&mut self, shape: &Shape, targets: &[Target]) {
        self.aim.at(shape, targets);
        self.frame.clone_from(&shape.frame);
    }

    fn restore(&mut self) -> Result<&mut Xdp> {
        objects::program(&mut self.ebpf, "restore")
    }

    /// What a packet costs each subject.
    pub fn costs(&mut self, subjects: &[(&str, ProgramFd)]) -> Result<Vec<f64>> {
        let nothing = self.nothing.try_clone()?;
        let mut restoring = f64::MAX;
        let mut fastest = vec![f64::MAX; subjects.len()];
        for _ in 0..self.tries {
            restoring = restoring.min(self.nanoseconds(&nothing)?);
            for (fastest, (_, subject)) in fastest.iter_mut().zip(subjects) {
                *fastest = fastest.min(self.nanoseconds(subject)?);
            }
        }
        Ok(fastest.into_iter().map(|cost| cost - restoring).collect())
    }

    fn nanoseconds(&mut self, subject: &ProgramFd) -> Result<f64> {
        self.subject.set(0, subject, 0)?;
        let frame = self.frame.clone();
        let started = std::time::Instant::now();
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..TestRunOptions::new() };
        self.restore()?.test_run(options)?;
        // The kernel's own figure is whole nanoseconds. The call itself costs every subject the
        // same, and is taken off with the restoring.
        Ok(started.elapsed().as_nanos() as f64 / f64::from(REPEAT))
    }

    /// What a subject does with the packet.
    pub fn action(&mut self, subject: &ProgramFd) -> Result<u32> {
        self.subject.set(0, subject, 0)?;
        let frame = self.frame.clone();
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        Ok(self.restore()?.test_run(options)?.return_value)
    }

    /// All subjects do with the packet what is expected, and leave the same bytes.
    fn same_answers(
        &mut self,
        lab: &Lab,
        case: &Case,
        subjects: &[(&str, ProgramFd)],
    ) -> Result<()> {
        let mut answers = Vec::new();
        for (name, subject) in subjects {
            // The outer header's identification is made from these.
            for tunnel in 0..=scale::FIRST_TUNNEL {
                lab.maps.counters.reset(tunnel);
            }
            self.aim.rewind();
            self.subject.set(0, subject, 0)?;
            let mut out = vec![0; 2 * self.frame.len()];
            let frame = self.frame.clone();
            let result = self.restore()?.test_run(TestRunOptions {
                data_in: Some(&frame),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })?;
            objects::ensure_equal(case.name, name, result.return_value, case.action)?;
            out.truncate(result.data_size_out as usize);
            answers.push(out);
        }
        ensure!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{}: the programs do not forward the same packet",
            case.name
        );
        Ok(())
    }
}
