//! What happens to a bridge, in the words of iproute2.

use crate::{
    frames::{Mac, station},
    lab::{PLACES, Place, mac},
    random::Random,
};

/// Beside VLAN 1, which is that of untagged frames at first.
pub const VLANS: [u16; 2] = [5, 6];

/// What happens in one step.
pub enum Event {
    /// Commands; and what mends it, if it breaks something.
    Commands { commands: Vec<String>, mend: Vec<String> },
    /// A station is somewhere else from now on, and says so to everyone.
    Moves { station: Mac, to: Place },
    /// The bridge is told where a station is, for good; it speaks from there from now on.
    Told { station: Mac, at: Place },
    /// All that has been learned is too old.
    Ages { bridge: &'static str },
}

impl Event {
    pub fn random(random: &mut Random, stations: &[Mac]) -> Self {
        let place = random.pick(&PLACES);
        let device = place.device();
        let bridge = random.pick(&["br0", "br1"]);
        let of = random.pick(stations);
        let address = mac(of);
        match random.below(23) {
            0..5 => Self::Moves { station: of, to: place },
            5..7 => Self::Told { station: of, at: place },
            7 => Self::last(format!("bridge fdb del {address} dev {device} master")),
            8 => Self::Commands {
                commands: vec![format!(
                    "bridge fdb replace {address} dev {device} master permanent"
                )],
                mend: vec![format!("bridge fdb del {address} dev {device} master")],
            },
            9 => Self::Ages { bridge },
            10 => Self::last(format!("ip link set {bridge} type bridge fdb_flush")),
            // Of states the kernel keeps this one alone, where there is no spanning tree.
            11..14 => Self::switch(&format!("bridge link set dev {device} state"), ["0", "3"]),
            14..16 => Self::Commands {
                commands: vec![format!("ip link set {device} nomaster")],
                mend: vec![format!("ip link set {device} master {}", place.bridge())],
            },
            16 => {
                let other = if place.bridge() == "br0" { "br1" } else { "br0" };
                Self::switch(&format!("ip link set {device} master"), [other, place.bridge()])
            }
            17 => Self::switch(&format!("ip link set {bridge}"), ["down", "up"]),
            18..20 => Self::switch(&format!("ip link set {device}"), ["down", "up"]),
            20 => Self::switch(&format!("bridge link set dev {device} learning"), ["off", "on"]),
            21 => Self::switch(&format!("bridge link set dev {device} flood"), ["off", "on"]),
            _ => {
                let flag = random.pick(&["isolated", "hairpin", "locked"]);
                Self::switch(&format!("bridge link set dev {device} {flag}"), ["on", "off"])
            }
        }
    }

    /// What happens to the VLANs of a bridge that filters them.
    pub fn of_vlans(random: &mut Random) -> Self {
        let device = random.pick(&PLACES).device();
        let bridge = random.pick(&["br0", "br1"]);
        let vlan = random.pick(&VLANS);
        let vlans = |words: &str| format!("bridge vlan {words}");
        match random.below(12) {
            0..3 => Self::last(vlans(&format!("add dev {device} vid {vlan}"))),
            3..6 => Self::Commands {
                commands: vec![vlans(&format!("del dev {device} vid {vlan}"))],
                mend: vec![vlans(&format!("add dev {device} vid {vlan}"))],
            },
            6 => Self::Commands {
                commands: vec![vlans(&format!("del dev {device} vid 1"))],
                mend: vec![vlans(&format!("add dev {device} vid 1 pvid untagged"))],
            },
            7..9 => Self::Commands {
                commands: vec![vlans(&format!("add dev {device} vid {vlan} pvid untagged"))],
                mend: vec![
                    vlans(&format!("add dev {device} vid {vlan}")),
                    vlans(&format!("add dev {device} vid 1 pvid untagged")),
                ],
            },
            9 => Self::Commands {
                commands: vec![vlans(&format!("add dev {device} vid {vlan} untagged"))],
                mend: vec![vlans(&format!("add dev {device} vid {vlan}"))],
            },
            10 => Self::switch(
                &format!("ip link set {bridge} type bridge vlan_filtering"),
                ["0", "1"],
            ),
            _ => Self::switch(
                &format!("ip link set {bridge} type bridge vlan_protocol"),
                ["802.1ad", "802.1Q"],
            ),
        }
    }

    fn last(command: String) -> Self {
        Self::Commands { commands: vec![command], mend: Vec::new() }
    }

    /// A command whose last word breaks something or mends it.
    fn switch(command: &str, [breaks, mends]: [&str; 2]) -> Self {
        Self::Commands {
            commands: vec![format!("{command} {breaks}")],
            mend: vec![format!("{command} {mends}")],
        }
    }
}

/// Enough that several are everywhere.
pub fn stations() -> Vec<Mac> {
    (1..=8).map(station).collect()
}
