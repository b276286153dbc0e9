//! `xgre doctor`: what is wrong is found, and the command that it names mends it.
//!
//! ```text
//!  PC1 ------- R1 10.56.88.66 ====== router ====== R2 ------- PC2
//!              ^ broken in one way after the other
//! ```
//! The whole of it is drawn in `tests::topology`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    namespace::Namespace,
    process::wait_until,
    topology::{PC2, R1_TUNNEL},
    traffic::ping_until_answered,
    xgre::attempt,
};

/// What the doctor says, and the status that it ends with.
fn examine(namespace: &Namespace) -> Result<(Value, i32)> {
    let finished = attempt(namespace, "doctor -j")?;
    let status = finished.status.code().context("it was killed")?;
    let report = serde_json::from_str(&finished.output.stdout)
        .with_context(|| format!("no JSON:\n{}", finished.output))?;
    Ok((report, status))
}

fn findings(report: &Value) -> Vec<Value> {
    report["findings"].as_array().cloned().unwrap_or_default()
}

/// Check, subject and severity of what is not fine. How many queues a veth has is the machine's matter.
fn troubles(namespace: &Namespace) -> Result<Vec<(String, String, String)>> {
    let (report, _) = examine(namespace)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(findings(&report)
        .iter()
        .filter(|found| found["severity"] != "ok" && found["topic"] != "queues")
        .map(|found| (text(&found["check"]), text(&found["subject"]), text(&found["severity"])))
        .collect())
}

/// The finding of a check about a subject, once it is that bad.
fn found(namespace: &Namespace, check: &str, subject: &str, severity: &str) -> Result<Value> {
    wait_until(&format!("{check} of {subject} is {severity}"), SOON, || {
        let (report, _) = examine(namespace)?;
        let all = findings(&report);
        let of_it = |found: &&Value| {
            found["check"] == check && found["subject"].as_str().unwrap_or_default() == subject
        };
        let found = all.iter().find(of_it).cloned().unwrap_or_default();
        ensure!(found["severity"] == severity, "{found}");
        Ok(found)
    })
}

#[test]
fn a_gateway_that_works_is_fine_and_the_status_says_how_bad_it_is() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = &gateways.lab.r1;
    assert_eq!(troubles(r1)?, []);

    let (report, _) = examine(r1)?;
    assert_eq!(report["daemon"], true);
    for check in ["kernel-version", "bpf-jit", "bpffs", "nofile", "xdp-mode", "tunnel", "mtu"] {
        ensure!(findings(&report).iter().any(|found| found["check"] == check), "no {check}");
    }
    let queues = findings(&report).iter().any(|found| found["severity"] == "warning");
    assert_eq!(examine(r1)?.1, i32::from(queues));
    r1.ip("link set tunnel0 mtu 1500")?;
    found(r1, "mtu", "tunnel0", "warning")?;
    assert_eq!(examine(r1)?.1, 1);
    r1.ip("route del default")?;
    found(r1, "tunnel", "tunnel0", "error")?;
    assert_eq!(examine(r1)?.1, 2);

    let text = attempt(r1, "doctor")?.output.stdout;
    ensure!(text.starts_with("error: tunnel0: no route leads to 192.168.22.196\n"), "{text}");
    ensure!(!text.contains('\x1b'), "colours are for terminals: {text}");
    Ok(())
}

/// Each is undone by the very command that the doctor says.
#[test]
fn what_is_wrong_is_found_and_its_command_mends_it() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = &gateways.lab.r1;
    for (breaks, check, subject, severity) in [
        ("ip link set tunnel0 mtu 1500", "mtu", "tunnel0", "warning"),
        ("ip link set tunnel0 down", "tunnel", "tunnel0", "warning"),
        ("sysctl -q -w net.ipv4.conf.lan.forwarding=0", "forwarding", "lan", "warning"),
        ("sysctl -q -w net.ipv4.ip_forward=0", "forwarding", "wan", "warning"),
        ("sysctl -q -w net.ipv4.conf.tunnel0.rp_filter=1", "rp-filter", "tunnel0", "note"),
    ] {
        r1.run(breaks)?;
        let found_so = found(r1, check, subject, severity).context(breaks)?;
        ensure!(found_so["why"].is_string(), "{found_so}");
        let fix = found_so["fix"].as_str().context("it names no command")?.to_owned();
        r1.spawn("sh", &["-c", &fix])?.process.finish(SOON)?.success()?;
        found(r1, check, subject, "ok").with_context(|| format!("after `{fix}`"))?;
    }
    gateways.settle()?;
    assert_eq!(troubles(r1)?, []);
    Ok(())
}

#[test]
fn rules_and_filters_of_others_are_told() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = &gateways.lab.r1;
    r1.run("nft add table inet t")?;
    r1.run("nft add chain inet t c { type filter hook forward priority 0 ; }")?;
    assert_eq!(troubles(r1)?, [], "a chain without rules does nothing");
    r1.run("nft add rule inet t c tcp dport 22 drop")?;
    let netfilter = found(r1, "netfilter", "tunnel0", "warning")?;
    assert_eq!(
        netfilter["found"],
        "it is not accelerated: it respects chain c of table inet t (forward, 1 rule)"
    );
    let fix = netfilter["fix"].as_str().context("no command")?;
    let (listing, bypass) = fix.split_once("; ").context("there are two")?;
    ensure!(r1.run(listing)?.contains("tcp dport 22 drop"), "{listing}");
    assert_eq!(bypass, "xgre tunnel change tunnel0 netfilter bypass");
    r1.run("nft delete table inet t")?;
    found(r1, "netfilter", "tunnel0", "ok")?;
    assert_eq!(troubles(r1)?, []);

    r1.run("tc qdisc add dev lan clsact")?;
    // One instruction of classic BPF, which lets everything through.
    let words = "filter add dev lan ingress bpf bytecode".split(' ');
    let words: Vec<_> = words.chain(["1,6 0 0 4294967295,"]).collect();
    r1.spawn("tc", &words)?.process.finish(SOON)?.success()?;
    let filter = found(r1, "foreign-program", "lan", "warning")?;
    assert_eq!(filter["found"], "`bpf` is attached to tc ingress");
    Ok(())
}

#[test]
fn without_a_daemon_the_machine_is_looked_at_and_it_is_said() -> Result<()> {
    let alone = Namespace::new("alone")?;
    alone.ip("link add wan type veth peer name peer")?;
    alone.ip("link set wan up")?;
    alone.ip(&format!("addr add {R1_TUNNEL}/30 dev wan"))?;
    let (report, status) = examine(&alone)?;
    assert_eq!((&report["daemon"], status), (&Value::Bool(false), 1));
    let daemon = found(&alone, "daemon", "", "note")?;
    assert_eq!(daemon["fix"], "systemctl start xgre");
    let forwarding = found(&alone, "forwarding", "wan", "warning")?;
    assert_eq!(forwarding["fix"], "sysctl -w net.ipv4.ip_forward=1");
    ensure!(findings(&report).iter().all(|found| found["topic"] != "paths"));
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_leaves_programs_that_nobody_follows() -> Result<()> {
    let gateways = Gateways::start(Xdp::Native, Gateway::both())?;
    ping_until_answered(&gateways.lab.pc1, PC2, SOON)?;
    gateways.r1.kill()?;
    let daemon = found(&gateways.lab.r1, "daemon", "", "warning")?;
    ensure!(daemon["why"].as_str().is_some_and(|why| why.contains("go on forwarding")), "{daemon}");
    Ok(())
}
