//! What a tunnel's device says of itself, in its alias (`ip -d link`): it outlives the daemon, so
//! that the next one knows the tunnel again. iproute2's words, on a line that starts with "xgre";
//! where two IPv6 addresses leave no room for a word, it is shortened (`elim`, `fl`). Words are
//! added and never change, since an earlier daemon may have written them. Addresses and routes are
//! the device's, which the kernel keeps.

use std::str::SplitAsciiWhitespace;

use crate::model::{FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel};

/// Who asked for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The config file: it goes when the file does not name it any more.
    Config,
    /// A command: it stays until another command, or the kernel's user, removes it.
    Command,
}

/// The alias of a tunnel's device: at most 255 bytes (IFALIASZ less its NUL, linux/if.h).
pub fn of(tunnel: &Tunnel) -> String {
    let origin = match Origin::of(tunnel) {
        Origin::Config => "config",
        Origin::Command => "tunnel",
    };
    let Tunnel { mode, remote, local, ttl, tos, .. } = tunnel;
    let mut words = vec![format!("xgre {origin} mode {mode} remote {remote} local {local}")];
    let mut say = |word: &str| words.push(word.to_owned());
    if let Some(dev) = &tunnel.dev {
        say(&format!("dev {dev}"));
    }
    say(&format!("ttl {ttl} tos {tos}"));
    match (tunnel.ikey, tunnel.okey) {
        (Some(ikey), Some(okey)) if ikey == okey => say(&format!("key {ikey}")),
        (ikey, okey) => {
            for (word, key) in [("ikey", ikey), ("okey", okey)] {
                if let Some(key) = key {
                    say(&format!("{word} {key}"));
                }
            }
        }
    }
    for (word, input, output) in
        [("csum", tunnel.icsum, tunnel.ocsum), ("seq", tunnel.iseq, tunnel.oseq)]
    {
        match (input, output) {
            (true, true) => say(word),
            (true, false) => say(&format!("i{word}")),
            (false, true) => say(&format!("o{word}")),
            (false, false) => {}
        }
    }
    if tunnel.seq_mode != SeqMode::Linux {
        say(&tunnel.seq_mode.to_string());
    }
    if !tunnel.pmtudisc {
        say("nopmtudisc");
    }
    if tunnel.ignore_df {
        say("ignore-df");
    }
    if let Some(limit) = tunnel.encap_limit {
        say(&format!("elim {limit}"));
    }
    if tunnel.flow_label != FlowLabel::default() {
        say(&format!("fl {}", tunnel.flow_label));
    }
    if tunnel.mss != Mss::Off {
        say(&format!("mss {}", tunnel.mss));
    }
    // One word, and a short one: the longest alias has room for no more.
    if tunnel.netfilter == Netfilter::Bypass {
        say("nfb");
    }
    if let Some(mtu) = tunnel.mtu {
        say(&format!("mtu {mtu}"));
    }
    words.join(" ")
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
    let up = origin == Origin::Config;
    let any = Mode::Gre.any();
    let mut tunnel = Tunnel { up, ..Tunnel::new(name, Mode::Gre, any, any) };
    while let Some(word) = words.next() {
        take(&mut tunnel, word, &mut words)?;
    }
    Some((origin, tunnel))
}

fn take(tunnel: &mut Tunnel, word: &str, rest: &mut SplitAsciiWhitespace<'_>) -> Option<()> {
    match word {
        "csum" => (tunnel.icsum, tunnel.ocsum) = (true, true),
        "icsum" => tunnel.icsum = true,
        "ocsum" => tunnel.ocsum = true,
        "seq" => (tunnel.iseq, tunnel.oseq) = (true, true),
        "iseq" => tunnel.iseq = true,
        "oseq" => tunnel.oseq = true,
        "rfc2890" => tunnel.seq_mode = SeqMode::Rfc2890,
        "nopmtudisc" => tunnel.pmtudisc = false,
        "ignore-df" => tunnel.ignore_df = true,
        "nfb" => tunnel.netfilter = Netfilter::Bypass,
        _ => return take_with_value(tunnel, word, rest.next()?),
    }
    Some(())
}

