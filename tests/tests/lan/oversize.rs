//! Frames that are longer than the tunnel's device takes: the kernel's bridge drops those without a word. Before
//! it can, TC hands them to the daemon, whether or not XDP runs.

use anyhow::{Result, ensure};
use tests::{
    config::Xdp,
    gateways::SOON,
    in_each_xdp_mode, ipv6,
    lan::{Bridged, Lan, OVER_IPV4, PC1, PC2},
    process::wait_until,
    traffic::{ping_exact, ping_until_answered},
    xgre::outcome,
};

in_each_xdp_mode!(
    the_sender_of_a_frame_that_the_bridge_would_drop_is_told,
    a_frame_that_the_bridge_would_drop_travels_in_outer_fragments,
);

/// Bytes of a ping's payload in a frame of Ethernet's full size.
const FULL: u32 = 1472;

/// One LAN in which both gateways know where PC1 and PC2 are.
fn known(xdp: Xdp, options: &[&str]) -> Result<Bridged> {
    let bridged = Bridged::joined(xdp, OVER_IPV4, options)?;
    let Lan { pc1, r1, r2, pc2, .. } = &bridged.lan;
    for (host, to, gateway) in [(pc1, PC2, r1), (pc2, PC1, r2)] {
        let count = || outcome(gateway, "tc", "oversize");
        wait_until("what is too long comes to the daemon", SOON, || {
            let before = count()?;
            let said = ping_exact(host, to, FULL)?;
            ensure!(count()? > before, "{said}");
            Ok(())
        })?;
        // It may have learned what fits.
        host.ip("route flush cache")?;
    }
    Ok(bridged)
}

fn the_sender_of_a_frame_that_the_bridge_would_drop_is_told(xdp: Xdp) -> Result<()> {
    let bridged = known(xdp, &[])?;
    let Lan { pc1, r1, pc2, .. } = &bridged.lan;
    for (host, address) in [(pc1, "2001:db8:110::20"), (pc2, ipv6::PC2)] {
        ipv6::enable_on(host, "eth0")?;
        host.ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
    }
    ping_until_answered(pc1, ipv6::PC2, SOON)?;
    let count = || -> Result<[u64; 2]> {
        Ok([outcome(r1, "tc", "oversize")?, outcome(r1, "daemon", "answered-too-big")?])
    };
    for (to, payload, answer) in [
        (PC2, FULL, "Frag needed and DF set (mtu = 1462)"),
        (ipv6::PC2, FULL - 20, "Packet too big: mtu=1462"),
    ] {
        let before = count()?;
        let said = ping_exact(pc1, to, payload)?;
        ensure!(said.contains(&format!("From {to} icmp_seq=1 {answer}")), "{said}");
        assert_eq!(count()?, before.map(|count| count + 1), "{to}");
    }
    Ok(())
}

/// The same where the outer packet may be cut.
fn a_frame_that_the_bridge_would_drop_travels_in_outer_fragments(xdp: Xdp) -> Result<()> {
    let bridged = known(xdp, &["pmtudisc = false"])?;
    let Lan { pc1, r1, r2, .. } = &bridged.lan;
    let count = || -> Result<Vec<u64>> {
        let counts = [r1, r2].map(|gateway| {
            Ok([
                outcome(gateway, "tc", "oversize")?,
                outcome(gateway, "daemon", "outer-fragmented")?,
            ])
        });
        Ok(counts.into_iter().collect::<Result<Vec<_>>>()?.concat())
    };
    let before = count()?;
    let said = ping_exact(pc1, PC2, FULL)?;
    ensure!(said.contains(" 1 received"), "{said}");
    assert_eq!(count()?, before.iter().map(|count| count + 1).collect::<Vec<_>>());
    Ok(())
}
