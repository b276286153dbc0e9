//! One LAN of two, by the kernel's bridges: R1's tunnels are the kernel's or xgre's, R2's the kernel's.
//!
//! ```text
//!      A                    R1                                    R2                   C
//!  +-------+      +--------------------+              +--------------------+      +-------+
//!  |   eth0|------|lan -+           wan|==============|wan           +- lan|------|eth0   |
//!  +-------+      |     br0            |              |            br0     |      +-------+
//!      B          |lan2 -+- gretap1    | .66      .67 |    gretap1 -+      |
//!  +-------+      |      +- gretap2    |              |    gretap2 -+      |
//!  |   eth0|------|                    |              |                    |
//!  +-------+      +--------------------+              +--------------------+
//! ```
//!
//! | VLAN | A | B | R1's tunnel | R2's tunnel | C |
//! |---|---|---|---|---|---|
//! | 10 | tagged | untagged | tagged | tagged | tagged |
//! | 20 | tagged | - | - | tagged | tagged |
//! | 30 | untagged | - | tagged | tagged | untagged |
//! | 40 | tagged | - | untagged | untagged | tagged |

use std::{
    cell::Cell,
    ops::Sub,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use tests::{
    capture::Capture,
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::SOON,
    namespace::Namespace,
    process::wait_until,
    topology::{like_wire, wire},
    xgre::{Daemon, outcome_of},
};

use crate::{
    lab::{batch, batch_of},
    stations::{Frame, Mac, Station, number},
};

pub const R1: &str = "10.56.88.66";
pub const R2: &str = "10.56.88.67";

pub const BROADCAST: Mac = [0xff; 6];
/// What all hosts' addresses start with, and those that the tests make up.
const OURS: u8 = 2;
/// Set to be behind R1's tunnel, in VLAN 10.
pub const STATIC: Mac = [OURS, 0x5a, 0, 0, 0, 1];
/// Set to be behind B's port in VLAN 10, and to stay there.
pub const STICKY: Mac = [OURS, 0x5a, 0, 0, 0, 2];

pub const TAG: u16 = 0x8100;
pub const VLAN_10: &[(u16, u16)] = &[(TAG, 10)];
pub const VLAN_20: &[(u16, u16)] = &[(TAG, 20)];
pub const VLAN_30: &[(u16, u16)] = &[(TAG, 30)];

/// Frames of a burst.
pub const BURST: usize = 20;
/// Numbers of frames that are sent for themselves; those beyond end a round, or are a burst's.
const NUMBERS: u16 = 0x8000;

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    A,
    B,
    C,
}

impl Host {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    pub fn mac(self) -> Mac {
        [OURS, 0xa0, 0, 0, 0, self as u8]
    }

    /// To a station, of this number.
    pub fn frame(self, destination: Mac, tags: &[(u16, u16)], number: u16) -> Frame<'_> {
        Frame { source: self.mac(), destination, tags, number }
    }
}

/// What is sent by whom to whom, and with which tags.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    pub from: Host,
    pub to: Host,
    pub tags: &'a [(u16, u16)],
    pub broadcast: bool,
}

impl<'a> Flow<'a> {
    pub fn new(from: Host, to: Host, tags: &'a [(u16, u16)]) -> Self {
        Self { from, to, tags, broadcast: false }
    }

    pub fn broadcast(from: Host, to: Host) -> Self {
        Self { from, to, tags: &[], broadcast: true }
    }

    fn bytes(&self, number: u16) -> Vec<u8> {
        let destination = if self.broadcast { BROADCAST } else { self.to.mac() };
        self.from.frame(destination, self.tags, number).bytes()
    }
}

/// What R1 has counted of its first tunnel, and XDP of frames that go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub tx_xdp: u64,
    /// Out of the tunnel and to the port of its destination, by XDP.
    pub decapsulated: u64,
    /// From one port to another, by XDP.
    pub bridged: u64,
    pub rx: u64,
    pub tx: u64,
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            tx_xdp: self.tx_xdp - earlier.tx_xdp,
            decapsulated: self.decapsulated - earlier.decapsulated,
            bridged: self.bridged - earlier.bridged,
            rx: self.rx - earlier.rx,
            tx: self.tx - earlier.tx,
        }
    }
}

pub struct Lan {
    hosts: [Namespace; 3],
    stations: [Station; 3],
    pub r1: Namespace,
    pub r2: Namespace,
    next: Cell<u16>,
}

/// What was at each host's device, sent or received, tags included; in order of its bytes.
pub type Seen = [Vec<Vec<u8>>; 3];

