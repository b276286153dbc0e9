//! Broadcast storms, loops and the like, as an operator sees them in the counters.

use anyhow::{Result, ensure};
use tests::{
    config::Xdp,
    gateways::SOON,
    lan::{Bridged, Lan, OVER_IPV4},
    process::wait_until,
    traffic::scapy_send_frames,
    with_xdp,
    xgre::outcome,
};

with_xdp!(floods_are_counted_apart_on_both_sides);

/// To everyone, to a group, and to a station that no bridge has heard of: where they come in, and where
/// they come out of the tunnel.
fn floods_are_counted_apart_on_both_sides(xdp: Xdp) -> Result<()> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, &[])?;
    let Lan { pc1, r1, r2, .. } = &bridged.lan;
    let source = pc1.mac("eth0")?;
    let send = |destination: &str, count: u64| {
        let frame = format!("Ether(src='{source}', dst='{destination}', type=0x88b5)/(b'x' * 86)");
        scapy_send_frames(pc1, "eth0", &format!("[{frame}] * {count}"))
    };
    wait_until("the bridge is known", SOON, || {
        let before = outcome(r1, "xdp", "bridge-broadcast")?;
        send("ff:ff:ff:ff:ff:ff", 1)?;
        ensure!(outcome(r1, "xdp", "bridge-broadcast")? == before + 1);
        Ok(())
    })?;
    for (destination, came, left) in [
        ("ff:ff:ff:ff:ff:ff", "bridge-broadcast", "broadcast-to-device"),
        ("01:00:5e:01:02:03", "bridge-multicast", "multicast-to-device"),
        ("02:77:77:77:77:77", "bridge-unknown", "to-device"),
    ] {
        let counts =
            || -> Result<[u64; 2]> { Ok([outcome(r1, "xdp", came)?, outcome(r2, "xdp", left)?]) };
        let before = counts()?;
        send(destination, 20)?;
        wait_until(&format!("20 frames to {destination} are counted"), SOON, || {
            let after = counts()?;
            let found = [after[0] - before[0], after[1] - before[1]];
            ensure!(found == [20; 2], "{found:?}");
            Ok(())
        })?;
    }
    Ok(())
}
