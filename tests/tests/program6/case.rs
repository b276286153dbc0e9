//! A packet, and all that must come of it: the action, every byte, every counter that moves, and
//! the sequence numbers.

use std::{collections::BTreeMap, fmt::Write as _};

use gre_ebpf_common::{counters::Tier, outcome::Outcome, sequence::Sequence};
use gre_userspace::dataplane::DataPlane;

use crate::{
    bench::{Bench, Counter, Counts, Hook, Run, bench},
    frame::{encapsulated, encapsulated_by_tc, to_device, to_host, to_underlay},
    packet::Packet,
    world::{LAN, Spec, WAN, world},
};

#[must_use]
pub struct Case {
    what: String,
    hook: Hook,
    frame: Vec<u8>,
    changes: Vec<World>,
    sequences: BTreeMap<u32, Sequence>,
    expect: Expect,
}

struct Expect {
    action: Action,
    outcome: Outcome,
    /// The frame that leaves, given what left; else the one that came.
    output: Option<Output>,
    /// Interface that XDP redirects out of.
    egress: Option<u32>,
    /// Counters that move beside the outcome's.
    counts: Counts,
    /// Numbers sent and expected, where they change.
    sequences: BTreeMap<u32, Change>,
}

type World = Box<dyn Fn(&mut DataPlane)>;
type Output = Box<dyn Fn(&[u8]) -> Vec<u8>>;
type Change = Box<dyn Fn(&mut Sequence)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
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
            (Self::Drop | Self::Consume, Tier::Xdp) => 1,
            (Self::Pass, Tier::Xdp) => 2,
            (Self::Redirect, Tier::Xdp) => 4,
            (Self::Drop, Tier::Tc) => 2,
            (Self::Pass, Tier::Tc) => u32::MAX,
            (Self::Redirect | Self::Consume, Tier::Tc) => 7,
        }
    }
}

impl Case {
    /// A frame that should be passed on untouched, until told otherwise.
    pub fn new(what: impl Into<String>, hook: Hook, frame: Vec<u8>) -> Self {
        let expect = Expect {
            action: Action::Pass,
            outcome: Outcome::NoTunnelRoute,
            output: None,
            egress: None,
            counts: Counts::new(),
            sequences: BTreeMap::new(),
        };
        let (changes, sequences) = (Vec::new(), BTreeMap::new());
        Self { what: what.into(), hook, frame, changes, sequences, expect }
    }

