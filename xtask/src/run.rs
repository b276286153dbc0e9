//! `cargo xtask run`: two gateways forward between two hosts, in network namespaces; or xgre on
//! this machine.

use std::{os::unix::process::CommandExt as _, process::Command, time::Duration};

use anyhow::{Result, bail};
use nix::unistd::geteuid;
use tests::{
    config::Gateway as Config,
    counters::Packets,
    interrupt,
    namespace::Namespace,
    topology::{Lab, PC1, PC2, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{Flow, Iperf, Load, PingReport, ping},
    xgre::{self, Daemon},
};

use crate::{
    build,
    live::{self, Gateway, percent},
    setup, vm,
};

pub(crate) const PINGS: u32 = 50;
pub(crate) const STREAM_SECONDS: u32 = 5;
/// The part of the packets that XDP must carry for the demonstration to succeed.
const LEAST_SHARE: f64 = 0.99;

/// The document's topology with the tunnel of S1 to S5.
pub(crate) fn demonstration(keep: bool) -> Result<()> {
    require_root("cargo xtask run")?;
    eprintln!("  {}", setup::ensure()?);
    xgre::set_binary(build::release()?);
    show(keep)
}

/// The same in a guest.
pub(crate) fn in_guest(kernel: &str) -> Result<()> {
    eprintln!("  {}", setup::ensure()?);
    vm::demonstration(kernel)
}

/// With the xgre that has been chosen.
pub(crate) fn show(keep: bool) -> Result<()> {
    println!("\nPC1 {PC1} - R1 {R1_WAN} = router = R2 {R2_WAN} - PC2 {PC2}");
    println!("tunnel0: R1 {R1_TUNNEL} - R2 {R2_TUNNEL}, GRE, routed, no NAT\n");
    let lab = Lab::new()?;
    let [for_r1, for_r2] = Config::both();
    let r1 = Daemon::start(&lab.r1, &for_r1)?;
    let r2 = Daemon::start(&lab.r2, &for_r2)?;
    r1.wait_until_accelerated("tunnel0")?;
    r2.wait_until_accelerated("tunnel0")?;
    println!("The tunnel is ready on both gateways.");

    let mut gateways =
        [Gateway::new("R1", &lab.r1, "tunnel0")?, Gateway::new("R2", &lab.r2, "tunnel0")?];
    let before = [gateways[0].packets()?, gateways[1].packets()?];
    println!("\nPC1 pings PC2 {PINGS} times ...");
    let pings = ping(&lab.pc1, PC2, PINGS)?;
    println!("  {pings}");
    println!("\nPC1 sends to PC2 by TCP (iperf3) for {STREAM_SECONDS} s ...");
    let mut stream =
        Iperf::start(&lab.pc1, &lab.pc2, PC2, Load::Seconds(STREAM_SECONDS), Flow::ToServer)?;
    live::watch(&mut gateways, &mut stream)?;
    let rate = stream.finish()?;

    let mut carried = Vec::new();
    for (gateway, before) in gateways.iter().zip(before) {
        carried.push((gateway.name, gateway.packets()? - before));
    }
    let verdict = conclude(&pings, rate, &carried);
    if keep {
        wait_for_interruption(&lab.pc1, &lab.r1, &lab.router);
        return verdict;
    }
    r1.stop()?;
    r2.stop()?;
    verdict
}

/// Says what was shown; an error if it falls short.
fn conclude(pings: &PingReport, rate: f64, carried: &[(&str, Packets)]) -> Result<()> {
    println!("\nWhat this has shown:");
    println!("  PC1 reaches PC2 by its real address, through the tunnel: {pings}.");
    println!("  A TCP stream from PC1 to PC2 ran at {:.2} Gbit/s.", rate / 1e9);
    for (name, packets) in carried {
        println!(
            "  {name} forwarded {} packets, {} of them in XDP: {} did not have to enter the kernel's \
             network stack, {} did; {} were dropped.",
            packets.xdp() + packets.tc(),
            percent(packets.xdp_share()),
            packets.xdp(),
            packets.tc(),
            packets.drops,
        );
    }

    let mut faults = Vec::new();
    if pings.lost() > 0 {
        faults.push(format!("{} of {} pings were lost", pings.lost(), pings.sent));
    }
    for (name, packets) in carried {
        if packets.xdp_share().unwrap_or(0.0) < LEAST_SHARE {
            let share = percent(packets.xdp_share());
            faults.push(format!("{name} forwarded only {share} of the packets in XDP"));
        }
    }
    if !faults.is_empty() {
        bail!("the demonstration fell short: {}", faults.join("; "));
    }
    Ok(())
}

/// `xgre WORDS` on this machine, in place of this process.
pub(crate) fn here(words: &[String]) -> Result<()> {
    require_root("cargo xtask run -- ARGS")?;
    setup::ensure()?;
    let binary = build::release()?;
    let error = Command::new(&binary).args(words).exec();
    bail!("running {}: {error}", binary.display())
}

pub(crate) fn require_root(task: &str) -> Result<()> {
    if !geteuid().is_root() {
        bail!("`{task}` needs root: run it as `sudo -E env \"PATH=$PATH\" {task}`");
    }
    Ok(())
}

/// For a look around; the end is Ctrl-C, which is no failure here.
pub(crate) fn wait_for_interruption(pc1: &Namespace, r1: &Namespace, router: &Namespace) {
    println!("\nEverything stays up until Ctrl-C. From another terminal, for example");
    println!("  nsenter --net=/run/netns/{} ping {PC2}", pc1.name());
    println!("  nsenter --net=/run/netns/{} target/release/xgre stats --watch", r1.name());
    println!("  nsenter --net=/run/netns/{} tcpdump -ni to-r1 proto gre", router.name());
    while !interrupt::interrupted() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
