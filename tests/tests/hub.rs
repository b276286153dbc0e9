//! Spoke to spoke: the hub takes packets out of one tunnel and puts them into another.
//!
//! ```text
//!  host A ------ A =====(tunnel a)===== hub =====(tunnel b)===== B ------ host B
//! ```
//! All three gateways are on one network; it is drawn in `tests::hub`.

use anyhow::{Result, bail};
use tests::{
    config::Xdp,
    counters::Packets,
    gateways::SOON,
    hub::{HOST_A, HOST_B, Hub},
    in_each_xdp_mode,
    process::wait_until,
    traffic::{Flow, Load, ping_all, ping_until_answered, tcp},
    xgre::Daemon,
};

in_each_xdp_mode!(a_hub_forwards_between_its_tunnels);

fn a_hub_forwards_between_its_tunnels(xdp: Xdp) -> Result<()> {
    let lab = Hub::new()?;
    let [a, hub, b] = lab.configs().map(|config| config.xdp(xdp));
    let _a = Daemon::start(&lab.a, &a)?;
    let hub = Daemon::start(&lab.hub, &hub)?;
    let _b = Daemon::start(&lab.b, &b)?;
    ping_until_answered(&lab.host_a, HOST_B, SOON)?;
    ping_until_answered(&lab.host_b, HOST_A, SOON)?;

    wait_until("the hub's packets all take the expected tier", SOON, || {
        let before = both(&hub)?;
        ping_all(&lab.host_a, HOST_B, 10)?;
        let after = both(&hub)?;
        for (before, after) in before.into_iter().zip(after) {
            let (found, expected) = (after - before, Packets::pings(xdp, 10));
            if found != expected {
                bail!("found {found:?}, expected {expected:?}");
            }
        }
        Ok(())
    })?;
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.host_a, &lab.host_b, HOST_B, Load::Seconds(1), flow)?;
    }
    Ok(())
}

/// The counters of the hub's tunnels, `a` and `b`.
fn both(hub: &Daemon) -> Result<[Packets; 2]> {
    Ok([hub.packets("a")?, hub.packets("b")?])
}
