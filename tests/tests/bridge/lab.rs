//! A gateway with two bridges between the test's wires.

use std::{cell::Cell, collections::BTreeSet, fmt, fs};

use anyhow::{Context as _, Result, ensure};
use gre_ebpf_common::{outcome::Outcome, port};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    gateways::SOON,
    lan::without_netfilter,
    namespace::Namespace,
    process::wait_until,
    xgre::Daemon,
};

use crate::{
    counts::Counts,
    events::VLANS,
    frames::STATIONS,
    wires::{self, Sent, Tap},
};

/// Where frames enter and leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Lan1,
    Lan2,
    Lan3,
    Tunnel1,
    Tunnel2,
}

pub const PLACES: [Place; 5] =
    [Place::Lan1, Place::Lan2, Place::Lan3, Place::Tunnel1, Place::Tunnel2];
const LANS: usize = 3;
/// Of the second tunnel.
const KEY: u32 = 2;

impl Place {
    /// The bridge's member.
    pub fn device(self) -> &'static str {
        ["lan1", "lan2", "lan3", "gretap1", "gretap2"][self as usize]
    }

    /// The bridge that it is in at first.
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Lan1 | Self::Lan2 | Self::Tunnel1 => "br0",
            Self::Lan3 | Self::Tunnel2 => "br1",
        }
    }

    fn key(self) -> Option<u32> {
        (self == Self::Tunnel2).then_some(KEY)
    }
}

/// A frame that has come out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Delivered {
    pub at: Place,
    pub frame: Vec<u8>,
    /// What of the outer header was made for it.
    pub outer: Option<[u8; 3]>,
}

impl fmt::Debug for Delivered {
    /// A frame's header and the number at its end tell it from others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, frame, outer } = self;
        let (header, number) = (&frame[..frame.len().min(20)], &frame[frame.len() - 4..]);
        write!(f, "{at:?}: {} bytes {header:02x?}..{number:02x?}, {outer:02x?}", frame.len())
    }
}

/// Whether the bridges tell VLANs apart (`vlan_filtering`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    On,
    Off,
}

pub struct Lab {
    _daemon: Daemon,
    pub gateway: Namespace,
    lans: [Tap; LANS],
    wan: Tap,
    wan_ifindex: u32,
    counts: Counts,
    /// The setting by which the daemon is seen to have followed.
    marker: Cell<bool>,
}

impl Lab {
    pub fn new(xdp: Xdp, filtering: Filtering) -> Result<Self> {
        let gateway = Namespace::new("gateway")?;
        without_netfilter(&gateway)?;
        let tap = |name| Tap::new(&gateway, name);
        let lans = [tap("lan1")?, tap("lan2")?, tap("lan3")?];
        let wan = tap("wan")?;
        gateway.ip(&format!("link set wan address {}", mac(wires::WAN_MAC)))?;
        for device in ["lan1", "lan2", "lan3", "wan"] {
            gateway.ip(&format!("link set {device} up"))?;
        }
        gateway.ip("addr add 192.0.2.1/24 dev wan")?;
        let remote = mac(wires::REMOTE_MAC);
        gateway.ip(&format!("neigh add 192.0.2.2 lladdr {remote} dev wan"))?;

        let tunnel = |name| Gateway::new("192.0.2.1", "192.0.2.2").ethernet().name(name);
        let config = tunnel("gretap1")
            .and(tunnel("gretap2").key(Some(KEY)))
            .ports(&["wan", "lan1", "lan2", "lan3"])
            .xdp(xdp);
        let daemon = Daemon::start(&gateway, &config)?;
        for (bridge, last) in [("br0", 0), ("br1", 1)] {
            // Groups are everyone's; and the address does not follow the members'.
            gateway.ip(&format!(
                "link add {bridge} address 02:00:00:00:08:0{last} type bridge mcast_snooping 0"
            ))?;
        }
        for place in PLACES {
            gateway.ip(&format!("link set {} master {}", place.device(), place.bridge()))?;
        }
        for bridge in ["br0", "br1"] {
            if filtering == Filtering::On {
                gateway.ip(&format!("link set {bridge} type bridge vlan_filtering 1"))?;
            }
            gateway.ip(&format!("link set {bridge} up"))?;
        }
        for place in PLACES.iter().filter(|_| filtering == Filtering::On) {
            for vlan in VLANS {
                gateway.run(&format!("bridge vlan add dev {} vid {vlan}", place.device()))?;
            }
        }
        let counts = Counts::open(&gateway.pins())?;
        let text = gateway.ip("-j link show dev wan")?;
        let links: Value = serde_json::from_str(&text)?;
        let wan_ifindex = links[0]["ifindex"].as_u64().context("an index")? as u32;
        let marker = Cell::new(false);
        let lab = Self { _daemon: daemon, gateway, lans, wan, wan_ifindex, counts, marker };
        lab.follow()?;
        Ok(lab)
    }

