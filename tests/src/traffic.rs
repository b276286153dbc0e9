//! Bounded traffic from real programs: ping and iperf3.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    namespace::{Namespace, Resident},
    process::wait_until,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    pub received: u32,
}

impl PingReport {
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = f64::from(self.lost()) * 100.0 / f64::from(self.sent.max(1));
        write!(f, "{} sent, {} received, {percent:.0} % lost", self.sent, self.received)
    }
}

/// Pings `count` times, 10 ms apart, and waits at most a second for the last answer.
pub fn ping(from: &Namespace, to: &str, count: u32) -> Result<PingReport> {
    let finished = from.attempt(&format!("ping -n -q -c {count} -i 0.01 -W 1 {to}"))?;
    parse_ping(&finished.output.stdout)
        .with_context(|| format!("ping from {} to {to}:\n{}", from.name(), finished.output))
}

/// All of `count` pings are answered.
pub fn ping_all(from: &Namespace, to: &str, count: u32) -> Result<()> {
    let report = ping(from, to, count)?;
    if report.lost() > 0 {
        bail!("ping from {} to {to}: {report}", from.name());
    }
    Ok(())
}

/// None of three pings is answered.
pub fn ping_none(from: &Namespace, to: &str) -> Result<()> {
    let report = ping(from, to, 3)?;
    if report.received > 0 {
        bail!("ping from {} to {to} should not be answered: {report}", from.name());
    }
    Ok(())
}

/// Waits until a first ping is answered: neighbours are resolved on the way by then.
pub fn ping_until_answered(from: &Namespace, to: &str, within: Duration) -> Result<()> {
    wait_until(&format!("{to} answers {}", from.name()), within, || ping_all(from, to, 1))
}

/// One ping with Don't Fragment and `payload` bytes, and all that ping says about it.
pub fn ping_exact(from: &Namespace, to: &str, payload: u32) -> Result<String> {
    let finished = from.attempt(&format!("ping -n -c 1 -W 1 -M do -s {payload} {to}"))?;
    Ok(finished.output.to_string())
}

/// Sends what a Python expression of scapy's packets makes, a list, to where the kernel routes it.
pub fn scapy_send(from: &Namespace, packets: &str) -> Result<()> {
    scapy(from, &[packets])
}

/// Sends what a Python expression of scapy's frames makes, a list, out of a device.
pub fn scapy_send_frames(from: &Namespace, device: &str, frames: &str) -> Result<()> {
    scapy(from, &[frames, device])
}

fn scapy(from: &Namespace, arguments: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy/send.py");
    let script = script.to_str().context("the script's name is not UTF-8")?;
    // The distribution's Python, whose scapy it is.
    let python = from.spawn("/usr/bin/python3", &[&[script], arguments].concat())?;
    python.process.finish(Duration::from_secs(30))?.success().map(drop)
}

fn parse_ping(text: &str) -> Result<PingReport> {
    let line = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .context("ping printed no summary")?;
    let number = |field: &str| -> Result<u32> {
        let part = line.split(',').find(|part| part.contains(field));
        let word = part.and_then(|part| part.split_whitespace().next());
        Ok(word.with_context(|| format!("no \"{field}\" in \"{line}\""))?.parse()?)
    };
    Ok(PingReport { sent: number("transmitted")?, received: number("received")? })
}

/// Which way the bulk of a TCP stream flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    ToServer,
    ToClient,
}

/// When a TCP stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Seconds(u32),
    /// A megabyte within a second: few enough packets to capture them all. (iperf3 does end after
    /// so many bytes, too, but the server then throws away what it has not read yet.)
    OneMegabyte,
    /// Two seconds, of segments of this maximum size (TCP_MAXSEG), in bytes.
    OfSegments(u32),
}

/// An iperf3 client under way, and its server.
pub struct Iperf {
    client: Resident,
    server: Resident,
    deadline: Instant,
}

