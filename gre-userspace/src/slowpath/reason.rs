//! What can become of a packet in the daemon: each ends in one of these, or in an [`Outcome`] of
//! the programs' where it met the same fate as there.

use std::ops::AddAssign;

use gre_ebpf_common::outcome::{MAX_OUTCOMES, Outcome};

macro_rules! reasons {
    ($($name:ident, $label:literal, $help:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = $help] $name,)*
        }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in output and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What it means and what to look at, in one sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$name => $help,)*
                }
            }
        }
    };
}

reasons! {
    // Out of a tunnel.
    FragmentHeld, "fragment-held",
        "A fragment of an outer packet waits for the others.";
    FragmentDuplicate, "fragment-duplicate",
        "A fragment that is there already was dropped.";
    FragmentOverlap, "fragment-overlap",
        "Fragments overlap, an attack or a reused identification: their packet was dropped (RFC 5722).";
    FragmentMalformed, "fragment-malformed",
        "A fragment's length or offset is impossible.";
    FragmentEcn, "fragment-ecn",
        "Congestion was marked on a fragment of a packet without ECN: it was dropped (RFC 3168, 5.3).";
    ReassemblyTimeout, "reassembly-timeout",
        "A packet's fragments did not all arrive within 30 seconds: fragments get lost on the underlay.";
    ReassemblyEvicted, "reassembly-evicted",
        "An incomplete packet gave way to newer ones: let the remote fragment inner packets instead.";
    // Into a tunnel.
    InnerFragmented, "inner-fragmented",
        "Too long for the path, so it was sent in fragments, each encapsulated (RFC 7588).";
    OuterFragmented, "outer-fragmented",
        "Too long for the path, so its outer packet was sent in fragments, as nopmtudisc asks.";
    AnsweredTooBig, "answered-too-big",
        "Too long for the path: its sender was told the tunnel's MTU.";
    AnsweredLimit, "answered-encapsulation-limit",
        "Its own encapsulation limit allowed no further tunnel: its sender was told.";
    TooBigUnanswerable, "too-big-unanswerable",
        "Too long for the path, and a packet of which no ICMP error may tell (RFC 1812, RFC 4443).";
    TooBigProtocol, "too-big-protocol",
        "Too long for the path and neither IPv4 nor IPv6: lower its sender's MTU, or set nopmtudisc.";
    NoSourceAddress, "no-source-address",
        "No ICMP error could be sent, since this host has no address to send it from.";
    RateLimited, "rate-limited",
        "An ICMP error was not sent, since the tunnel has caused too many.";
    CannotFragment, "cannot-fragment",
        "The packet cannot be cut into fragments that the path carries.";
    FrameMalformed, "frame-malformed",
        "What a program handed up is not a frame: a fault of xgre, please report it.";
    UnknownTunnel, "unknown-tunnel",
        "The tunnel of a packet that a program handed up is gone.";
    // ICMP errors about outer packets.
    PathMtuLearned, "path-mtu-learned",
        "A router told of a smaller MTU on the way to a remote.";
    PathMtuKnown, "path-mtu-known",
        "A router told of an MTU on the way to a remote that is no smaller than the known one.";
    IcmpRelayed, "icmp-relayed",
        "An error on the way to a remote was told to the inner packet's sender.";
    IcmpNotOurs, "icmp-not-ours",
        "An ICMP error about a packet of no tunnel.";
    IcmpOfKernels, "icmp-of-kernels",
        "An error on the way to the remote of an adopted tunnel, which the kernel tells its sender of.";
    IcmpMalformed, "icmp-malformed",
        "An ICMP error with a wrong checksum, or that ends too early.";
    IcmpIgnored, "icmp-ignored",
        "An ICMP error of a kind that says nothing about a tunnel's path.";
    IcmpUnrelayable, "icmp-unrelayable",
        "An ICMP error quotes too little of the inner packet to tell its sender.";
    // Input and output.
    EventsLost, "events-lost",
        "The daemon did not read what the programs handed up as fast as they did.";
    SendFailed, "send-failed",
        "The kernel did not take a packet: the log says why.";
}

/// How often each happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    reasons: Vec<u64>,
    outcomes: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { reasons: vec![0; Reason::ALL.len()], outcomes: vec![0; MAX_OUTCOMES] }
    }
}

impl Counts {
    pub fn add(&mut self, what: impl Into<Fate>) {
        self.add_many(what, 1);
    }

    pub fn add_many(&mut self, what: impl Into<Fate>, packets: u64) {
        self.slot(what.into()).add_assign(packets);
    }

    fn slot(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Reason(reason) => &mut self.reasons[reason as usize],
            Fate::Outcome(outcome) => &mut self.outcomes[outcome as usize],
        }
    }

    /// Label, help and packets of what has happened, the programs' outcomes first.
    pub fn happened(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let outcomes = Outcome::ALL
            .iter()
            .map(|outcome| (outcome.label(), outcome.help(), self.outcomes[*outcome as usize]));
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.label(), reason.help(), self.reasons[*reason as usize]));
        outcomes.chain(reasons).filter(|(.., packets)| *packets > 0)
    }
}

/// One of the daemon's own reasons, or of the programs'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Reason(Reason),
    Outcome(Outcome),
}

impl From<Reason> for Fate {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<Outcome> for Fate {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_help_is_a_sentence() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.extend(Outcome::ALL.iter().map(|outcome| outcome.label()));
        let count = labels.len();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), count);
        assert!(Reason::ALL.iter().all(|reason| reason.help().ends_with('.')));
    }

    #[test]
    fn only_what_happened_is_told() {
        let mut counts = Counts::default();
        counts.add(Outcome::Loop);
        counts.add_many(Reason::EventsLost, 7);
        let told: Vec<_> = counts.happened().map(|(label, _, packets)| (label, packets)).collect();
        assert_eq!(told, [(Outcome::Loop.label(), 1), ("events-lost", 7)]);
    }
}
