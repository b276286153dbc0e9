//! What makes a tunnel impossible by itself, wherever it was asked for: config file, command line
//! or control socket.

use std::net::Ipv4Addr;

use crate::model::Tunnel;

/// Why a tunnel cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The config key of the offending value.
    pub key: &'static str,
    pub reason: String,
}

/// The kernel's smallest MTU for IPv4 (`ETH_MIN_MTU`), in bytes.
const MIN_MTU: u32 = 68;
/// The longest IPv4 packet, in bytes.
const MAX_PACKET: u32 = 65_535;

/// What is wrong with a tunnel, if anything is.
pub fn unfit(tunnel: &Tunnel) -> Option<Unfit> {
    let unfit = |key, reason| Some(Unfit { key, reason });
    if let Some(reason) = bad_name(&tunnel.name) {
        return unfit("name", reason);
    }
    for (key, address) in [("local", tunnel.local), ("remote", tunnel.remote)] {
        if let Some(reason) = bad_endpoint(key, address) {
            return unfit(key, reason);
        }
    }
    if tunnel.local == tunnel.remote {
        let reason =
            format!("local and remote are both {}: a tunnel leads to another host", tunnel.local);
        return unfit("remote", reason);
    }
    let largest = MAX_PACKET - tunnel.overhead();
    if let Some(mtu) = tunnel.mtu.filter(|mtu| !(MIN_MTU..=largest).contains(mtu)) {
        let reason = format!("the MTU of this tunnel is {MIN_MTU} to {largest} bytes, not {mtu}");
        return unfit("mtu", reason);
    }
    None
}

/// What the kernel refuses in a device name (`dev_valid_name`).
pub(crate) fn bad_name(name: &str) -> Option<String> {
    let refused =
        |character: char| character == '/' || character == ':' || character.is_whitespace();
    if name.is_empty() || name.len() > 15 {
        Some(format!("a device name has 1 to 15 bytes; `{name}` has {}", name.len()))
    } else if name == "." || name == ".." || name.contains(refused) {
        Some(format!("a device name has no `/`, no `:` and no space, and `{name}` is not one"))
    } else {
        None
    }
}

fn bad_endpoint(key: &str, address: Ipv4Addr) -> Option<String> {
    if address.is_unspecified() {
        Some(format!("{key} {address} stands for any address, and wildcards are not supported yet"))
    } else if address.is_multicast() || address.is_broadcast() {
        Some(format!("{key} {address} is not the address of one host"))
    } else {
        None
    }
}
