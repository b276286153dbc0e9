//! A packet, and all that must come of it: the action, every byte, and every counter that moves.

use std::fmt::Write as _;

use gre_ebpf_common::{counters::Tier, outcome::Outcome};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::{Bench, Context, Counter, Counts, Hook, Run, bench},
    frame::IDENTIFICATION,
    world::{Spec, world},
};

pub struct Case {
    what: String,
    hook: Hook,
    frame: Vec<u8>,
    context: Context,
    before: Vec<(Hook, Vec<u8>)>,
    change: Box<dyn Fn(&mut DataPlane)>,
    expect: Expect,
}

struct Expect {
    action: Action,
    outcome: Outcome,
    /// The frame that leaves, given its identification; else the one that came.
    output: Option<Output>,
    /// Interface that XDP redirects out of.
    egress: Option<u32>,
    /// Counters that move beside the outcome's.
    counts: Counts,
}

type Output = Box<dyn Fn(u16) -> Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Abort,
    Drop,
    /// Of TC a redirect to nowhere: the kernel would not send a packet's other fragments after a drop.
    Consume,
    Pass,
    Redirect,
}

impl Action {
    /// Numbers of linux/bpf.h and linux/pkt_cls.h.
    fn number(self, tier: Tier) -> u32 {
        match (self, tier) {
            (Self::Abort, Tier::Xdp) => 0,
            (Self::Drop | Self::Consume, Tier::Xdp) => 1,
            (Self::Pass, Tier::Xdp) => 2,
            (Self::Redirect, Tier::Xdp) => 4,
            (Self::Abort | Self::Drop, Tier::Tc) => 2,
            (Self::Pass, Tier::Tc) => u32::MAX,
            (Self::Redirect | Self::Consume, Tier::Tc) => 7,
        }
    }
}

impl Case {
    /// A frame that should be passed on untouched, until told otherwise.
    pub fn new(what: impl Into<String>, hook: Hook, frame: Vec<u8>) -> Self {
        let outcome = Outcome::NoTunnelRoute;
        let (output, egress, counts) = (None, None, Counts::new());
        let expect = Expect { action: Action::Pass, outcome, output, egress, counts };
        let context = Context::default();
        let (what, before) = (what.into(), Vec::new());
        Self { what, hook, frame, context, before, change: Box::new(|_| ()), expect }
    }

