//! What a tunnel's device says of itself, in its alias (`ip -d link`): it outlives the daemon, so
//! that the next one knows the tunnel again. iproute2's words, on a line that starts with "xgre".

use std::{net::Ipv4Addr, str::SplitAsciiWhitespace};

use crate::model::{Mode, Tunnel};

/// Who asked for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The config file: it goes when the file does not name it any more.
    Config,
    /// A command: it stays until another command, or the kernel's user, removes it.
    Command,
}

/// The alias of a tunnel's device.
pub fn of(tunnel: &Tunnel) -> String {
    let origin = match Origin::of(tunnel) {
        Origin::Config => "config",
        Origin::Command => "tunnel",
    };
    let Tunnel { mode, remote, local, ttl, tos, .. } = tunnel;
    let mut words =
        format!("xgre {origin} mode {mode} remote {remote} local {local} ttl {ttl} tos {tos}");
    if let Some(key) = tunnel.key {
        words.push_str(&format!(" key {key}"));
    }
    if !tunnel.pmtudisc {
        words.push_str(" nopmtudisc");
    }
    words
}

impl Origin {
    /// Only tunnels of the config file are brought up by the daemon.
    fn of(tunnel: &Tunnel) -> Self {
        if tunnel.up { Self::Config } else { Self::Command }
    }
}

/// The tunnel whose device `name` has this alias, and who asked for it.
pub fn parse(name: &str, alias: &str) -> Option<(Origin, Tunnel)> {
    let mut words = alias.split_ascii_whitespace();
    if words.next() != Some("xgre") {
        return None;
    }
    let origin = match words.next()? {
        "config" => Origin::Config,
        "tunnel" => Origin::Command,
        _ => return None,
    };
    let mut tunnel = Tunnel {
        name: name.to_owned(),
        mode: Mode::Gre,
        local: Ipv4Addr::UNSPECIFIED,
        remote: Ipv4Addr::UNSPECIFIED,
        ttl: 0,
        tos: 0,
        key: None,
        pmtudisc: true,
        mtu: None,
        addresses: Vec::new(),
        routes: Vec::new(),
        up: origin == Origin::Config,
    };
    while let Some(word) = words.next() {
        take(&mut tunnel, word, &mut words)?;
    }
    Some((origin, tunnel))
}

fn take(tunnel: &mut Tunnel, word: &str, rest: &mut SplitAsciiWhitespace<'_>) -> Option<()> {
    if word == "nopmtudisc" {
        tunnel.pmtudisc = false;
        return Some(());
    }
    let value = rest.next()?;
    match word {
        "mode" if value == "gre" => tunnel.mode = Mode::Gre,
        "remote" => tunnel.remote = value.parse().ok()?,
        "local" => tunnel.local = value.parse().ok()?,
        "ttl" => tunnel.ttl = value.parse().ok()?,
        "tos" => tunnel.tos = value.parse().ok()?,
        "key" => tunnel.key = Some(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_alias_fits_the_kernel_and_tells_the_whole_tunnel(
            (local, remote, key) in any::<(u32, u32, Option<u32>)>(),
            (ttl, tos, pmtudisc, up) in any::<(u8, u8, bool, bool)>(),
        ) {
            let tunnel = Tunnel {
                name: "tunnel0".to_owned(),
                mode: Mode::Gre,
                local: local.into(),
                remote: remote.into(),
                ttl,
                tos,
                key,
                pmtudisc,
                mtu: None,
                addresses: Vec::new(),
                routes: Vec::new(),
                up,
            };
            let alias = of(&tunnel);
            // IFALIASZ, its NUL included (linux/if.h).
            prop_assert!(alias.len() < 256);
            let origin = if up { Origin::Config } else { Origin::Command };
            prop_assert_eq!(parse("tunnel0", &alias), Some((origin, tunnel)));
        }
    }

    #[test]
    fn other_aliases_are_not_ours() {
        for alias in ["", "uplink to AS64500", "xgre", "xgre tunnel mode sit", "xgre tunnel ttl"] {
            assert_eq!(parse("eth0", alias), None, "{alias:?}");
        }
    }
}
