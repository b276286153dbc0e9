//! A bond is a member of R1's bridge: R1 reaches A by two links, of which one is in use.
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
    config::Xdp,
    gateways::SOON,
    process::wait_until,
    topology::{like_wire, wire},
    xgre::{Daemon, xgre},
};

use crate::{
    bridge::{Change, cell},
    checks::{Checks, TO_KERNEL},
    lab::{batch, batch_of},
    lan::{Flow, Host, Lan, VLAN_10},
    stations::Station,
};

/// Puts A's link into a bond with another, and that into the bridge.
pub fn is_declined_with_a_reason(
    lan: &mut Lan,
    daemon: &Daemon,
    xdp: Xdp,
    checks: &mut Checks,
) -> Result<()> {
    wire((lan.host(Host::A), "eth1"), (&lan.r1, "lan3"))?;
    like_wire(lan.host(Host::A), "eth1")?;
    batch(
        &lan.r1,
        "link set lan nomaster\nlink set lan down\nlink set lan master bond0\n\
         link set lan3 down\nlink set lan3 master bond0\nlink set bond0 up master br0\n",
    )?;
    let in_vlan_10 = |lan: &Lan| batch_of("bridge", &lan.r1, "vlan add dev bond0 vid 10\n");
    in_vlan_10(lan)?;
    let [a, _, c] = Host::ALL;
    let (out, back) = (Flow::new(a, c, VLAN_10), Flow::new(c, a, VLAN_10));
    // Declined, its frames are the kernel's.
    let tier = Xdp::Off;

    checks.check(cell("bond"), TO_KERNEL, "port show", || {
        let said = match xdp {
            Xdp::Native | Xdp::Generic => {
                "as come in on a member of it, or without their VLAN tags"
            }
            Xdp::Off => "XDP is off for this port in the config",
        };
        wait_until("the bond is a port", SOON, || {
            let ports: Value = serde_json::from_str(&xgre(&lan.r1, "port show -j")?)?;
            let ports = ports.as_array().context("no list")?;
            let port = ports.iter().find(|port| port["name"] == "bond0").context("no bond0")?;
            let note = port["note"].as_str().unwrap_or_default();
            ensure!(port["xdp"] == "off" && note.contains(said), "{port}");
            Ok(())
        })
    })?;
    let change = Change { lan, daemon, xdp: tier };
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
    let change = Change { lan, daemon, xdp: tier };
    checks.check(cell("bond"), TO_KERNEL, "by the other link", || change.flows(out))?;
    checks.check(cell("bond"), TO_KERNEL, "back by the other link", || change.flows(back))?;
    lan.r1.ip("link set bond0 nomaster")?;
    checks.check(cell("bond"), TO_KERNEL, "out of the bridge", || {
        change.nothing_crosses(out, back)
    })?;
    lan.r1.ip("link set bond0 master br0")?;
    in_vlan_10(lan)?;
    checks.check(cell("bond"), TO_KERNEL, "in it again", || change.flows(out))
}