    /// In a world that differs by this, and by what it was given before.
    pub fn given(mut self, change: impl Fn(&mut DataPlane) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// With these numbers of a tunnel before.
    pub fn numbered(mut self, tunnel: Spec, sent: u64, expected: u32) -> Self {
        let sequence = self.sequences.entry(tunnel.id).or_default();
        (sequence.sent, sequence.expected) = (sent, expected);
        self
    }

    /// A tunnel's sequence numbers change like this.
    pub fn then(mut self, tunnel: Spec, change: impl Fn(&mut Sequence) + 'static) -> Self {
        self.expect.sequences.insert(tunnel.id, Box::new(change));
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

    /// Ends as it should, counted on no tunnel.
    pub fn consumed(mut self, outcome: Outcome) -> Self {
        self.expect.action = Action::Consume;
        self.expect.outcome = outcome;
        self
    }

    /// Leaves as `output` makes it, given what left.
    pub fn sends(
        mut self,
        outcome: Outcome,
        egress: u32,
        output: impl Fn(&[u8]) -> Vec<u8> + 'static,
    ) -> Self {
        self.expect.action = Action::Redirect;
        self.expect.outcome = outcome;
        self.expect.egress = Some(egress);
        self.expect.output = Some(Box::new(output));
        self
    }

    /// Goes into the tunnel as it is, with the first sequence number.
    pub fn encapsulates(self, tunnel: Spec, inner: &Packet) -> Self {
        let (hook, packet) = (self.hook, inner.clone());
        self.sends(Outcome::Encapsulated, WAN, move |found| {
            let outer = encapsulated(tunnel, &packet, 0, found).bytes();
            match hook {
                Hook::Xdp(_) => to_underlay(&outer),
                Hook::TcIn(_) | Hook::TcOut(_) => encapsulated_by_tc(&outer),
            }
        })
        .sent(tunnel, inner.bytes().len())
    }

    /// Comes out of the tunnel: in XDP goes to the HOST, one less to live; in TC to the device.
    pub fn comes_out(self, tunnel: Spec, inner: &Packet) -> Self {
        if matches!(self.hook, Hook::TcIn(_)) {
            return self.delivered(tunnel, &inner.bytes());
        }
        let out = to_host(&inner.forwarded().bytes());
        self.sends(Outcome::Decapsulated, LAN, move |_| out.clone())
            .received(tunnel, inner.bytes().len())
    }

    /// Goes to the tunnel's device.
    pub fn delivered(self, tunnel: Spec, inner: &[u8]) -> Self {
        let out = to_device(tunnel, inner);
        self.sends(Outcome::ToDevice, tunnel.peer(), move |_| out.clone())
            .received(tunnel, inner.len())
    }

    /// Bytes are of the inner packet, as they are for `sent`. Of a tunnel that takes numbers, the
    /// first has come.
    pub fn received(mut self, tunnel: Spec, bytes: usize) -> Self {
        if tunnel.sequence {
            self = self.then(tunnel, |sequence| sequence.expected = 1);
        }
        self.traffic(tunnel, [("rx_packets", 1), ("rx_bytes", bytes as u64)])
    }

    /// Of a tunnel that numbers its packets, the first has been sent.
    pub fn sent(mut self, tunnel: Spec, bytes: usize) -> Self {
        if tunnel.sequence {
            self = self.then(tunnel, |sequence| sequence.sent += 1);
        }
        self.traffic(tunnel, [("tx_packets", 1), ("tx_bytes", bytes as u64)])
    }

    fn traffic(mut self, tunnel: Spec, moved: [(&'static str, u64); 2]) -> Self {
        let tier = self.hook.tier() as u32;
        self.expect
            .counts
            .extend(moved.map(|(name, value)| (Counter::Traffic(tunnel.id, tier, name), value)));
        self
    }

    /// What differs from what is expected, in words; nothing if all is well.
    fn run(&self, bench: &mut Bench) -> String {
        let mut plane = world();
        for change in &self.changes {
            change(&mut plane);
        }
        // Only into this slot of the device map: that it leaves shows where it leaves.
        if let Some(egress) = self.expect.egress {
            plane.tx_ports = [egress].into();
        }
        bench.apply(plane, &self.sequences);
        let (run, moved) = bench.run(self.hook, &self.frame);
        self.compare(&run, moved, &bench.sequences())
    }

    fn compare(&self, run: &Run, moved: Counts, sequences: &BTreeMap<u32, Sequence>) -> String {
        let (tier, expect) = (self.hook.tier(), &self.expect);
        let mut report = String::new();
        let action = expect.action.number(tier);
        if run.action != action {
            let _ = writeln!(report, "  action {}, not {:?} ({action})", run.action, expect.action);
        }
        let mut counts = expect.counts.clone();
        counts.insert(Counter::Outcome(tier as u32, expect.outcome.label()), 1);
        counts.retain(|_, count| *count != 0);
        if moved != counts {
            let _ = writeln!(report, "  moved    {moved:?}\n  expected {counts:?}");
        }
        let mut numbers = self.sequences.clone();
        for (&tunnel, change) in &expect.sequences {
            change(numbers.entry(tunnel).or_default());
        }
        numbers.retain(|_, sequence| *sequence != Sequence::default());
        if *sequences != numbers {
            let _ = writeln!(report, "  numbers  {sequences:?}\n  expected {numbers:?}");
        }
        // What is shot goes nowhere.
        if !(expect.action == Action::Drop && tier == Tier::Tc) {
            let bytes = match &expect.output {
                Some(output) => output(&run.bytes),
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

/// Runs all of a table, and fails with all that went wrong.
pub fn check(cases: impl IntoIterator<Item = Case>) {
    let mut bench = bench();
    let (mut count, mut report) = (0, String::new());
    for case in cases {
        count += 1;
        let differences = case.run(&mut bench);
        if !differences.is_empty() {
            let _ = writeln!(report, "{} ({:?}):\n{differences}", case.what, case.hook);
        }
    }
    assert!(count > 0, "the table is empty");
    assert!(report.is_empty(), "\n{report}");
    println!("{count} packets");
}
