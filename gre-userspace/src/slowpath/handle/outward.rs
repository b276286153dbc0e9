//! Into a tunnel: what is too long for its path, or carried by no program.

use std::{net::IpAddr, time::Instant};

use gre_ebpf_common::{encapsulate, limit::Limit, outcome::Outcome, tunnel::Flags};

use super::{
    super::{
        answer::{self, Complaint},
        fragment,
        offload::complete_checksum,
        oversize::{Decision, decide},
        packet::trimmed,
        path_mtu::Path,
        pipeline::{self, Stamp},
        reason::{Fate, Reason},
        sequence::Sequences,
        tables::TunnelEntry,
    },
    Action, SlowPath,
};

/// A packet from a tunnel's device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub tunnel: u32,
    pub ethertype: u16,
    pub packet: &'a [u8],
}

/// Where a packet goes: the tunnel, and how many bytes its path takes, outside and of the packet.
pub(super) struct Way {
    pub id: u32,
    pub tunnel: TunnelEntry,
    pub path_mtu: u16,
    pub payload_mtu: u16,
}

/// What goes in: a packet, or the frame around one.
pub(super) struct Load<'a> {
    /// Of what goes in.
    pub ethertype: u16,
    /// Of a frame, what is before the packet and, in a frame that is left whole, behind it.
    pub front: &'a [u8],
    pub packet: Vec<u8>,
    pub padding: &'a [u8],
}

impl SlowPath {
    /// Takes what is too long, or carried by no program.
    pub(super) fn outward(
        &mut self,
        frame: Frame<'_>,
        sequences: Sequences<'_>,
        now: Instant,
    ) -> Vec<Action> {
        let result = self.encapsulate(frame, sequences, now);
        self.concluded(result)
    }

    /// Counts what became of a packet.
    pub(super) fn concluded(&mut self, result: Result<(Fate, Vec<Action>), Fate>) -> Vec<Action> {
        let (fate, actions) = match result {
            Ok((fate, actions)) => (fate, actions),
            Err(fate) => (fate, Vec::new()),
        };
        self.counts.add(fate);
        actions
    }

    fn encapsulate(
        &mut self,
        frame: Frame<'_>,
        sequences: Sequences<'_>,
        now: Instant,
    ) -> Result<(Fate, Vec<Action>), Fate> {
        let Frame { tunnel: id, ethertype, packet } = frame;
        let tunnel = self.tables.get(id).ok_or(Reason::UnknownTunnel)?.clone();
        if tunnel.local.is_unspecified() || tunnel.remote.is_unspecified() {
            return Err(Outcome::NoRoute.into());
        }
        let path = Path { tunnel: id, remote: tunnel.remote };
        let path_mtu = self.path_mtus.get(path, tunnel.underlay_mtu, now);
        let packet = trimmed(ethertype, packet).to_vec();
        let limit = match pipeline::own_limit(&tunnel, ethertype, &packet) {
            Some(limit) if limit.outer().is_none() => {
                return self.used_up(id, &tunnel, limit, &packet, now);
            }
            limit => limit.and_then(Limit::outer),
        };
        let overhead = encapsulate::overhead(&tunnel.record, limit);
        let payload_mtu = path_mtu.saturating_sub(overhead);
        let decision = decide(ethertype, &packet, payload_mtu, tunnel.policy);
        if let Decision::Answer(complaint) = decision {
            let answer = self.answer(id, &tunnel, complaint, &packet, now)?;
            return Ok((Reason::AnsweredTooBig.into(), vec![answer]));
        }
        let load = Load { ethertype, front: &[], packet, padding: &[] };
        self.carry(Way { id, tunnel, path_mtu, payload_mtu }, load, decision, sequences)
    }

