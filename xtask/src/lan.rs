//! `cargo xtask run --l2`: the document's other topology, one LAN over a tunnel of Ethernet.

use anyhow::{Result, bail};
use tests::{
    config::Gateway as Config,
    dhcp,
    lan::{Lan, PC1, PC2, TUNNEL, by_the_document, neighbour},
    topology::{R1_WAN, R2_WAN},
    traffic::{Flow, Iperf, Load, ping},
    xgre::{self, Daemon},
};

use crate::{
    build,
    live::{self, Gateway, percent},
    run::{PINGS, STREAM_SECONDS, require_root, wait_for_interruption},
    setup,
};

/// What the tunnel takes, and so what PC2 has dnsmasq tell those who ask for an address.
const MTU: u32 = 1462;

pub(crate) fn demonstration(keep: bool) -> Result<()> {
    require_root("cargo xtask run --l2")?;
    eprintln!("  {}", setup::ensure()?);
    xgre::set_binary(build::release()?);

    println!("\nPC1 - [lan R1 {R1_WAN}] = router = [{R2_WAN} R2 lan] - PC2 {PC2}");
    println!("{TUNNEL}: Ethernet in GRE; a bridge br0 on R1 and on R2 joins it to the LAN\n");
    let lan = Lan::bare()?;
    let r1 = Daemon::start(&lan.r1, &Config::without_tunnels().ports(&["wan", "lan"]))?;
    let r2 = Daemon::start(&lan.r2, &Config::without_tunnels().ports(&["wan", "lan"]))?;
    for (name, gateway, local, remote) in
        [("R1", &lan.r1, R1_WAN, R2_WAN), ("R2", &lan.r2, R2_WAN, R1_WAN)]
    {
        for command in by_the_document(gateway, local, remote)? {
            println!("  {name}# {command}");
        }
    }
    lan.pc2.ip(&format!("addr add {PC2}/24 dev eth0"))?;

    println!("\nPC1 asks for an address; a DHCP server is on PC2's side alone ...");
    let _server = dhcp::serve(&lan.pc2, PC1, MTU)?;
    dhcp::ask(&lan.pc1)?;
    let address = lan.pc1.ip("-4 -o addr show dev eth0")?;
    println!("  {}", address.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" "));

    let mut gateways = [Gateway::new("R1", &lan.r1, TUNNEL)?, Gateway::new("R2", &lan.r2, TUNNEL)?];
    println!("\nPC1 pings PC2 {PINGS} times ...");
    let pings = ping(&lan.pc1, PC2, PINGS)?;
    println!("  {pings}");
    let mac = neighbour(&lan.pc1, PC2)?;
    println!("\nPC1 sends to PC2 by TCP (iperf3) for {STREAM_SECONDS} s ...");
    let mut stream =
        Iperf::start(&lan.pc1, &lan.pc2, PC2, Load::Seconds(STREAM_SECONDS), Flow::ToServer)?;
    live::watch(&mut gateways, &mut stream)?;
    let rate = stream.finish()?;

    println!("\nWhat this has shown:");
    println!("  PC1 got {PC1} by DHCP through the tunnel, and an MTU of {MTU} with it.");
    println!("  PC1 reaches PC2 at layer 2, by its own MAC address {mac}: {pings}.");
    println!("  A TCP stream from PC1 to PC2 ran at {:.2} Gbit/s.", rate / 1e9);
    for gateway in &gateways {
        let packets = gateway.packets()?;
        println!(
            "  {} carried {} frames, {} of them in XDP; {} were dropped.",
            gateway.name,
            packets.xdp() + packets.tc(),
            percent(packets.xdp_share()),
            packets.drops,
        );
    }
    let mut faults = Vec::new();
    if pings.lost() > 0 {
        faults.push(format!("{} of {} pings were lost", pings.lost(), pings.sent));
    }
    if mac != lan.pc2.mac("eth0")? {
        faults.push(format!("{mac} is not PC2's MAC address"));
    }
    if keep {
        wait_for_interruption(&lan.pc1, &lan.r1, &lan.router);
    } else {
        r1.stop()?;
        r2.stop()?;
    }
    if !faults.is_empty() {
        bail!("the demonstration fell short: {}", faults.join("; "));
    }
    Ok(())
}
