//! Ports with VLANs on them: the LAN and the underlay each without a tag, in a VLAN, and in a VLAN within a
//! VLAN (802.1Q in 802.1ad), all on the same two ports. Every LAN reaches the far host by every underlay.
//!
//! ```text
//!      A                       R1                                R2
//!  +--------+        +----------------------+           +----------------+
//!  |eth0    |--------|lan     xgre       wan|===========|wan             |  not tagged
//!  |eth10   |- - - - |lan10           wan100|- - - - - -|wan100          |  802.1Q
//!  |eth8q10 |- - - - |lan8q10       wan7q100|- - - - - -|wan7q100        |  802.1Q in 802.1ad
//!  +--------+        +----------------------+           +----------------+
//!                       t0, t1, t2 <====== by each =====> t0, t1, t2: the kernel's
//! ```

use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::SOON,
    namespace::Namespace,
    process::wait_until,
    topology::{like_wire, wire},
    xgre::Daemon,
};

use crate::{
    checks::{Checks, FROM_KERNEL, TO_KERNEL},
    lab::{batch, on_one_cpu},
    packets::{Answer, Echo, Pinger, stream},
};

const KINDS: [&str; 3] = ["no tag", "VLAN", "QinQ"];
const PINGS: u16 = 10;

struct Lab {
    a: Namespace,
    r1: Namespace,
    r2: Namespace,
    near: Pinger,
    far: Pinger,
}

/// What a LAN and an underlay have for each other.
#[derive(Debug, Clone, Copy)]
struct Pair {
    lan: usize,
    underlay: usize,
}

impl Pair {
    fn all() -> impl Iterator<Item = Self> {
        (0..3).flat_map(|underlay| (0..3).map(move |lan| Self { lan, underlay }))
    }

    /// A's address.
    fn host(self) -> String {
        format!("192.168.15{}.1{}", self.lan, self.underlay)
    }

    /// R2's.
    fn target(self) -> String {
        format!("10.110.{}.1{}", self.underlay, self.lan)
    }

    fn cell(self) -> [&'static str; 3] {
        let outer = ["gre, no tag", "gre, VLAN", "gre, QinQ"][self.underlay];
        [outer, ["LAN: no tag", "LAN: VLAN", "LAN: QinQ"][self.lan], "IPv4"]
    }
}

pub fn vlans_and_qinq_on_both_ports_are_forwarded_and_kept_apart(xdp: Xdp) -> Result<()> {
    on_one_cpu()?;
    let lab = Lab::new()?;
    let daemon = lab.xgre(xdp)?;
    let mut checks = Checks::new(xdp)?;
    for pair in Pair::all() {
        let out = lab.echo(pair)?;
        // Neighbours are resolved on the way.
        wait_until("it is answered", SOON, || replied(&lab.near, out))?;
        wait_until("all take the tier of the mode", SOON, || lab.carried(&daemon, xdp, pair, 1))?;
    }
    for pair in Pair::all() {
        checks.check(pair.cell(), TO_KERNEL, "pings", || lab.carried(&daemon, xdp, pair, PINGS))?;
        let [near, far] = [pair.host(), pair.target()].map(|address| address.parse::<IpAddr>());
        let (near, far) = ((&lab.a, near?), (&lab.r2, far?));
        checks.check(pair.cell(), TO_KERNEL, "TCP", || stream(near, far))?;
        checks.check(pair.cell(), FROM_KERNEL, "TCP", || stream(far, near))?;
    }
    for (lan, device) in ["lan", "lan10", "lan8q10"].into_iter().enumerate() {
        lab.r1.sysctl(&format!("net.ipv4.conf.{device}.forwarding"), 0)?;
        checks.check([KINDS[lan], "no forwarding", "IPv4"], TO_KERNEL, "alone", || {
            lab.only_without(lan)
        })?;
        lab.r1.sysctl(&format!("net.ipv4.conf.{device}.forwarding"), 1)?;
    }
    daemon.stop()?;
    checks.conclude()
}

fn replied(pinger: &Pinger, echo: Echo) -> Result<()> {
    let answer = pinger.ping(&echo)?;
    ensure!(answer == Answer::Reply, "{answer:?} to {echo:?}");
    Ok(())
}

impl Lab {
    fn new() -> Result<Self> {
        let [a, r1, r2] = ["a", "r1", "r2"].map(Namespace::new);
        let (a, r1, r2) = (a?, r1?, r2?);
        wire((&a, "eth0"), (&r1, "lan"))?;
        wire((&r1, "wan"), (&r2, "wan"))?;
        for (namespace, device) in [(&a, "eth0"), (&r2, "wan")] {
            like_wire(namespace, device)?;
            // On a wire a tag is in the frame; beside it, where veth leaves it, no XDP program sees it.
            namespace.offloads(device, "txvlan off tx-vlan-stag-hw-insert off")?;
        }
        batch(&a, &(vlans("eth", "eth0", [8, 10]) + &a_addresses()))?;
        batch(
            &r1,
            &(vlans("lan", "lan", [8, 10]) + &vlans("wan", "wan", [7, 100]) + &r1_addresses()),
        )?;
        batch(&r2, &(vlans("wan", "wan", [7, 100]) + &r2_addresses()))?;
        r1.sysctl("net.ipv4.ip_forward", 1)?;
        r1.sysctl("net.ipv4.icmp_ratelimit", 0)?;
        let any = [0; 4].into();
        Ok(Self { near: Pinger::new(&a, &any)?, far: Pinger::new(&r2, &any)?, a, r1, r2 })
    }