    /// Encapsulates a packet, whole or in pieces.
    pub(super) fn carry(
        &mut self,
        way: Way,
        mut load: Load<'_>,
        decision: Decision,
        sequences: Sequences<'_>,
    ) -> Result<(Fate, Vec<Action>), Fate> {
        let Way { id, tunnel, path_mtu, payload_mtu } = way;
        complete_checksum(&mut load.packet);
        let Load { ethertype, front, packet, padding } = load;
        match decision {
            Decision::Encapsulate => {
                let inner = [front, &packet, padding].concat();
                let outer = self.outer(id, &tunnel, ethertype, &inner, sequences)?;
                Ok((Outcome::Encapsulated.into(), vec![Action::Send(outer)]))
            }
            Decision::CutInner => {
                let fragments = fragment::ipv4(&packet, payload_mtu.into())
                    .map_err(|_| Reason::CannotFragment)?;
                let outers = fragments
                    .iter()
                    .map(|packet| {
                        let inner = [front, packet].concat();
                        Ok(Action::Send(self.outer(id, &tunnel, ethertype, &inner, sequences)?))
                    })
                    .collect::<Result<_, Reason>>()?;
                Ok((Reason::InnerFragmented.into(), outers))
            }
            Decision::CutOuter => {
                let inner = [front, &packet].concat();
                let outer = self.outer(id, &tunnel, ethertype, &inner, sequences)?;
                let actions = self.cut_outer(&tunnel, &outer, path_mtu)?;
                Ok((Reason::OuterFragmented.into(), actions))
            }
            Decision::Answer(_) => unreachable!("who answers carries nothing"),
            Decision::Drop(reason) => Err(reason.into()),
        }
    }

    /// Of a packet whose encapsulation limit allows no further tunnel.
    fn used_up(
        &mut self,
        id: u32,
        tunnel: &TunnelEntry,
        limit: Limit,
        packet: &[u8],
        now: Instant,
    ) -> Result<(Fate, Vec<Action>), Fate> {
        let complaint = Complaint::EncapsulationLimit { pointer: limit.pointer() };
        match self.answer(id, tunnel, complaint, packet, now) {
            Ok(answer) => Ok((Reason::AnsweredLimit.into(), vec![answer])),
            Err(Reason::TooBigUnanswerable) => Err(Outcome::EncapsulationLimit.into()),
            Err(reason) => Err(reason.into()),
        }
    }

    /// The fragments of an outer packet.
    fn cut_outer(
        &mut self,
        tunnel: &TunnelEntry,
        outer: &[u8],
        path_mtu: u16,
    ) -> Result<Vec<Action>, Reason> {
        let fragments = match tunnel.remote {
            IpAddr::V4(_) => fragment::ipv4(outer, path_mtu.into()),
            IpAddr::V6(_) => fragment::ipv6(outer, path_mtu.into(), self.identify()),
        };
        let fragments = fragments.map_err(|_| Reason::CannotFragment)?;
        Ok(fragments.into_iter().map(Action::Send).collect())
    }

    fn outer(
        &mut self,
        id: u32,
        tunnel: &TunnelEntry,
        ethertype: u16,
        inner: &[u8],
        sequences: Sequences<'_>,
    ) -> Result<Vec<u8>, Reason> {
        let numbered = tunnel.record.flags.has(Flags::SEQUENCE_SENT);
        let sequence = if numbered { sequences.next(id) } else { 0 };
        let stamp = Stamp { identification: self.identify() as u16, sequence };
        let outer =
            pipeline::encapsulate(tunnel, ethertype, inner, stamp).ok_or(Reason::CannotFragment)?;
        let tx = &mut self.carried.entry(id).or_default().tx;
        tx.packets += 1;
        tx.bytes += inner.len() as u64;
        Ok(outer)
    }

    /// The ICMP error to the sender of `offender`, unless the tunnel has caused too many.
    pub(super) fn answer(
        &mut self,
        id: u32,
        tunnel: &TunnelEntry,
        complaint: Complaint,
        offender: &[u8],
        now: Instant,
    ) -> Result<Action, Reason> {
        let answer = if offender.first().is_some_and(|byte| byte >> 4 == 4) {
            let source = tunnel.sources.v4.map_or([0; 4], |source| source.octets());
            answer::ipv4(complaint, offender, source)?
        } else {
            let source = tunnel.sources.v6.ok_or(Reason::NoSourceAddress)?;
            answer::ipv6(complaint, offender, source.octets())?
        };
        if !self.limiter.allow(id, now) {
            return Err(Reason::RateLimited);
        }
        Ok(Action::Send(answer))
    }

    /// An identification that fragments of no other packet have had for long. Its lower half is not
    /// zero, for which the kernel would put in another for each fragment.
    fn identify(&mut self) -> u32 {
        self.identification = self.identification.wrapping_add(1);
        if self.identification as u16 == 0 {
            self.identification += 1;
        }
        self.identification
    }
}