impl Lan {
    /// Everything but R1's tunnels and its bridge.
    pub fn new() -> Result<Self> {
        let [a, b, c] = ["a", "b", "c"].map(Namespace::new);
        let (hosts, r1, r2) = ([a?, b?, c?], Namespace::new("r1")?, Namespace::new("r2")?);
        let [a, b, c] = &hosts;
        wire((a, "eth0"), (&r1, "lan"))?;
        wire((b, "eth0"), (&r1, "lan2"))?;
        wire((&r1, "wan"), (&r2, "wan"))?;
        wire((&r2, "lan"), (c, "eth0"))?;
        for host in &hosts {
            like_wire(host, "eth0")?;
        }
        like_wire(&r2, "wan")?;
        for (gateway, address) in [(&r1, R1), (&r2, R2)] {
            gateway.ip(&format!("addr add {address}/24 dev wan"))?;
            // Else each bridge reports, now and then, that it listens to other bridges.
            gateway.sysctl("net.ipv4.igmp_link_local_mcast_reports", 0)?;
        }
        let [a, b, c] = [a, b, c].map(|host| Station::new(host, "eth0"));
        let lan = Self { stations: [a?, b?, c?], hosts, r1, r2, next: Cell::new(NUMBERS) };
        lan.r1.ip("link add bond0 type bond mode active-backup miimon 20")?;
        let remote = format!("local {R2} remote {R1}");
        batch(
            &lan.r2,
            &format!("link add gretap1 type gretap {remote} ttl 64\n{}", bridge("lan")),
        )?;
        batch_of(
            "bridge",
            &lan.r2,
            "vlan add dev lan vid 10\nvlan add dev lan vid 20\n\
             vlan add dev lan vid 30 pvid untagged\nvlan add dev lan vid 40\n\
             vlan add dev gretap1 vid 10\nvlan add dev gretap1 vid 20\nvlan add dev gretap1 vid 30\n\
             vlan add dev gretap1 vid 40 pvid untagged\n",
        )?;
        Ok(lan)
    }

    pub fn host(&self, host: Host) -> &Namespace {
        &self.hosts[host as usize]
    }

    /// A host sends from another of its devices from now on.
    pub fn is_at(&mut self, host: Host, station: Station) {
        self.stations[host as usize] = station;
    }

    /// Makes R1's tunnel the kernel's.
    pub fn kernel(&self) -> Result<()> {
        let ends = format!("local {R1} remote {R2}");
        batch(&self.r1, &format!("link add gretap1 type gretap {ends} ttl 64\n"))?;
        self.bridge()
    }

    /// Removes that.
    pub fn without_kernel(&self) -> Result<()> {
        batch(&self.r1, "link del br0\nlink del gretap1\n")
    }

    /// Makes R1's tunnel xgre's; returns when frames between learned addresses take the tier of the mode.
    pub fn xgre(&self, xdp: Xdp) -> Result<Daemon> {
        let tunnel = Gateway::new(R1, R2).name("gretap1").ethernet();
        let daemon =
            Daemon::start(&self.r1, &tunnel.ports(&["wan", "lan", "lan2", "bond0"]).xdp(xdp))?;
        self.bridge()?;
        if xdp != Xdp::Off {
            let [a, b, c] = Host::ALL;
            let flows = [
                (a, c, VLAN_10),
                (a, c, VLAN_30),
                (b, c, VLAN_10),
                (b, a, VLAN_10),
                (c, a, VLAN_10),
            ];
            wait_until("learned addresses take the fast path", SOON, || {
                let before = counted(&daemon)?;
                for (from, to, tags) in flows {
                    let number = self.number();
                    self.send(from, &from.frame(to.mac(), tags, number).bytes())?;
                    self.await_number(to, number)?;
                }
                let found = counted(&daemon)? - before;
                let expected = Counted { tx_xdp: 3, decapsulated: 1, bridged: 1, rx: 1, tx: 3 };
                ensure!(found == expected, "{found:?}, expected {expected:?}");
                Ok(())
            })?;
        }
        Ok(daemon)
    }

    /// Makes R1's bridge, and has the bridges learn where the hosts are.
    fn bridge(&self) -> Result<()> {
        batch(&self.r1, &(bridge("lan") + "link set lan2 master br0\n"))?;
        batch_of(
            "bridge",
            &self.r1,
            &format!(
                "vlan add dev lan vid 10\nvlan add dev lan vid 20\n\
                 vlan add dev lan vid 30 pvid untagged\nvlan add dev lan vid 40\n\
                 vlan add dev lan2 vid 10 pvid untagged\n\
                 vlan add dev gretap1 vid 10\nvlan add dev gretap1 vid 30\n\
                 vlan add dev gretap1 vid 40 pvid untagged\n\
                 fdb add {} dev gretap1 master static vlan 10\n\
                 fdb add {} dev lan2 master static sticky vlan 10\n",
                text(STATIC),
                text(STICKY)
            ),
        )?;
        for host in Host::ALL {
            for tags in [&[][..], VLAN_10, VLAN_20, VLAN_30, &[(TAG, 40)]] {
                self.send(host, &host.frame(BROADCAST, tags, NUMBERS).bytes())?;
            }
        }
        Ok(())
    }

