//! S12: bridge and tunnel are taken away, in any order and while frames flow, and nothing is left.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use gre_userspace::loader::Build;
use tests::{
    config::{Gateway, Xdp},
    gateways::SOON,
    in_each_xdp_mode,
    lan::{Bridged, Lan, PC2, by_the_document},
    namespace::Namespace,
    process::wait_until,
    topology::{R1_WAN, R2_WAN},
    traffic::{ping_all, ping_none},
    xgre::{nothing_is_left, tunnel},
};

in_each_xdp_mode!(
    the_documents_commands_remove_all_of_it,
    in_other_orders_and_under_traffic_nothing_is_left_either,
);

const THE_DOCUMENTS: [&str; 6] = [
    "brctl delif br0 gretap1",
    "brctl delif br0 lan",
    "ip link set br0 down",
    "brctl delbr br0",
    "ip link set gretap1 down",
    "ip link del dev gretap1",
];

const OTHERS: [&[&str]; 4] = [
    // The tunnel goes while it is a port, by xgre and by ip.
    &["XGRE link del gretap1", "ip link set br0 down", "brctl delbr br0"],
    &["ip link del dev gretap1", "ip link del br0"],
    // The bridge goes with both ports in it.
    &["ip link del br0", "XGRE link del gretap1"],
    &[
        "ip link set gretap1 down",
        "ip link set br0 down",
        "ip link del br0",
        "XGRE tunnel del gretap1",
    ],
];

fn the_documents_commands_remove_all_of_it(xdp: Xdp) -> Result<()> {
    let bridged = without_tunnels(xdp)?;
    remove_under_traffic(&bridged, &THE_DOCUMENTS)?;
    teardown(bridged)
}

fn in_other_orders_and_under_traffic_nothing_is_left_either(xdp: Xdp) -> Result<()> {
    let bridged = without_tunnels(xdp)?;
    for order in OTHERS {
        remove_under_traffic(&bridged, order)?;
    }
    teardown(bridged)
}

fn without_tunnels(xdp: Xdp) -> Result<Bridged> {
    let none = Gateway::without_tunnels();
    Bridged::start(Lan::new()?, xdp, [none.clone(), none])
}

/// The far end stays, and so goes on sending what nobody takes any more.
fn remove_under_traffic(bridged: &Bridged, commands: &[&str]) -> Result<()> {
    let Lan { pc1, r1, r2, .. } = &bridged.lan;
    let before = Left::by(r1)?;
    by_the_document(r1, R1_WAN, R2_WAN)?;
    if tunnel(r2, "gretap1")?.is_none() {
        by_the_document(r2, R2_WAN, R1_WAN)?;
    }
    wait_until("PC1 reaches PC2", SOON, || ping_all(pc1, PC2, 1))?;
    ensure!(Left::by(r1)? != before, "a tunnel should leave its traces while it is there");

    let traffic = pc1.spawn("ping", &["-n", "-q", "-c", "3000", "-i", "0.002", "-W", "1", PC2])?;
    for command in commands {
        match command.strip_prefix("XGRE ") {
            Some(words) => tests::xgre::xgre(r1, words)?,
            None => r1.run(command)?,
        };
    }
    wait_until("all is gone", SOON, || {
        if let Some(tunnel) = tunnel(r1, "gretap1")? {
            bail!("after {commands:?} there is still {tunnel}");
        }
        let left = Left::by(r1)?;
        ensure!(left == before, "after {commands:?} there is {left:?}, and was before {before:?}");
        Ok(())
    })?;
    drop(traffic);
    ping_none(pc1, PC2)
}

/// What a gateway has of tunnels and bridges.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    devices: BTreeSet<String>,
    /// Names of pinned links.
    links: BTreeSet<String>,
    /// XDP programs and filters, by device.
    filters: Vec<String>,
    /// Buckets in which a tunnel can be found.
    buckets: usize,
}

impl Left {
    fn by(gateway: &Namespace) -> Result<Self> {
        let pins = gateway.pins();
        let links = std::fs::read_dir(pins.join("links"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        let mut filters = Vec::new();
        for device in ["lan", "wan"] {
            let shown = gateway.ip(&format!("-d link show dev {device}"))?;
            filters.push(format!("{device} {}", shown.matches("prog/xdp").count()));
            for hook in ["ingress", "egress"] {
                filters.push(gateway.run(&format!("tc filter show dev {device} {hook}"))?);
            }
        }
        let demux = Map::Array(MapData::from_pin(Build::THIS.maps(&pins).join("DEMUX"))?);
        let demux = Array::<_, [u64; 8]>::try_from(demux)?;
        let mut buckets = 0;
        for bucket in demux.iter() {
            buckets += usize::from(bucket? != [0; 8]);
        }
        Ok(Self { devices: gateway.devices()?.into_iter().collect(), links, filters, buckets })
    }
}

fn teardown(bridged: Bridged) -> Result<()> {
    let Bridged { r1, r2, lan } = bridged;
    lan.r2.ip("link del br0")?;
    r1.stop()?;
    r2.stop()?;
    [&lan.r1, &lan.r2].into_iter().try_for_each(nothing_is_left)
}
