//! What makes a tunnel impossible by itself, wherever it was asked for: config file, command line
//! or control socket.

use std::net::IpAddr;

use crate::model::{Desired, FlowLabel, Mode, Tunnel};

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
        if let Some(reason) = bad_endpoint(key, address, tunnel.mode) {
            return unfit(key, reason);
        }
    }
    if tunnel.local == tunnel.remote && !tunnel.local.is_unspecified() {
        let reason =
            format!("local and remote are both {}: a tunnel leads to another host", tunnel.local);
        return unfit("remote", reason);
    }
    // As the kernel's (ipgre_tap_validate).
    if tunnel.mode.is_ethernet() && tunnel.remote.is_unspecified() {
        let reason = format!("mode {} needs a remote address: frames name none", tunnel.mode);
        return unfit("remote", reason);
    }
    if let Some(dev) = &tunnel.dev {
        if let Some(reason) = bad_name(dev) {
            return unfit("dev", reason);
        }
        if *dev == tunnel.name {
            let reason = format!("`{dev}` is the tunnel itself: dev is the interface it runs over");
            return unfit("dev", reason);
        }
    }
    if let Some((key, reason)) = other_modes_option(tunnel) {
        return unfit(key, reason);
    }
    // As the kernel's (ipgre_netlink_parms).
    if tunnel.ignore_df && tunnel.pmtudisc {
        let reason =
            "ignore-df and pmtudisc are incompatible: add nopmtudisc, or leave ignore-df out";
        return unfit("ignore-df", reason.to_owned());
    }
    let largest = MAX_PACKET - tunnel.overhead();
    if let Some(mtu) = tunnel.mtu.filter(|mtu| !(MIN_MTU..=largest).contains(mtu)) {
        let reason = format!("the MTU of this tunnel is {MIN_MTU} to {largest} bytes, not {mtu}");
        return unfit("mtu", reason);
    }
    None
}

/// An option that the tunnel's outer header has no place for.
fn other_modes_option(tunnel: &Tunnel) -> Option<(&'static str, String)> {
    let mode = tunnel.mode;
    let (own, other) = if mode.is_over_ipv6() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
    let misplaced = |option, word| {
        let better = mode.over_the_other();
        let reason = format!(
            "{word} belongs to the outer {other} header, and mode {mode}, which runs over {own}, has \
             none: leave it out, or use mode {better}"
        );
        Some((option, reason))
    };
    if mode.is_over_ipv6() {
        if !tunnel.pmtudisc {
            misplaced("pmtudisc", "nopmtudisc")
        } else if tunnel.ignore_df {
            misplaced("ignore-df", "ignore-df")
        } else if tunnel.tos & 1 == 1 && tunnel.tos != 1 {
            let reason =
                "a traffic class is inherited or fixed, and not fixed for some packets only";
            Some(("tos", reason.to_owned()))
        } else {
            None
        }
    } else if tunnel.encap_limit.is_some() {
        misplaced("encaplimit", "encaplimit")
    } else if tunnel.flow_label != FlowLabel::default() {
        misplaced("flowlabel", "flowlabel")
    } else {
        None
    }
}

/// What is legal and yet hardly meant.
pub fn warnings(desired: &Desired) -> Vec<String> {
    // The kernel's last resort compares keys alone, and no key is 0 there (ip_tunnel_lookup).
    let open = |ikey: Option<u32>, mode: Mode| {
        desired.tunnels.values().find(move |tunnel| {
            (tunnel.ikey, tunnel.mode) == (ikey, mode)
                && tunnel.local.is_unspecified()
                && tunnel.remote.is_unspecified()
        })
    };
    Mode::ALL
        .into_iter()
        .filter_map(|mode| {
            let (keyless, zero) = (open(None, mode)?, open(Some(0), mode)?);
            Some(format!(
                "tunnels `{}` without a key and `{}` with key 0 both have local any and remote \
                 any: on Linux the packets of both land on one of them; give one an address, or \
                 another key",
                keyless.name, zero.name
            ))
        })
        .collect()
}

/// What the kernel refuses in a device name (`dev_valid_name`).
pub(crate) fn bad_name(name: &str) -> Option<String> {
    let refused =
        |character: char| character == '/' || character == ':' || character.is_whitespace();
    if name.is_empty() || name.len() > 15 {
        Some(format!("a device name has 1 to 15 bytes; `{name}` has {}", name.len()))
    } else if name == "." || name == ".." || name.contains(refused) {
        Some(format!("a device name has no `/`, no `:` and no space, and `{name}` is not one"))
    } else if ["all", "default"].contains(&name) {
        // Directories below /proc/sys/net/ipv4/conf.
        Some(format!("the kernel keeps the name `{name}` for itself: choose another"))
    } else {
        None
    }
}

/// What groupadd(8) refuses in the name of a group.
pub(super) fn bad_group(name: &str) -> Option<String> {
    let is_first = |first: char| first.is_ascii_alphabetic() || first == '_';
    let is_next = |next: char| next.is_ascii_alphanumeric() || "_.-$".contains(next);
    let good = name.starts_with(is_first) && name.chars().all(is_next) && name.len() <= 32;
    (!good).then(|| {
        format!(
            "a group is 1 to 32 letters, digits, `_`, `-` and `.`, of which a letter or `_` comes first, \
             and `{name}` is not one"
        )
    })
}

fn bad_endpoint(key: &str, address: IpAddr, mode: Mode) -> Option<String> {
    if !mode.has_family_of(address) {
        let family = if mode.is_over_ipv6() { "IPv6" } else { "IPv4" };
        let other = mode.over_the_other();
        Some(format!(
            "{key} {address} is not {family}, which mode {mode} runs over; mode {other} does"
        ))
    } else if address.is_multicast() {
        Some(format!(
            "{key} {address} is a multicast group: tunnels to several hosts are not supported, with \
             a key or without; make one tunnel for each host"
        ))
    } else if address == IpAddr::from([255; 4]) {
        Some(format!("{key} {address} is not the address of one host"))
    } else {
        None
    }
}