impl Iperf {
    /// Starts a TCP stream from `client` to `address`, which is of `server`.
    pub fn start(
        client: &Namespace,
        server: &Namespace,
        address: &str,
        load: Load,
        flow: Flow,
    ) -> Result<Self> {
        let server = listen(server, address)?;
        let (seconds, rate, size) = match load {
            Load::Seconds(seconds) => (seconds, "0", None),
            Load::OneMegabyte => (1, "8M", None),
            Load::OfSegments(size) => (2, "0", Some(size.to_string())),
        };
        let time = seconds.to_string();
        let mut arguments =
            vec!["-J", "-c", address, "-t", &time, "-b", rate, "--connect-timeout", "3000"];
        if let Some(size) = &size {
            arguments.extend(["-M", size]);
        }
        if flow == Flow::ToClient {
            arguments.push("-R");
        }
        let client = client.spawn("iperf3", &arguments)?;
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds) + 10);
        Ok(Self { client, server, deadline })
    }

    pub fn running(&mut self) -> Result<bool> {
        Ok(self.client.process.try_wait()?.is_none() && Instant::now() < self.deadline)
    }

    /// The rate at the receiver, in bits per second.
    pub fn finish(self) -> Result<f64> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let reply = self.client.process.finish(left)?.success()?;
        self.server.process.finish(Duration::from_secs(5))?.success()?;
        let reply: Value = serde_json::from_str(&reply).context("iperf3's reply is not JSON")?;
        reply["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .filter(|rate| *rate > 0.0)
            .with_context(|| format!("iperf3 moved nothing: {}", reply["error"]))
    }
}

/// A whole stream; the rate in bits per second.
pub fn tcp(
    client: &Namespace,
    server: &Namespace,
    address: &str,
    load: Load,
    flow: Flow,
) -> Result<f64> {
    Iperf::start(client, server, address, load, flow)?.finish()
}

/// Prints the rates of streams from one host to an address of another in segments of two sizes, which is
/// what follows IP and TCP, options included: in turn, seven times, and the median of their ratios.
pub fn compare_segments(
    what: &str,
    (client, server, address): (&Namespace, &Namespace, &str),
    sizes: [u32; 2],
) -> Result<()> {
    let mut ratios = Vec::new();
    for round in 0..7 {
        let mut rates = [0.0; 2];
        for (rate, size) in rates.iter_mut().zip(sizes) {
            *rate = tcp(client, server, address, Load::OfSegments(size), Flow::ToServer)? / 1e6;
        }
        let [one, other] = rates;
        println!("{what} {round}: {one:.0} of {other:.0} Mbit/s, {:.3}", one / other);
        ratios.push(one / other);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{what}: {:.3} ({:.3}..{:.3})", ratios[3], ratios[0], ratios[6]);
    Ok(())
}

/// Sends `count` datagrams of `bytes` each to `address`, 5000 a second. Not all of them need be read: a
/// busy machine looks into a socket too seldom.
pub fn udp(
    client: &Namespace,
    server: &Namespace,
    address: &str,
    count: u32,
    bytes: u32,
) -> Result<()> {
    let server = listen(server, address)?;
    let (count, rate) = (count.to_string(), (5000 * 8 * bytes).to_string());
    let bytes = bytes.to_string();
    let arguments = ["-J", "-u", "-c", address, "-k", &count, "-l", &bytes, "-b", &rate];
    let client = client.spawn("iperf3", &arguments)?;
    client.process.finish(Duration::from_secs(20))?.success()?;
    server.process.finish(Duration::from_secs(5))?.success().map(drop)
}

/// A counter of a namespace's kernel, from its line and column in /proc/net/snmp.
pub fn snmp(namespace: &Namespace, line: &str, column: &str) -> Result<u64> {
    let text = namespace.run("cat /proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|text| text.strip_prefix(line));
    let (names, values) = (lines.next(), lines.next());
    let found = names.zip(values).and_then(|(names, values)| {
        let at = names.split(' ').position(|name| name == column)?;
        values.split(' ').nth(at)?.parse().ok()
    });
    found.with_context(|| format!("no {column} in\n{text}"))
}

/// iperf3's server, for one client.
fn listen(namespace: &Namespace, address: &str) -> Result<Resident> {
    let mut server = namespace.spawn("iperf3", &["-s", "-1", "--forceflush", "-B", address])?;
    wait_until("iperf3's server listens", Duration::from_secs(5), || {
        server.process.still_runs()?;
        let output = server.process.output();
        if !output.stdout.contains("Server listening") {
            bail!("it says:\n{output}");
        }
        Ok(())
    })?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_ping_are_read_with_and_without_errors() {
        let plain = "5 packets transmitted, 4 received, 20% packet loss, time 404ms";
        assert_eq!(parse_ping(plain).unwrap(), PingReport { sent: 5, received: 4 });
        let errors = "1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms";
        let report = parse_ping(errors).unwrap();
        assert_eq!(report.to_string(), "1 sent, 0 received, 100 % lost");
        assert!(parse_ping("ping: connect: Network is unreachable").is_err());
    }
}
