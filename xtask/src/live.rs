//! Statistics of both gateways while traffic flows.

use std::time::{Duration, Instant};

use ::tests::{counters::Packets, interrupt, namespace::Namespace, traffic::Iperf, xgre};
use anyhow::Result;

/// How often a line is printed.
const EVERY: Duration = Duration::from_secs(1);

/// A gateway and what its counters said last.
pub(crate) struct Gateway<'a> {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'a Namespace,
    tunnel: &'static str,
    last: Packets,
}

impl<'a> Gateway<'a> {
    pub(crate) fn new(
        name: &'static str,
        namespace: &'a Namespace,
        tunnel: &'static str,
    ) -> Result<Self> {
        let mut gateway = Self { name, namespace, tunnel, last: Packets::default() };
        gateway.last = gateway.packets()?;
        Ok(gateway)
    }

    /// What its tunnel has carried so far.
    pub(crate) fn packets(&self) -> Result<Packets> {
        Packets::of(&xgre::stats(self.namespace)?, self.tunnel)
    }
}

/// Prints each gateway's rates every second until the stream ends.
pub(crate) fn watch(gateways: &mut [Gateway<'_>], stream: &mut Iperf) -> Result<()> {
    println!("  gateway  tunnel          rx Mbit/s   rx pkt/s   tx Mbit/s   tx pkt/s   by XDP");
    let mut read = Instant::now();
    while stream.running()? {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(20));
        if read.elapsed() < EVERY {
            continue;
        }
        let seconds = read.elapsed().as_secs_f64();
        read = Instant::now();
        for gateway in &mut *gateways {
            let now = gateway.packets()?;
            println!("{}", line(gateway.name, gateway.tunnel, now - gateway.last, seconds));
            gateway.last = now;
        }
    }
    Ok(())
}

fn line(name: &str, tunnel: &str, packets: Packets, seconds: f64) -> String {
    let per_second = |packets: u64| packets as f64 / seconds;
    let megabits = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
    format!(
        "  {name:<8} {tunnel} {:>17.1} {:>10.0} {:>11.1} {:>10.0} {:>8}",
        megabits(packets.rx_bytes),
        per_second(packets.rx()),
        megabits(packets.tx_bytes),
        per_second(packets.tx()),
        percent(packets.xdp_share()),
    )
}

/// Rounded down, so that 100 % means all.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.2} %", (share * 1e4).floor() / 1e2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_the_whole() {
        assert_eq!(percent(Some(0.999_99)), "99.99 %");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn rates_are_per_second_and_in_megabits() {
        let packets =
            Packets { rx_xdp: 1000, rx_bytes: 1_000_000, tx_tc: 10, ..Packets::default() };
        let line = line("R1", "tunnel0", packets, 2.0);
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["R1", "tunnel0", "4.0", "500", "0.0", "5", "99.00", "%"]);
    }
}
