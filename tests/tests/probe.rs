//! `xgre tunnel probe`: whether IPv6 packets of 1280 bytes are carried, and what it says where not.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ----- switch ----- PC2
//! ```
//! The tunnel is over IPv4: its headers are 24 bytes, so that it takes a path of 1304.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    config::Xdp,
    gateways::{Gateways, SOON},
    ipv6,
    process::wait_until,
    topology::{Lab, R1_WAN, R2_WAN},
    xgre::{attempt, outcome, tunnel},
};

/// A host's own packets leave by TC in every mode.
fn start() -> Result<Gateways> {
    let gateways =
        Gateways::start_in(Lab::with_ipv6()?, Xdp::Native, ipv6::both([R1_WAN, R2_WAN]))?;
    gateways.settle()?;
    gateways.settle6()?;
    Ok(gateways)
}

/// What `xgre tunnel probe tunnel0 WORDS` on R1 must come to.
struct Probe<'a> {
    words: &'a str,
    /// The status is 0.
    carried: bool,
    lines: &'a [&'a str],
    /// In JSON.
    result: &'a str,
    /// Echo requests that R1's programs send.
    sends: u64,
}

impl Probe<'_> {
    fn check(&self, gateways: &Gateways) -> Result<()> {
        let run = |options: &str| {
            let line = format!("{options} tunnel probe tunnel0 {}", self.words);
            let finished = attempt(&gateways.lab.r1, &line)?;
            let output = finished.output;
            ensure!(finished.status.code() == Some(i32::from(!self.carried)), "{output}");
            ensure!(output.stderr.is_empty(), "{output}");
            Ok(output.stdout)
        };
        let [r1, _] = gateways.during(|| {
            let said = run("")?;
            for line in self.lines {
                ensure!(said.contains(line), "no \"{line}\" in\n{said}");
            }
            Ok(())
        })?;
        ensure!(r1.tx() == self.sends, "{r1:?}");
        let told: Value = serde_json::from_str(&run("-j")?)?;
        ensure!(told["result"] == self.result && told["needed_path_mtu"] == 1304, "{told}");
        Ok(())
    }
}

#[test]
fn rfc7676_3_a_probe_tells_whether_1280_bytes_are_carried() -> Result<()> {
    let gateways = start()?;
    let Gateways { lab, .. } = &gateways;
    for (words, by) in [("", ipv6::TUNNEL_OF_R2), (ipv6::PC2, ipv6::PC2)] {
        let line = &*format!("tunnel0: carried: {by} answered an IPv6 packet of 1280 bytes");
        let lines = &[line];
        Probe { words, carried: true, lines, result: "carried", sends: 2 }.check(&gateways)?;
    }

    // The wire's far end throws away what is longer, without a word.
    lab.router.ip("link set to-r1 mtu 1280")?;
    let way = format!("{R2_WAN}/32 via 10.56.88.1 dev wan");
    let not_carried = format!(
        "tunnel0: not carried: {} answers IPv6 packets of 64 bytes, but none of 1280\n",
        ipv6::TUNNEL_OF_R2
    );
    let lines = &[
        &*not_carried,
        "raise its MTU to 1304,",
        &format!("ip link set tunnel0 mtu 1280 && ip route add {way} mtu MTU\n"),
    ];
    Probe { words: "", carried: false, lines, result: "not-carried", sends: 4 }.check(&gateways)?;

    // As it says. R2's first answer is lost, but the router tells R2.
    lab.r1.ip("link set tunnel0 mtu 1280")?;
    lab.r1.ip(&format!("route add {way} mtu 1280"))?;
    wait_until("the route's MTU is known", SOON, || {
        let told = tunnel(&lab.r1, "tunnel0")?.context("no tunnel0")?;
        ensure!(told["payload_mtu"] == 1256, "{told}");
        Ok(())
    })?;
    let lines =
        &["tunnel0: carried: ", "the path takes 1256 bytes; raise the underlay's MTU to 1304\n"];
    Probe { words: "", carried: true, lines, result: "carried", sends: 1 }.check(&gateways)?;
    assert_eq!(outcome(&lab.r1, "daemon", "outer-fragmented")?, 3);
    Ok(())
}

#[test]
fn rfc7676_3_a_probe_that_cannot_be_answered_says_why() -> Result<()> {
    let gateways = start()?;
    let Gateways { lab, .. } = &gateways;
    lab.r2.sysctl("net.ipv6.icmp.echo_ignore_all", 1)?;
    let lines = &[
        "tunnel0: no answer: ff02::1 does not answer ICMPv6 echo requests, not even of 64 bytes\n",
    ];
    Probe { words: "", carried: false, lines, result: "no-answer", sends: 3 }.check(&gateways)?;

    let refused = |words: &str, lines: &[&str]| {
        let said = attempt(&lab.r1, &format!("tunnel probe {words}"))?.failure()?;
        for line in lines {
            ensure!(said.contains(line), "no \"{line}\" in\n{said}");
        }
        Ok(())
    };
    refused("tunnel7", &["probe tunnel \"tunnel7\" failed: No such device"])?;
    lab.r1.ip("route del default")?;
    lab.r1.ip("-6 route del default")?;
    refused(
        "tunnel0 2001:db8:77::1",
        &["Network is unreachable", "is 2001:db8:77::1 routed into tunnel0?"],
    )?;
    lab.r1.ip("-6 addr flush dev tunnel0")?;
    refused(
        "tunnel0",
        &["Cannot assign requested address", "ip address add ADDRESS/LEN dev tunnel0"],
    )?;
    lab.r1.ip("link set tunnel0 down")?;
    refused("tunnel0", &["Network is down", "ip link set tunnel0 up"])
}
