//! Ethernet frames into a tunnel: what is too long for its path, or carried by no program. Whoever sent
//! one may be behind a bridge, so what it is told goes back the way that it came, as a frame.

use std::time::Instant;

use super::{
    super::{
        answer::{self, Complaint},
        oversize::{Decision, Policy, decide},
        packet::{ETHERTYPE_ETHERNET, Ipv4, Ipv6, network_layer, trimmed},
        path_mtu::Path,
        reason::{Fate, Reason},
        sequence::Sequences,
        tables::TunnelEntry,
    },
    Action, SlowPath,
    outward::{Load, Way},
};
use gre_ebpf_common::outcome::Outcome;

/// A frame for a tunnel of Ethernet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framed<'a> {
    pub tunnel: u32,
    /// The interface that the program saw it on: the tunnel's device, or a port of the same bridge.
    pub ifindex: u32,
    pub frame: &'a [u8],
}

impl SlowPath {
    pub(super) fn encapsulate_frame(
        &mut self,
        framed: Framed<'_>,
        sequences: Sequences<'_>,
        now: Instant,
    ) -> Result<(Fate, Vec<Action>), Fate> {
        let Framed { tunnel: id, frame, .. } = framed;
        let tunnel = self.tables.get(id).ok_or(Reason::UnknownTunnel)?.clone();
        if tunnel.local.is_unspecified() {
            return Err(Outcome::NoRoute.into());
        }
        let (ethertype, network) = network_layer(frame).ok_or(Reason::FrameMalformed)?;
        let front = &frame[..frame.len() - network.len()];
        let path = Path { tunnel: id, remote: tunnel.remote };
        let path_mtu = self.path_mtus.get(path, tunnel.underlay_mtu, now);
        let payload_mtu =
            path_mtu.saturating_sub(tunnel.record.overhead).saturating_sub(front.len() as u16);
        let packet = trimmed(ethertype, network).to_vec();
        // Padding and all: what is no IP packet has no length of its own. But what is behind a packet,
        // and too much for the path, is no reason not to send the packet.
        let room = usize::from(payload_mtu).saturating_sub(packet.len());
        let padding = &network[packet.len()..];
        let padding = &padding[..padding.len().min(room)];
        let decision = decide_frame(ethertype, &packet, payload_mtu, tunnel.policy);
        if let Decision::Answer(complaint) = decision {
            let answer = self.answer_frame(framed, &tunnel, complaint, front, &packet, now)?;
            return Ok((Reason::AnsweredTooBig.into(), vec![answer]));
        }
        let load = Load { ethertype: ETHERTYPE_ETHERNET, front, packet, padding };
        self.carry(Way { id, tunnel, path_mtu, payload_mtu }, load, decision, sequences)
    }

    /// The answer in the name of the packet's destination, in a frame from its destination's address.
    fn answer_frame(
        &mut self,
        framed: Framed<'_>,
        tunnel: &TunnelEntry,
        complaint: Complaint,
        front: &[u8],
        offender: &[u8],
        now: Instant,
    ) -> Result<Action, Reason> {
        let (destination, rest) = front.split_at(6);
        let (source, tags) = rest.split_at(6);
        // RFC 1812, 4.3.2.7: nothing sent to a group is answered.
        if destination[0] & 1 != 0 {
            return Err(Reason::TooBigUnanswerable);
        }
        let answer = if let Some(packet) = Ipv4::quoted(offender) {
            answer::ipv4(complaint, offender, packet.destination())?
        } else {
            let packet = Ipv6::quoted(offender).ok_or(Reason::TooBigUnanswerable)?;
            answer::ipv6(complaint, offender, packet.destination())?
        };
        if !self.limiter.allow(framed.tunnel, now) {
            return Err(Reason::RateLimited);
        }
        let frame = [source, destination, tags, &answer].concat();
        let device = tunnel.device;
        // What is sent out of the other end arrives on the device.
        let ifindex =
            if framed.ifindex == device.ifindex { device.peer_ifindex } else { framed.ifindex };
        Ok(Action::SendFrame { ifindex, frame })
    }
}

/// As [`decide`], but that `nopmtudisc` alone lets the outer packet be cut: stations of one LAN expect
/// it to carry what every Ethernet does, and no router between them would tell them otherwise.
fn decide_frame(ethertype: u16, packet: &[u8], payload_mtu: u16, policy: Policy) -> Decision {
    decide(ethertype, packet, payload_mtu, Policy { ignore_df: !policy.pmtudisc, ..policy })
}