    pub fn send(&self, from: Host, frame: &[u8]) -> Result<()> {
        self.stations[from as usize].send(frame)
    }

    /// Everything that is at the hosts' devices while something is done, and until all that it sent has
    /// arrived: what comes last is a broadcast of each host.
    pub fn watch(&self, work: impl FnOnce() -> Result<()>) -> Result<Seen> {
        let [a, b, c] = &self.hosts;
        // From one of ours, whatever its tags.
        let start = |host| Capture::start(host, "eth0", &format!("ether[6] == {OURS}"));
        let captures = [start(a)?, start(b)?, start(c)?];
        work()?;
        let last = Host::ALL.map(|host| (host, self.number()));
        for (host, number) in last {
            let tags = if host == Host::B { &[] } else { VLAN_10 };
            self.send(host, &host.frame(BROADCAST, tags, number).bytes())?;
        }
        let mut seen = captures.into_iter().map(|capture| {
            let is_last = |frame: &[u8]| last.iter().any(|(_, last)| number(frame) == *last);
            let frames = capture.finish_with(last.len(), is_last)?.bytes()?;
            let mut frames: Vec<_> =
                frames.into_iter().filter(|frame| number(frame) < NUMBERS).collect();
            frames.sort();
            Ok(frames)
        });
        let mut next = || seen.next().unwrap_or_else(|| bail!("a capture for each host"));
        Ok([next()?, next()?, next()?])
    }

    /// How many frames of a burst arrive: those that are there when a frame sent after them is.
    pub fn burst(&self, flow: Flow<'_>, after: Flow<'_>) -> Result<usize> {
        let number = self.burst_into_nothing(flow)?;
        let last = self.number();
        self.send(after.from, &after.bytes(last))?;
        let mut arrived = self.await_number(after.to, last)?;
        if after.to != flow.to {
            arrived = self.stations[flow.to as usize].received();
        }
        Ok(arrived.iter().filter(|found| **found == number).count())
    }

    /// The same where the burst is sent from elsewhere.
    pub fn burst_from(&self, station: &Station, flow: Flow<'_>) -> Result<usize> {
        let number = self.number();
        for _ in 0..BURST {
            station.send(&flow.bytes(number))?;
        }
        let last = self.number();
        self.send(flow.from, &flow.bytes(last))?;
        let arrived = self.await_number(flow.to, last)?;
        Ok(arrived.iter().filter(|found| **found == number).count())
    }

    /// Sends a burst, after which nothing arrives.
    pub fn burst_into_nothing(&self, flow: Flow<'_>) -> Result<u16> {
        // Those that nobody has looked at would leave no room.
        for station in &self.stations {
            station.received();
        }
        let number = self.number();
        for _ in 0..BURST {
            self.send(flow.from, &flow.bytes(number))?;
        }
        Ok(number)
    }

    /// How many frames of a number have arrived since the last look.
    pub fn arrived(&self, at: Host, number: u16) -> usize {
        let received = self.stations[at as usize].received();
        received.iter().filter(|found| **found == number).count()
    }

    /// Sends a frame the other way, so that the bridges know where the flow's destination is.
    pub fn teach(&self, flow: Flow<'_>) -> Result<()> {
        let back = Flow { from: flow.to, to: flow.from, ..flow };
        self.send(back.from, &back.bytes(self.number()))
    }

    /// Waits for a frame; all that have come up to then.
    fn await_number(&self, at: Host, number: u16) -> Result<Vec<u16>> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut received = Vec::new();
        loop {
            received.extend(self.stations[at as usize].received());
            if received.contains(&number) {
                return Ok(received);
            }
            ensure!(Instant::now() < deadline, "frame {number:#x} did not arrive at {at:?}");
            std::thread::yield_now();
        }
    }

    fn number(&self) -> u16 {
        self.next.set(self.next.get().checked_add(1).expect("not so many frames"));
        self.next.get()
    }
}

/// What R1 has counted.
pub fn counted(daemon: &Daemon) -> Result<Counted> {
    let stats = daemon.stats()?;
    let tunnel = Packets::of(&stats, "gretap1")?;
    Ok(Counted {
        tx_xdp: tunnel.tx_xdp,
        decapsulated: outcome_of(&stats, "xdp", "decapsulated")?,
        bridged: outcome_of(&stats, "xdp", "bridged")?,
        rx: tunnel.rx(),
        tx: tunnel.tx(),
    })
}

pub fn text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Lines of `ip -batch`: a bridge of a port and the first tunnel, which filters VLANs and has none yet.
fn bridge(port: &str) -> String {
    format!(
        "link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 stp_state 0 forward_delay 0 \
         mcast_snooping 0\nlink set gretap1 up master br0\nlink set {port} master br0\nlink set br0 up\n"
    )
}
