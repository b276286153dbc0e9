//! A bond is a member of the bridge: R1 reaches A by two links, of which one is in use.
//!
//! ```text
//!      A            R1                          R2            C
//!  +-------+    +--------------+           +----------+   +------+
//!  |   eth0|----|lan -+        |           |          |   |      |
//!  |       |    |   bond0-br0  |===========|br0    lan|---|eth0  |
//!  |   eth1|----|lan3-+        |           |          |   |      |
//!  +-------+    +--------------+           +----------+   +------+
//! ```

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    topology::{like_wire, wire},
    with_xdp,
    xgre::{Daemon, xgre},
};

use crate::{
    bridge::Change,
    checks::{Checks, TO_KERNEL},
    lab::{batch, on_one_cpu},
    lan::{Flow, Host, Lan, R1, R2},
    stations::Station,
};

with_xdp!(
    #[ignore = "for a kernel with bonds: cargo xtask test --vm"]
    a_bond_in_a_bridge_is_forwarded_to_or_declined_with_a_reason,
);

fn cell(what: &str) -> [&str; 3] {
    ["gretap, bridge", what, "-"]
}

fn a_bond_in_a_bridge_is_forwarded_to_or_declined_with_a_reason(xdp: Xdp) -> Result<()> {
    on_one_cpu()?;
    let mut lan = Lan::new()?;
    wire((lan.host(Host::A), "eth1"), (&lan.r1, "lan3"))?;
    like_wire(lan.host(Host::A), "eth1")?;
    batch(
        &lan.r1,
        "link add bond0 type bond mode active-backup miimon 20\n\
         link set lan down\nlink set lan master bond0\n\
         link set lan3 down\nlink set lan3 master bond0\nlink set bond0 up\n",
    )?;
    lan.r2.ip("link set br0 type bridge vlan_filtering 0")?;
    let tunnel = Gateway::new(R1, R2).name("gretap1").ethernet();
    let daemon = Daemon::start(&lan.r1, &tunnel.ports(&["wan", "bond0"]).xdp(xdp))?;
    batch(
        &lan.r1,
        "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set gretap1 up master br0\nlink set bond0 master br0\nlink set br0 up\n",
    )?;
    let mut checks = Checks::new(xdp)?;
    let [a, _, c] = Host::ALL;
    let (out, back) = (Flow::new(a, c, &[]), Flow::new(c, a, &[]));
    // Declined, frames are the kernel's.
    let declined = xdp == Xdp::Native;
    let tier = if declined { Xdp::Off } else { xdp };

    checks.check(cell("bond"), TO_KERNEL, "port show", || {
        let ports: Value = serde_json::from_str(&xgre(&lan.r1, "port show -j")?)?;
        let ports = ports.as_array().context("no list")?;
        let port = ports.iter().find(|port| port["name"] == "bond0").context("no bond0")?;
        let note = port["note"].as_str().unwrap_or_default();
        let (mode, said) = if declined {
            ("off", "native XDP sees a frame as come in on a member")
        } else {
            ("generic", "")
        };
        ensure!(port["xdp"] == mode && note.contains(said), "{port}");
        Ok(())
    })?;
    let change = Change { lan: &lan, daemon: &daemon, xdp: tier };
    checks.check(cell("bond"), TO_KERNEL, "flows", || change.flows(out))?;
    checks.check(cell("bond"), TO_KERNEL, "flows back", || change.flows(back))?;
    let other = Station::new(lan.host(Host::A), "eth1")?;
    checks.check(cell("bond"), TO_KERNEL, "not by the other link", || {
        let arrived = lan.burst_from(&other, out)?;
        ensure!(arrived == 0, "{arrived} arrive of what came by the link that is not in use");
        Ok(())
    })?;
    lan.r1.ip("link set lan down")?;
    lan.is_at(Host::A, other);
    let change = Change { lan: &lan, daemon: &daemon, xdp: tier };
    checks.check(cell("bond"), TO_KERNEL, "by the other link", || change.flows(out))?;
    checks.check(cell("bond"), TO_KERNEL, "back by the other link", || change.flows(back))?;
    lan.r1.ip("link set bond0 nomaster")?;
    checks.check(cell("bond"), TO_KERNEL, "out of the bridge", || {
        change.nothing_crosses(out, back)
    })?;
    daemon.stop()?;
    checks.conclude()
}
