//! `xgre tunnel change`: in place, and everything or nothing.
//!
//! ```text
//!  PC1 ------- R1 10.56.88.66 ====== router ====== 192.168.22.196 R2 ------- PC2
//!      tunnel0 172.16.168.2 <---------------------> 172.16.168.1 tunnel0
//! ```
//! The whole of it is drawn in `tests::topology`.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, ensure};
use gre_userspace::{
    control::{api::TunnelSpec, client::Client},
    model::Tunnel,
};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Namespace,
    process::wait_until,
    topology::{PC1, PC2, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_none, ping_until_answered},
    xgre::{Daemon, attempt, tunnel, xgre},
};

in_each_xdp_mode!(
    both_ends_change_their_key_and_go_on,
    changes_in_a_row_add_up,
    changes_in_a_burst_add_up,
    a_refused_change_changes_nothing,
    a_config_changed_between_two_daemons_moves_the_mtu,
);

fn both_ends_change_their_key_and_go_on(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    let index = lab.r1.ip("-br link show dev tunnel0")?;
    ping_all(&lab.pc1, PC2, 3)?;

    xgre(&lab.r1, "tunnel change tunnel0 key 42")?;
    ping_none(&lab.pc1, PC2)?;
    ping_none(&lab.pc2, PC1)?;
    xgre(&lab.r2, "tunnel change tunnel0 key 42")?;
    ping_until_answered(&lab.pc1, PC2, SOON)?;
    ping_all(&lab.pc2, PC1, 3)?;
    assert_eq!(lab.r1.ip("-br link show dev tunnel0")?, index, "the device is the same");
    Ok(())
}

fn changes_in_a_row_add_up(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let r1 = &gateways.lab.r1;
    for (words, mtu) in [
        ("key 42 csum", 1468),
        ("nokey", 1472),
        ("seq", 1468),
        ("nocsum noseq", 1476),
        ("ikey 7", 1476),
    ] {
        xgre(r1, &format!("tunnel change tunnel0 {words}"))?;
        let device = r1.ip("-o link show dev tunnel0")?;
        assert!(device.contains(&format!(" mtu {mtu} ")), "after {words}: {device}");
    }
    let shown = xgre(r1, "tunnel show tunnel0")?;
    assert!(shown.lines().next().is_some_and(|line| line.ends_with(" ttl 245 ikey 7")), "{shown}");
    Ok(())
}

/// Faster than the kernel reports them.
fn changes_in_a_burst_add_up(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let r1 = &gateways.lab.r1;
    let namespace = fs::metadata(format!("/run/netns/{}", r1.name()))?.ino();
    let socket = format!("/run/xgre/netns-{namespace}/control.sock");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut client = Client::connect(socket.as_ref()).await?;
        let told = client.tunnels().await?.pop().context("there is tunnel0")?;
        let plain = Tunnel::try_from(TunnelSpec::from(&told))?;
        let numbered = Tunnel { ocsum: true, oseq: true, ..plain.clone() };
        for _ in 0..5 {
            client.change_tunnel("tunnel0", &numbered).await?;
            client.change_tunnel("tunnel0", &plain).await?;
        }
        anyhow::Ok(())
    })?;
    let device = r1.ip("-o link show dev tunnel0")?;
    assert!(device.contains(" mtu 1476 "), "{device}");
    Ok(())
}

fn a_refused_change_changes_nothing(xdp: Xdp) -> Result<()> {
    let gateways = Gateways::forwarding(xdp)?;
    let Gateways { lab, .. } = &gateways;
    xgre(&lab.r1, &format!("tunnel add other mode gre remote {R2_WAN} key 42"))?;
    let state = |r1: &Namespace| -> Result<String> {
        Ok(r1.ip("link show dev tunnel0")? + &xgre(r1, "tunnel show tunnel0")?)
    };
    let before = state(&lab.r1)?;

    for (words, refusal) in [
        (
            "local any key 42 csum",
            "change tunnel \"tunnel0\" failed: File exists\n\
             tunnel \"other\" has the same local, remote and key",
        ),
        (
            "seq reset",
            "change tunnel \"tunnel0\" failed: Invalid argument\ntunnel0 has no sequence",
        ),
        ("mode ip6gre", "Error: tunnel0 is gre, and a tunnel keeps its mode"),
        ("csum dev nosuch", "Cannot find device \"nosuch\""),
    ] {
        let refused = attempt(&lab.r1, &format!("tunnel change tunnel0 {words}"))?.failure()?;
        assert!(refused.contains(refusal), "{words}: {refused}");
        assert_eq!(state(&lab.r1)?, before, "{words}");
    }
    ping_all(&lab.r1, R2_TUNNEL, 3)
}

fn a_config_changed_between_two_daemons_moves_the_mtu(xdp: Xdp) -> Result<()> {
    let Gateways { r1, r2: _r2, lab, .. } = Gateways::forwarding(xdp)?;
    let mtu = || -> Result<Option<Value>> {
        Ok(tunnel(&lab.r1, "tunnel0")?.map(|tunnel| tunnel["mtu"].clone()))
    };
    assert_eq!(mtu()?, Some(1476.into()));
    r1.kill()?;
    let [config, _] = Gateway::both();
    let _r1 = Daemon::start(&lab.r1, &config.key(Some(42)).xdp(xdp))?;
    wait_until("the device has room for the key", SOON, || {
        let found = mtu()?;
        ensure!(found == Some(1472.into()), "its MTU is {found:?}");
        Ok(())
    })
}
