//! P1: what a packet costs, against a C program that does the same.
//!
//! BPF_PROG_TEST_RUN repeats a program on the packet that its last run left. So what is run is a
//! program that restores the packet and tail-calls the subject; what that costs before a subject
//! that does nothing is taken off.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRunOptions,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun as _, Xdp},
};

use crate::{
    figure::{Bound, Figure, Side},
    frames::{self, Network, TEMPLATE},
    lab::Lab,
    objects::{self, RESTORE},
};

struct Case {
    name: &'static str,
    frame: Vec<u8>,
    action: u32,
}

// Of enum xdp_action.
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

fn cases() -> Vec<Case> {
    let case = |name, frame, action| Case { name, frame, action };
    let out_of = |tunnel, to| frames::encapsulated(tunnel, to);
    vec![
        case("encap", frames::plain(Network::Keyless), REDIRECT),
        case("encap, key", frames::plain(Network::Keyed), REDIRECT),
        case("decap to next hop", out_of(Network::Keyless, Network::NextHop), REDIRECT),
        case("decap to next hop, key", out_of(Network::Keyed, Network::NextHop), REDIRECT),
        case("transit", out_of(Network::Keyless, Network::Onward), REDIRECT),
        case("pass, no tunnel route", frames::plain(Network::Unknown), PASS),
    ]
}

/// Runs of a program in a call, which is shorter than the scheduler's tick so that some calls are
/// not interrupted at all, and calls in a round: the fastest counts, being the least disturbed.
const REPEAT: u32 = 10_000;
const TRIES: u32 = 100;

pub fn measure(lab: &mut Lab, rounds: u32) -> Result<Vec<Figure>> {
    let mut harness = Harness::new(lab)?;
    let mut figures = Vec::new();
    for case in cases() {
        let subjects: Vec<(&str, ProgramFd)> = lab
            .subjects
            .all()?
            .into_iter()
            .map(|(name, program)| Ok((name, program.fd()?.try_clone()?)))
            .collect::<Result<_>>()?;
        harness.take(&case.frame)?;
        harness.same_answers(lab, &case, &subjects)?;

        let mut costs = vec![Vec::new(); subjects.len()];
        for _ in 0..rounds {
            let mut fastest = vec![f64::MAX; subjects.len() + 1];
            for _ in 0..TRIES {
                for (fastest, subject) in fastest.iter_mut().zip(
                    subjects.iter().map(|(_, fd)| fd).chain([&harness.nothing.try_clone()?]),
                ) {
                    *fastest = harness.nanoseconds(subject)?.min(*fastest);
                }
            }
            let restoring = fastest.pop().expect("nothing was measured too");
            for (costs, with_restoring) in costs.iter_mut().zip(fastest) {
                costs.push(with_restoring - restoring);
            }
        }
        let mut sides: Vec<Side> = subjects
            .iter()
            .zip(costs)
            .map(|((name, _), rounds)| Side { name: (*name).to_owned(), rounds })
            .collect();
        let earlier = (sides.len() == 3).then(|| sides.remove(2));
        let [rust, c] = <[Side; 2]>::try_from(sides).expect("this build and the comparator");
        let figure = |bound, reference| {
            Figure::new("P1", case.name, "ns", bound, rust.clone(), reference)
        };
        figures.push(figure(Bound::AtMost(1.05), c));
        figures.extend(earlier.map(|earlier| figure(Bound::None, earlier)));
    }
    Ok(figures)
}

struct Harness {
    ebpf: Ebpf,
    template: Array<MapData, [u8; TEMPLATE + 8]>,
    subject: ProgramArray<MapData>,
    nothing: ProgramFd,
    frame: Vec<u8>,
}

impl Harness {
    fn new(lab: &Lab) -> Result<Self> {
        let mut ebpf = Ebpf::load(RESTORE)?;
        objects::program(&mut ebpf, "nothing")?.load()?;
        let restore = objects::program(&mut ebpf, "restore")?;
        restore.load()?;
        lab.make_known(restore)?;
        let mut map = |name| ebpf.take_map(name).with_context(|| format!("there is no map {name}"));
        let template = Array::try_from(map("TEMPLATE")?)?;
        let subject = ProgramArray::try_from(map("SUBJECT")?)?;
        let nothing = objects::program(&mut ebpf, "nothing")?.fd()?.try_clone()?;
        Ok(Self { ebpf, template, subject, nothing, frame: Vec::new() })
    }

    fn take(&mut self, frame: &[u8]) -> Result<()> {
        let mut template = [0; TEMPLATE + 8];
        template[..TEMPLATE].copy_from_slice(&frame[..TEMPLATE]);
        template[TEMPLATE..].copy_from_slice(&(frame.len() as u64).to_ne_bytes());
        self.template.set(0, template, 0)?;
        self.frame = frame.to_owned();
        Ok(())
    }

    fn restore(&mut self) -> Result<&mut Xdp> {
        objects::program(&mut self.ebpf, "restore")
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
            for tunnel in 0..3 {
                lab.maps.counters.reset(tunnel);
            }
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