    /// Returns once the programs know what has been changed before.
    pub fn follow(&self) -> Result<()> {
        // What is read of links is older than the marker that is read with them; it is as new as the
        // marker before.
        self.marker_arrives()?;
        self.marker_arrives()
    }

    /// The daemon hears of a setting of `wan` after all that was changed before, and writes the port
    /// after all of a bridge.
    fn marker_arrives(&self) -> Result<()> {
        let on = !self.marker.replace(!self.marker.get());
        let value = if on { "1" } else { "0" };
        self.gateway.within(|| Ok(fs::write("/proc/sys/net/ipv4/conf/wan/forwarding", value)?))?;
        wait_until("the daemon has followed", SOON, || {
            let port = self.counts.port(self.wan_ifindex)?;
            ensure!(port.flags.has(port::Flags::FORWARDING) == on, "{port:?}");
            Ok(())
        })
    }

    /// Runs commands, and says of each with which status it ended.
    pub fn run(&self, commands: &[String]) -> Result<Vec<String>> {
        let status = |line: &String| {
            Ok(format!("{}: {line}", self.gateway.attempt(line)?.status.code().unwrap_or(-1)))
        };
        commands.iter().map(status).collect()
    }

    /// A frame comes in. Whether the device took it.
    pub fn send(&self, at: Place, frame: &[u8]) -> Result<bool> {
        match self.lans.get(at as usize) {
            Some(lan) => lan.send(frame),
            None => self.wan.send(&wires::encapsulated(at.key(), frame)),
        }
    }

    /// All that has come out since the last look.
    pub fn delivered(&self) -> Result<Vec<Delivered>> {
        let mut all = Vec::new();
        for (at, lan) in PLACES.into_iter().zip(&self.lans) {
            while let Some(frame) = lan.received()? {
                all.push(Delivered { at, frame, outer: None });
            }
        }
        while let Some(outer) = self.wan.received()? {
            let Sent { key, frame, outer } = Sent::read(&outer)?;
            let at = if key == Some(KEY) { Place::Tunnel2 } else { Place::Tunnel1 };
            all.push(Delivered { at, frame, outer: Some(outer) });
        }
        Ok(all)
    }

    /// How many frames have not entered the kernel's bridge, because XDP sent them on.
    pub fn fast(&self) -> Result<u64> {
        let ways = [Outcome::Encapsulated, Outcome::Decapsulated, Outcome::Bridged];
        Ok(self.counts.xdp(ways)?.into_iter().sum())
    }

    /// How many XDP left to the kernel's bridge, so that it does not forget where they come from: of
    /// those that came in on ports, and, whatever the reason, of those that came out of tunnels.
    pub fn refreshed(&self) -> Result<u64> {
        Ok(self.counts.xdp([Outcome::BridgeRefresh, Outcome::ToDevice])?.into_iter().sum())
    }

    /// What the kernel's forwarding databases have of stations, as `bridge fdb` tells it.
    pub fn stations(&self) -> Result<BTreeSet<String>> {
        let text = self.gateway.run("bridge -j fdb show")?;
        let entries: Value = serde_json::from_str(&text).context("`bridge -j fdb` as JSON")?;
        let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
        let of_stations = |entry: &&Value| {
            entry["master"].is_string()
                && entry["mac"].as_str().is_some_and(|mac| mac.starts_with(STATIONS))
        };
        let words = ["mac", "ifname", "master", "state", "vlan"];
        let line = |entry: &Value| words.map(|word| entry[word].to_string()).join(" ");
        Ok(entries.iter().filter(of_stations).map(line).collect())
    }
}

pub fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