    fn xgre(&self, xdp: Xdp) -> Result<Daemon> {
        let tunnel = |number: usize| {
            let tunnel = Gateway::new(&underlay(number, 66), &underlay(number, 67))
                .name(&format!("t{number}"));
            let route = format!("10.110.{number}.0/24");
            tunnel.routes(&[&route])
        };
        let ports = ["wan", "wan100", "wan7q100", "lan", "lan10", "lan8q10"];
        let config = tunnel(0).and(tunnel(1)).and(tunnel(2)).ports(&ports).xdp(xdp);
        Daemon::start(&self.r1, &config)
    }

    fn echo(&self, pair: Pair) -> Result<Echo> {
        let (source, target) = (pair.host().parse()?, pair.target().parse()?);
        Ok(Echo { source, target, size: 84, dont_fragment: true, tos: 0, ttl: 64, number: 1 })
    }

    /// Pings from both ends are answered, in the tier of the mode, counted exactly.
    fn carried(&self, daemon: &Daemon, xdp: Xdp, pair: Pair, count: u16) -> Result<()> {
        let tunnel = format!("t{}", pair.underlay);
        let out = self.echo(pair)?;
        let back = Echo { source: out.target, target: out.source, ..out };
        let before = daemon.packets(&tunnel)?;
        for number in 1..=count {
            replied(&self.near, Echo { number, ..out })?;
            replied(&self.far, Echo { number: 0x100 | number, ..back })?;
        }
        let found = daemon.packets(&tunnel)? - before;
        let expected = Packets::pings(xdp, 2 * u64::from(count));
        ensure!(found == expected, "{found:?}, expected {expected:?}");
        Ok(())
    }

    /// What comes from this LAN is not forwarded, and what comes from the others on its port is.
    fn only_without(&self, lan: usize) -> Result<()> {
        let refused = self.echo(Pair { lan, underlay: 0 })?;
        wait_until("it is no longer forwarded", SOON, || {
            ensure!(self.near.answer(&refused, BRIEFLY)?.is_none(), "it is");
            Ok(())
        })?;
        for pair in Pair::all().filter(|pair| pair.lan != lan) {
            replied(&self.near, self.echo(pair)?)?;
        }
        Ok(())
    }
}

/// How long an answer is waited for that should not come.
const BRIEFLY: std::time::Duration = std::time::Duration::from_millis(500);

fn underlay(number: usize, host: u8) -> String {
    format!("10.56.8{number}.{host}")
}

/// A VLAN on a device, and one within another; what is below them has room for both tags.
fn vlans(name: &str, base: &str, [outer, inner]: [u16; 2]) -> String {
    format!(
        "link set {base} mtu 1508\n\
         link add {name}{inner} link {base} type vlan id {inner}\n\
         link add {name}{outer} link {base} type vlan protocol 802.1ad id {outer}\n\
         link add {name}{outer}q{inner} link {name}{outer} type vlan id {inner}\n\
         link set {name}{inner} mtu 1500 up\nlink set {name}{outer} up\n\
         link set {name}{outer}q{inner} mtu 1500 up\n"
    )
}

fn a_addresses() -> String {
    let mut lines = String::new();
    for pair in Pair::all() {
        let device = ["eth0", "eth10", "eth8q10"][pair.lan];
        _ = writeln!(lines, "addr add {}/24 dev {device}", pair.host());
    }
    for pair in Pair::all() {
        let (target, host) = (pair.target(), pair.host());
        _ = writeln!(lines, "route add {target} via 192.168.15{}.1 src {host}", pair.lan);
    }
    lines
}

fn r1_addresses() -> String {
    let mut lines = String::new();
    for (number, (lan, wan)) in
        [("lan", "wan"), ("lan10", "wan100"), ("lan8q10", "wan7q100")].into_iter().enumerate()
    {
        _ = writeln!(lines, "addr add 192.168.15{number}.1/24 dev {lan}");
        _ = writeln!(lines, "addr add {}/24 dev {wan}", underlay(number, 66));
    }
    lines
}

fn r2_addresses() -> String {
    let mut lines = String::new();
    for (number, wan) in ["wan", "wan100", "wan7q100"].into_iter().enumerate() {
        let (local, remote) = (underlay(number, 67), underlay(number, 66));
        _ = writeln!(lines, "addr add {local}/24 dev {wan}");
        _ = writeln!(lines, "link add t{number} type gre local {local} remote {remote} ttl 64");
        _ = writeln!(lines, "link set t{number} up");
    }
    for pair in Pair::all() {
        let (target, host) = (pair.target(), pair.host());
        _ = writeln!(lines, "addr add {target}/32 dev lo");
        _ = writeln!(lines, "route add {host} dev t{} src {target}", pair.underlay);
    }
    lines
}
