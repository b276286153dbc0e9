//! Out of a tunnel: fragments are put together, options skipped, and the inner packet sent to the
//! tunnel's device.

use std::time::Instant;

use gre_ebpf_common::{outcome::Outcome, tunnel::Flags};

use super::{
    super::{
        packet::ETHERTYPE_ETHERNET,
        pipeline::{self, Received},
        sequence::Sequences,
        tables::Device,
    },
    Action, SlowPath,
};

impl SlowPath {
    /// Takes an outer packet or a fragment of one, received on an interface.
    pub(super) fn inward(
        &mut self,
        packet: &[u8],
        ifindex: u32,
        sequences: Sequences<'_>,
        now: Instant,
    ) -> Vec<Action> {
        let Some(packet) = self.reassembler.add(packet, now, &mut self.counts) else {
            return Vec::new();
        };
        match self.decapsulate(&packet, ifindex, sequences) {
            Ok(action) => {
                self.counts.add(Outcome::ToDevice);
                vec![action]
            }
            Err(outcome) => {
                self.counts.add(outcome);
                Vec::new()
            }
        }
    }

    fn decapsulate(
        &mut self,
        packet: &[u8],
        ifindex: u32,
        sequences: Sequences<'_>,
    ) -> Result<Action, Outcome> {
        let received = Received::parse(packet)?;
        let Received { local, remote, key, .. } = received;
        let (id, tunnel) = self
            .tables
            .receiver(received.is_ethernet(), local, remote, key, ifindex)
            .ok_or(Outcome::NoTunnel)?;
        let rfc2890 = tunnel.record.flags.has(Flags::RFC2890);
        let accept = |number| sequences.accept(id, number, rfc2890);
        let (ethertype, inner) = pipeline::decapsulate(&tunnel.record, &received, accept)?;

        let rx = &mut self.carried.entry(id).or_default().rx;
        rx.packets += 1;
        rx.bytes += inner.len() as u64;
        let Device { mac, peer_ifindex, peer_mac, .. } = tunnel.device;
        let frame = match ethertype {
            ETHERTYPE_ETHERNET => inner,
            _ => [&mac[..], &peer_mac, &ethertype.to_be_bytes(), &inner].concat(),
        };
        Ok(Action::SendFrame { ifindex: peer_ifindex, frame })
    }
}
