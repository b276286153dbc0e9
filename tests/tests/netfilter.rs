//! Rules of netfilter are respected, in both directions and as soon as they are there, or bypassed where
//! the user says so; without them tunnels are as fast as ever.
//!
//! ```text
//!  PC1 ------- R1 10.56.88.66 ====== router ====== R2 ------- PC2
//!              ^ rules in its forward path come and go under traffic
//! ```
//! The whole of it is drawn in `tests::topology`; that of bridges in `tests::lan`.

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode, lan,
    lan::{Bridged, OVER_IPV4, TUNNEL},
    namespace::Namespace,
    process::wait_until,
    topology::{Lab, PC2},
    traffic::{ping_all, ping_none},
    with_xdp,
    xgre::{tunnel, xgre},
};

in_each_xdp_mode!(a_rule_is_obeyed_under_way_and_without_it_the_tunnel_is_as_before);

mod xdp {
    use super::*;

    with_xdp!(
        the_kernel_sees_both_directions_and_xdp_sends_nothing,
        a_tunnel_that_bypasses_rules_is_accelerated_past_them,
        a_bridge_with_rules_is_the_kernels_until_they_are_gone,
    );
}

/// Waits until a tunnel says that it respects a chain, or that it is accelerated.
fn until_respected(gateway: &Namespace, name: &str, chain: &str) -> Result<()> {
    wait_until(&format!("{name} respects {chain}"), SOON, || {
        let tunnel = tunnel(gateway, name)?.context("there is no such tunnel")?;
        let why_not = tunnel["why_not"].as_str().unwrap_or_default();
        ensure!(why_not.starts_with(&format!("netfilter is respected: {chain}")), "{tunnel}");
        Ok(())
    })
}

/// A chain `c` of table `inet t` in the forward path.
fn forward_chain(gateway: &Namespace) -> Result<()> {
    gateway.run("nft add table inet t")?;
    gateway.run("nft add chain inet t c { type filter hook forward priority 0 ; }").map(drop)
}

fn a_rule_is_obeyed_under_way_and_without_it_the_tunnel_is_as_before(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    for rule in ["oifname tunnel0 drop", "iifname tunnel0 drop"] {
        forward_chain(&lab.r1)?;
        ping_all(&lab.pc1, PC2, 3).context("a chain without rules drops nothing")?;
        lab.r1.run(&format!("nft add rule inet t c {rule}"))?;
        wait_until("the rule is obeyed", SOON, || ping_none(&lab.pc1, PC2)).context(rule)?;
        lab.r1.run("nft delete table inet t")?;
        gateways.settle().with_context(|| format!("after {rule}"))?;
    }
    lab.r1.run("iptables-legacy -P FORWARD DROP")?;
    wait_until("the policy is obeyed", SOON, || ping_none(&lab.pc1, PC2))?;
    lab.r1.run("iptables-legacy -P FORWARD ACCEPT")?;
    gateways.settle()
}

fn the_kernel_sees_both_directions_and_xdp_sends_nothing(xdp: Xdp) -> Result<()> {
    let lab = Lab::new()?;
    // Rules that are there before the daemon are respected from the first packet on.
    forward_chain(&lab.r1)?;
    lab.r1.run("nft add rule inet t c icmp type { echo-request , echo-reply } counter")?;
    let gateways = Gateways::start_in(lab, xdp, Gateway::both())?;
    let Gateways { lab, .. } = &gateways;
    until_respected(&lab.r1, "tunnel0", "chain c of table inet t (forward, 1 rule)")?;
    wait_until("pings are answered", SOON, || ping_all(&lab.pc1, PC2, 3))?;
    let before = counted(&lab.r1)?;
    let [near, _] = gateways.during(|| ping_all(&lab.pc1, PC2, 10))?;
    assert_eq!(counted(&lab.r1)? - before, 20, "requests and answers");
    assert_eq!((near.tx_xdp, near.tx_tc, near.rx(), near.drops), (0, 10, 10, 0));
    Ok(())
}

/// Packets that the rule with a counter has seen.
fn counted(gateway: &Namespace) -> Result<u64> {
    let rules = gateway.run("nft list chain inet t c")?;
    let mut words = rules.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|packets| packets.parse().ok()).with_context(|| rules.clone())
}

fn a_tunnel_that_bypasses_rules_is_accelerated_past_them(xdp: Xdp) -> Result<()> {
    let configs = Gateway::both().map(|config| config.options(&["netfilter = \"bypass\""]));
    let gateways = Gateways::start(xdp, configs)?;
    gateways.settle()?;
    let Gateways { lab, .. } = &gateways;
    forward_chain(&lab.r1)?;
    lab.r1.run("nft add rule inet t c drop")?;
    wait_until("the doctor tells of the rule", SOON, || {
        let text = tests::xgre::attempt(&lab.r1, "doctor")?.output.stdout;
        let told = "note: tunnel0: it bypasses chain c of table inet t (forward, 1 rule)";
        ensure!(text.contains(told), "{text}");
        Ok(())
    })?;
    let found = gateways.during(|| ping_all(&lab.pc1, PC2, 20))?;
    assert_eq!(found, [gateways.ping_counts(20); 2], "in XDP, by no rule");

    xgre(&lab.r1, "tunnel change tunnel0 netfilter respect")?;
    ping_none(&lab.pc1, PC2)?;
    until_respected(&lab.r1, "tunnel0", "chain c of table inet t (forward, 1 rule)")?;
    xgre(&lab.r1, "tunnel change tunnel0 netfilter bypass")?;
    ping_all(&lab.pc1, PC2, 3)?;
    let shown = xgre(&lab.r1, "tunnel show tunnel0")?;
    ensure!(shown.contains("accelerated by XDP\n    netfilter bypass\n"), "{shown}");
    Ok(())
}

fn a_bridge_with_rules_is_the_kernels_until_they_are_gone(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &[])?;
    let lan::Lan { pc1, r1, .. } = &bridged.lan;
    bridged.r1.wait_until_accelerated(TUNNEL)?;
    r1.run("nft add table bridge t")?;
    r1.run("nft add chain bridge t c { type filter hook forward priority 0 ; }")?;
    r1.run("nft add rule bridge t c ip protocol icmp drop")?;
    wait_until("the rule is obeyed", SOON, || ping_none(pc1, lan::PC2))?;
    until_respected(r1, TUNNEL, "chain c of table bridge t (forward, 1 rule)")?;
    r1.run("nft delete table bridge t")?;
    bridged.r1.wait_until_accelerated(TUNNEL)?;
    wait_until("pings are answered again", SOON, || ping_all(pc1, lan::PC2, 3))
}
