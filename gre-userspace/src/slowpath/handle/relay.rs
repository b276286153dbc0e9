//! ICMP errors about outer packets: path MTUs are learned, the rest is told to inner senders.

use std::time::Instant;

use super::{
    super::{
        icmp::{IcmpError, Verdict},
        path_mtu::Path,
        reason::Reason,
        tables::TunnelEntry,
    },
    Action, PathMtu, SlowPath,
};

impl SlowPath {
    pub(super) fn icmp_v4(&mut self, packet: &[u8], now: Instant) -> Vec<Action> {
        match IcmpError::parse_v4(packet) {
            Ok(error) => self.icmp_error(&error, now),
            Err(reason) => {
                self.counts.add(reason);
                Vec::new()
            }
        }
    }

    pub(super) fn icmp_v6(&mut self, message: &[u8], now: Instant) -> Vec<Action> {
        match IcmpError::parse_v6(message) {
            Ok(error) => self.icmp_error(&error, now),
            Err(reason) => {
                self.counts.add(reason);
                Vec::new()
            }
        }
    }

    /// A quote that ends in front of the key may be of any keyed tunnel on that path: a path's MTU
    /// is the same for all of them.
    fn icmp_error(&mut self, error: &IcmpError<'_>, now: Instant) -> Vec<Action> {
        let about: Vec<_> = self
            .tables
            .towards(error.remote)
            .filter(|(_, tunnel)| error.is_about(tunnel.local, tunnel.remote, tunnel.sent_key))
            .map(|(id, tunnel)| (id, tunnel.clone()))
            .collect();
        let Some((id, first)) = about.first() else {
            self.counts.add(Reason::IcmpNotOurs);
            return Vec::new();
        };
        let (reason, actions) = match error.verdict(first.ttl_inherit()) {
            Verdict::LearnPathMtu { mtu } => {
                let actions = self.learn(&about, mtu, now);
                let known = actions.is_empty();
                (if known { Reason::PathMtuKnown } else { Reason::PathMtuLearned }, actions)
            }
            Verdict::Relay(_) if first.is_adopted() => (Reason::IcmpOfKernels, Vec::new()),
            Verdict::Relay(_) if !error.gre.is_relayable() => (Reason::IcmpUnrelayable, Vec::new()),
            Verdict::Relay(complaint) => {
                match self.answer(*id, first, complaint, error.gre.inner, now) {
                    Ok(answer) => (Reason::IcmpRelayed, vec![answer]),
                    Err(Reason::TooBigUnanswerable) => (Reason::IcmpUnrelayable, Vec::new()),
                    Err(reason) => (reason, Vec::new()),
                }
            }
            Verdict::Ignored(reason) => (reason, Vec::new()),
        };
        self.counts.add(reason);
        actions
    }

    fn learn(&mut self, tunnels: &[(u32, TunnelEntry)], mtu: u16, now: Instant) -> Vec<Action> {
        let learned = tunnels.iter().filter_map(|(id, tunnel)| {
            let path = Path { tunnel: *id, remote: tunnel.remote };
            let mtu = self.path_mtus.learn(path, mtu, tunnel.underlay_mtu, now)?;
            let (name, remote) = (tunnel.name.clone(), tunnel.remote);
            Some(Action::PathMtu(PathMtu { tunnel: name, remote, mtu: Some(mtu) }))
        });
        learned.collect()
    }
}
