//! A tunnel's packet counters, out of `xgre stats -j`.

use std::ops::Sub;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::config::Xdp;

/// Packets of one tunnel since its maps were created, by direction and tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packets {
    pub rx_xdp: u64,
    pub rx_tc: u64,
    pub tx_xdp: u64,
    pub tx_tc: u64,
    /// Refused or lost, for whatever reason.
    pub drops: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl Packets {
    /// Of the tunnel called `name` in a whole reply of `xgre stats -j`.
    pub fn of(stats: &Value, name: &str) -> Result<Self> {
        let tunnel = stats["tunnels"]
            .as_array()
            .and_then(|tunnels| tunnels.iter().find(|tunnel| tunnel["name"] == name))
            .with_context(|| format!("no tunnel {name} in the statistics: {stats}"))?;
        let count = |direction: &str, tier: &str, unit: &str| {
            tunnel[direction][tier][unit]
                .as_u64()
                .with_context(|| format!("no {direction}.{tier}.{unit} in {tunnel}"))
        };
        let bytes = |direction: &str| -> Result<u64> {
            Ok(count(direction, "xdp", "bytes")? + count(direction, "tc", "bytes")?)
        };
        Ok(Self {
            rx_xdp: count("rx", "xdp", "packets")?,
            rx_tc: count("rx", "tc", "packets")?,
            tx_xdp: count("tx", "xdp", "packets")?,
            tx_tc: count("tx", "tc", "packets")?,
            drops: drops(&tunnel["rx"]) + drops(&tunnel["tx"]),
            rx_bytes: bytes("rx")?,
            tx_bytes: bytes("tx")?,
        })
    }

    /// What a tunnel should count for `count` pings of the default size that are answered: as many
    /// packets each way, of 84 bytes, all in the mode's tier, none dropped.
    pub fn pings(xdp: Xdp, count: u64) -> Self {
        Self::both_ways(xdp, count, 84)
    }

    /// The same over IPv6, whose header is 20 bytes longer.
    pub fn pings6(xdp: Xdp, count: u64) -> Self {
        Self::both_ways(xdp, count, 104)
    }

    /// And of packets of `len` bytes.
    pub fn both_ways(xdp: Xdp, count: u64, len: u64) -> Self {
        let packets = Self { rx_bytes: len * count, tx_bytes: len * count, ..Self::default() };
        match xdp {
            Xdp::Off => Self { rx_tc: count, tx_tc: count, ..packets },
            Xdp::Native | Xdp::Generic => Self { rx_xdp: count, tx_xdp: count, ..packets },
        }
    }

    pub fn rx(&self) -> u64 {
        self.rx_xdp + self.rx_tc
    }

    pub fn tx(&self) -> u64 {
        self.tx_xdp + self.tx_tc
    }

    pub fn xdp(&self) -> u64 {
        self.rx_xdp + self.tx_xdp
    }

    pub fn tc(&self) -> u64 {
        self.rx_tc + self.tx_tc
    }

    /// The part of all packets, 0 to 1, that XDP carried; none if there were no packets.
    pub fn xdp_share(&self) -> Option<f64> {
        let all = self.xdp() + self.tc();
        (all > 0).then(|| self.xdp() as f64 / all as f64)
    }
}

impl Sub for Packets {
    type Output = Self;

    /// What happened between two readings.
    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_xdp: self.rx_xdp - earlier.rx_xdp,
            rx_tc: self.rx_tc - earlier.rx_tc,
            tx_xdp: self.tx_xdp - earlier.tx_xdp,
            tx_tc: self.tx_tc - earlier.tx_tc,
            drops: self.drops - earlier.drops,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

fn drops(direction: &Value) -> u64 {
    let reasons = direction["drops"].as_array().map_or(&[][..], Vec::as_slice);
    reasons.iter().filter_map(|reason| reason["packets"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reply_is_summed_by_tier_and_direction() {
        let direction = |xdp: u64, tc: u64| {
            json!({
                "xdp": { "packets": xdp, "bytes": 100 * xdp },
                "tc": { "packets": tc, "bytes": 100 * tc },
                "drops": [{ "reason": "key-mismatch", "help": "", "packets": 2 }],
            })
        };
        let reply = json!({ "tunnels": [
            { "name": "other", "rx": direction(9, 9), "tx": direction(9, 9) },
            { "name": "tunnel0", "rx": direction(90, 1), "tx": direction(9, 0) },
        ] });
        let packets = Packets::of(&reply, "tunnel0").unwrap();
        assert_eq!((packets.rx(), packets.tx(), packets.drops), (91, 9, 4));
        assert_eq!((packets.rx_bytes, packets.tx_bytes), (9100, 900));
        assert_eq!(packets.xdp_share(), Some(0.99));
        assert_eq!((packets - packets).xdp_share(), None);
    }

    #[test]
    fn a_missing_tunnel_is_an_error_that_names_it() {
        let error = Packets::of(&json!({ "tunnels": [] }), "tunnel0").unwrap_err();
        assert!(error.to_string().contains("no tunnel tunnel0"), "{error}");
    }
}