    /// In a world that differs by this.
    pub fn given(mut self, change: impl Fn(&mut DataPlane) + 'static) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Told this of the packet.
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// When these frames have come before, in this order.
    pub fn after(mut self, before: impl IntoIterator<Item = (Hook, Vec<u8>)>) -> Self {
        self.before.extend(before);
        self
    }

    pub fn passes(mut self, outcome: Outcome) -> Self {
        self.expect.action = Action::Pass;
        self.expect.outcome = outcome;
        self
    }

    pub fn drops(mut self, outcome: Outcome, on: Spec) -> Self {
        self.expect.action = Action::Drop;
        self.expect.outcome = outcome;
        self.expect.counts.insert(Counter::Dropped(on.id, outcome.label()), 1);
        self
    }

    /// Ends here, as it should.
    pub fn consumes(mut self, outcome: Outcome) -> Self {
        self.expect.action = Action::Consume;
        self.expect.outcome = outcome;
        self
    }

    /// Ends as another frame than the one that came.
    pub fn leaves(mut self, frame: Vec<u8>) -> Self {
        self.expect.output = Some(Box::new(move |_| frame.clone()));
        self
    }

    /// Moves this counter as well.
    pub fn counting(mut self, counter: Counter, by: u64) -> Self {
        self.expect.counts.insert(counter, by);
        self
    }

    pub fn aborts(mut self, on: Spec) -> Self {
        self = self.drops(Outcome::Aborted, on);
        self.expect.action = Action::Abort;
        self
    }

    /// Leaves as `output` makes it, with the identification that the program chose.
    pub fn sends(
        mut self,
        outcome: Outcome,
        egress: u32,
        output: impl Fn(u16) -> Vec<u8> + 'static,
    ) -> Self {
        self.expect.action = Action::Redirect;
        self.expect.outcome = outcome;
        self.expect.egress = Some(egress);
        self.expect.output = Some(Box::new(output));
        self
    }

    /// Bytes are of the inner packet, as they are for `sent`.
    pub fn received(self, tunnel: Spec, packets: u64, bytes: usize) -> Self {
        self.traffic(tunnel, [("rx_packets", packets), ("rx_bytes", bytes as u64)])
    }

    pub fn sent(self, tunnel: Spec, packets: u64, bytes: usize) -> Self {
        self.traffic(tunnel, [("tx_packets", packets), ("tx_bytes", bytes as u64)])
    }

    fn traffic(mut self, tunnel: Spec, moved: [(&'static str, u64); 2]) -> Self {
        let tier = self.hook.tier() as u32;
        self.expect
            .counts
            .extend(moved.map(|(name, value)| (Counter::Traffic(tunnel.id, tier, name), value)));
        self.expect.counts.retain(|_, value| *value != 0);
        self
    }

    /// What differs from what is expected, in words; nothing if all is well.
    fn run(&self, hook: Hook, bench: &mut Bench) -> String {
        let mut plane = world();
        (self.change)(&mut plane);
        // Only into this slot of the device map: that it leaves shows where it leaves.
        if let Some(egress) = self.expect.egress {
            plane.tx_ports = [egress].into();
        }
        bench.apply(plane);
        bench.reset();
        for (at, frame) in &self.before {
            let at = match (*at, hook) {
                (Hook::Xdp(port), Hook::XdpAny(_)) => Hook::XdpAny(port),
                (at, _) => at,
            };
            bench.run(at, Context::default(), frame);
        }
        let (run, moved) = bench.run(hook, self.context, &self.frame);
        self.compare(&run, moved)
    }

    fn compare(&self, run: &Run, moved: Counts) -> String {
        let (tier, expect) = (self.hook.tier(), &self.expect);
        let mut report = String::new();
        let action = expect.action.number(tier);
        if run.action != action {
            let _ = writeln!(report, "  action {}, not {:?} ({action})", run.action, expect.action);
        }
        let mut counts = expect.counts.clone();
        counts.insert(Counter::Outcome(tier as u32, expect.outcome.label()), 1);
        if moved != counts {
            let _ = writeln!(report, "  moved    {moved:?}\n  expected {counts:?}");
        }
        let outcomes = moved.iter().filter(|(counter, _)| matches!(counter, Counter::Outcome(..)));
        if outcomes.map(|(_, count)| count).sum::<u64>() != 1 {
            let _ = writeln!(report, "  not exactly one outcome");
        }
        // What is aborted or shot goes nowhere.
        if expect.action != Action::Abort {
            let identification = run.bytes.get(IDENTIFICATION).map_or(0, |bytes| {
                u16::from_be_bytes(bytes.try_into().expect("it is two bytes long"))
            });
            let bytes = match &expect.output {
                Some(output) => output(identification),
                None => self.frame.clone(),
            };
            report.push_str(&first_difference(&run.bytes, &bytes));
        }
        report
    }
}

/// Where two frames part, with the bytes from there on.
fn first_difference(found: &[u8], expected: &[u8]) -> String {
    if found == expected {
        return String::new();
    }
    let at = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let rest = |bytes: &[u8]| format!("{:02x?}", bytes[at..].iter().take(16).collect::<Vec<_>>());
    format!(
        "  bytes    from {at} of {}: {}\n  expected from {at} of {}: {}\n",
        found.len(),
        rest(found),
        expected.len(),
        rest(expected)
    )
}

/// The hooks of a case: whatever XDP makes of a packet, the program for all packets makes as well.
fn hooks(hook: Hook) -> Vec<Hook> {
    match hook {
        Hook::Xdp(port) => vec![hook, Hook::XdpAny(port)],
        Hook::XdpAny(_) | Hook::TcIn(_) | Hook::TcOut(_) => vec![hook],
    }
}

/// Runs all of a table, and fails with all that went wrong.
pub fn check(cases: impl IntoIterator<Item = Case>) {
    let mut bench = bench();
    let (mut count, mut report) = (0, String::new());
    for case in cases {
        count += 1;
        for hook in hooks(case.hook) {
            let differences = case.run(hook, &mut bench);
            if !differences.is_empty() {
                let _ = writeln!(report, "{} ({hook:?}):\n{differences}", case.what);
            }
        }
    }
    assert!(count > 0, "the table is empty");
    assert!(report.is_empty(), "\n{report}");
    println!("{count} packets");
}