fn take_with_value(tunnel: &mut Tunnel, word: &str, value: &str) -> Option<()> {
    match word {
        "mode" => {
            tunnel.mode = value.parse().ok()?;
        }
        "remote" => tunnel.remote = value.parse().ok()?,
        "local" => tunnel.local = value.parse().ok()?,
        "dev" => tunnel.dev = Some(value.to_owned()),
        "ttl" => tunnel.ttl = value.parse().ok()?,
        "tos" => tunnel.tos = value.parse().ok()?,
        "key" => {
            let key = Some(value.parse().ok()?);
            (tunnel.ikey, tunnel.okey) = (key, key);
        }
        "ikey" => tunnel.ikey = Some(value.parse().ok()?),
        "okey" => tunnel.okey = Some(value.parse().ok()?),
        "elim" => tunnel.encap_limit = Some(value.parse().ok()?),
        "fl" => tunnel.flow_label = value.parse().ok()?,
        "mss" => tunnel.mss = value.parse().ok()?,
        "mtu" => tunnel.mtu = Some(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_alias_fits_the_kernel_and_tells_the_whole_tunnel(tunnel in any_tunnel()) {
            let alias = of(&tunnel);
            prop_assert!(alias.len() < 256, "{} bytes: {alias}", alias.len());
            let origin = if tunnel.up { Origin::Config } else { Origin::Command };
            prop_assert_eq!(parse("tunnel0", &alias), Some((origin, tunnel)));
        }
    }

    /// Any that may be: options of one mode are not mixed with the other's.
    fn any_tunnel() -> impl Strategy<Value = Tunnel> {
        let ends = prop_oneof![
            any::<(bool, Ipv4Addr, Ipv4Addr)>().prop_map(|(tap, l, r)| (
                tap,
                Mode::Gre,
                l.into(),
                r.into()
            )),
            any::<(bool, Ipv6Addr, Ipv6Addr)>().prop_map(|(tap, l, r)| (
                tap,
                Mode::Ip6gre,
                l.into(),
                r.into()
            )),
        ];
        let label =
            prop_oneof![Just(FlowLabel::Inherit), (0..=FlowLabel::MAX).prop_map(FlowLabel::Fixed)];
        let mss = prop_oneof![Just(Mss::Off), Just(Mss::Auto), Mss::RANGE.prop_map(Mss::Fixed)];
        (
            (ends, proptest::option::of("[!-~]{15}"), any::<(u8, u8, Option<u32>, Option<u32>)>()),
            any::<(bool, bool, bool, bool, bool, bool, bool, bool)>(),
            (any::<(bool, Option<u8>, Option<u32>)>(), label, mss),
        )
            .prop_map(|(wire, flags, rest)| {
                let ((tap, mode, local, remote), dev, (ttl, tos, ikey, okey)) = wire;
                let (icsum, ocsum, iseq, oseq, rfc2890, pmtudisc, ignore_df, bypass) = flags;
                let ((up, encap_limit, mtu), flow_label, mss) = rest;
                let seq_mode = if rfc2890 { SeqMode::Rfc2890 } else { SeqMode::Linux };
                let netfilter = if bypass { Netfilter::Bypass } else { Netfilter::Respect };
                let new = Tunnel { netfilter, ..Tunnel::new("tunnel0", mode, local, remote) };
                let mut tunnel = Tunnel { dev, ttl, tos, ikey, okey, icsum, ocsum, ..new };
                tunnel = Tunnel { iseq, oseq, seq_mode, mss, mtu, up, ..tunnel };
                if mode.is_over_ipv6() {
                    let mode = if tap { Mode::Ip6gretap } else { mode };
                    Tunnel { mode, encap_limit, flow_label, ..tunnel }
                } else {
                    let mode = if tap { Mode::Gretap } else { mode };
                    Tunnel { mode, pmtudisc, ignore_df, ..tunnel }
                }
            })
    }

    /// Where the option words are longest, as the addresses are.
    #[test]
    fn the_longest_alias_fits() {
        let end = "2001:1db8:1111:1111:1111:1111:1111:1111".parse().unwrap();
        let new = Tunnel::new("tunnel0", Mode::Ip6gretap, end, end);
        let tunnel = Tunnel {
            dev: Some("fifteen-bytes-x".to_owned()),
            ttl: 255,
            tos: 255,
            ikey: Some(u32::MAX),
            okey: Some(u32::MAX - 1),
            icsum: true,
            iseq: true,
            seq_mode: SeqMode::Rfc2890,
            encap_limit: Some(255),
            flow_label: FlowLabel::Fixed(FlowLabel::MAX),
            mss: Mss::Fixed(65_495),
            netfilter: Netfilter::Bypass,
            mtu: Some(u32::MAX),
            up: true,
            ..new
        };
        let alias = of(&tunnel);
        assert!((240..256).contains(&alias.len()), "{} bytes: {alias}", alias.len());
        assert_eq!(parse("tunnel0", &alias), Some((Origin::Config, tunnel)));
    }

    /// As the first daemons wrote them.
    #[test]
    fn older_aliases_stay_readable() {
        let alias = "xgre tunnel mode gre remote 198.51.100.1 local 192.0.2.1 ttl 64 tos 1 key 42 \
                     nopmtudisc";
        let tunnel = Tunnel {
            tos: 1,
            ikey: Some(42),
            okey: Some(42),
            pmtudisc: false,
            up: false,
            ..crate::testing::tunnel("tunnel0")
        };
        assert_eq!(parse("tunnel0", alias), Some((Origin::Command, tunnel)));
    }

    #[test]
    fn other_aliases_are_not_ours() {
        for alias in ["", "uplink to AS64500", "xgre", "xgre tunnel mode sit", "xgre tunnel ttl"] {
            assert_eq!(parse("eth0", alias), None, "{alias:?}");
        }
    }
}
