//! Tunnels of systemd-networkd: `.netdev` files (systemd.netdev(5)), with the defaults that they have
//! there.

use std::net::Ipv4Addr;

use ini::{Ini, ParseOption};

use super::unfit;
use crate::model::{Endpoint, FlowLabel, Mode, Tunnel};

/// The tunnel that a `.netdev` file describes; none where it describes a device of another kind.
///
/// # Errors
/// When the file cannot be read, or asks for what xgre does not have: the tunnel would be another.
pub fn netdev(text: &str) -> Result<Option<Tunnel>, String> {
    // Backslashes and quotes are characters like others there.
    let plain = ParseOption { enabled_quote: false, enabled_escape: false, ..Default::default() };
    let file = Ini::load_from_str_opt(text, plain).map_err(|error| error.to_string())?;
    let section = |name| file.section(Some(name));
    let device = section("NetDev").ok_or("there is no [NetDev]")?;
    let kind = device.get("Kind").ok_or("[NetDev] has no Kind=")?;
    let Ok(mode) = kind.parse::<Mode>() else { return Ok(None) };
    let name = device.get("Name").ok_or("[NetDev] has no Name=")?;

    let any = mode.any();
    let mut tunnel = Tunnel { up: true, ..Tunnel::new(name, mode, any, any) };
    if let Some(mtu) = device.get("MTUBytes") {
        tunnel.mtu = Some(bytes(mtu)?);
    }
    if let Some(options) = section("Tunnel") {
        for (key, value) in options {
            take(&mut tunnel, key, value)
                .map_err(|reason| format!("[Tunnel] {key}={value}: {reason}"))?;
        }
        if options.get("DiscoverPathMTU").is_none() && tunnel.ignore_df {
            tunnel.pmtudisc = false;
        }
    }
    match unfit(&tunnel) {
        None => Ok(Some(tunnel)),
        Some(unfit) => Err(unfit.reason),
    }
}

fn take(tunnel: &mut Tunnel, key: &str, value: &str) -> Result<(), String> {
    match key {
        "Local" => tunnel.local = end(value, tunnel.mode)?,
        "Remote" => tunnel.remote = end(value, tunnel.mode)?,
        "TTL" => tunnel.ttl = number(value)?,
        "TOS" => tunnel.tos = number(value)?,
        "DiscoverPathMTU" => tunnel.pmtudisc = boolean(value)?,
        "IgnoreDontFragment" => tunnel.ignore_df = boolean(value)?,
        "IPv6FlowLabel" => {
            tunnel.flow_label = match value {
                "inherit" => FlowLabel::Inherit,
                label => FlowLabel::Fixed(number(label)?),
            }
        }
        "EncapsulationLimit" => {
            tunnel.encap_limit = match value {
                "none" => None,
                limit => Some(number(limit)?),
            }
        }
        "Key" => {
            let key = Some(gre_key(value)?);
            (tunnel.ikey, tunnel.okey) = (key, key);
        }
        "InputKey" => tunnel.ikey = Some(gre_key(value)?),
        "OutputKey" => tunnel.okey = Some(gre_key(value)?),
        "SerializeTunneledPackets" => {
            let seq = boolean(value)?;
            (tunnel.iseq, tunnel.oseq) = (seq, seq);
        }
        // About how networkd brings the device about, which xgre does itself.
        "Independent" | "AssignToLoopback" => {}
        _ => return Err("xgre has nothing like it".to_owned()),
    }
    Ok(())
}

fn end(text: &str, mode: Mode) -> Result<std::net::IpAddr, String> {
    text.parse::<Endpoint>().map(|end| end.address(mode))
}

/// systemd's numbers are decimal, or hexadecimal with `0x`.
fn number<T: TryFrom<u32>>(text: &str) -> Result<T, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = number.ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| "a number is expected, and no greater one".to_owned())
}

fn gre_key(text: &str) -> Result<u32, String> {
    text.parse::<Ipv4Addr>().map_or_else(|_| number(text), |quad| Ok(quad.into()))
}

/// parse_boolean() of systemd.
fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err("yes or no is expected".to_owned()),
    }
}

/// A size with K, M or G, which are powers of 1024 there.
fn bytes(text: &str) -> Result<u32, String> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let found = units.into_iter().find(|(unit, _)| text.ends_with(*unit));
    let (digits, factor) = match found {
        Some((unit, factor)) => (text.trim_end_matches(unit), factor),
        None => (text, 1u32),
    };
    let bytes = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("[NetDev] MTUBytes={text}: bytes are expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, options: &str) -> String {
        format!("# Ours.\n[NetDev]\nName=tun1\nKind={kind}\n\n[Tunnel]\n{options}\n")
    }

    #[test]
    fn a_tunnel_is_what_networkd_would_make() {
        let text = file(
            "gre",
            "Local=192.0.2.1\nRemote=198.51.100.1\nInputKey=1.2.3.4\nOutputKey=7\n\
             SerializeTunneledPackets=yes\nTOS=0x20\nIgnoreDontFragment=true",
        );
        let gre = Tunnel::new("tun1", Mode::Gre, [192, 0, 2, 1].into(), [198, 51, 100, 1].into());
        let tunnel = Tunnel {
            ikey: Some(0x0102_0304),
            okey: Some(7),
            iseq: true,
            oseq: true,
            tos: 0x20,
            ttl: 0,
            ignore_df: true,
            pmtudisc: false,
            up: true,
            ..gre
        };
        assert_eq!(netdev(&text), Ok(Some(tunnel)));
    }

    #[test]
    fn each_kind_has_its_mode_and_defaults() {
        let of = |kind, options| netdev(&file(kind, options)).unwrap().unwrap();
        let tap = of("gretap", "Remote=198.51.100.1\nTTL=9\nKey=0x10");
        assert_eq!(
            (tap.mode, tap.ttl, tap.okey, tap.local),
            (Mode::Gretap, 9, Some(16), Mode::Gre.any())
        );
        let v6 = of("ip6gre", "Local=2001:db8::1\nRemote=2001:db8::2\nIPv6FlowLabel=inherit");
        assert_eq!((v6.mode, v6.ttl, v6.flow_label), (Mode::Ip6gre, 64, FlowLabel::Inherit));
        let tap = of("ip6gretap", "Local=any\nRemote=2001:db8::2\nEncapsulationLimit=4");
        assert_eq!((tap.mode, tap.encap_limit), (Mode::Ip6gretap, Some(4)));
        let mtu = "[NetDev]\nName=a\nKind=gre\nMTUBytes=1K\n";
        assert_eq!(netdev(mtu).unwrap().unwrap().mtu, Some(1024));
    }

    #[test]
    fn other_kinds_are_left_out_and_what_would_be_another_tunnel_is_refused() {
        assert_eq!(netdev("[NetDev]\nName=br0\nKind=bridge\n"), Ok(None));
        for (options, reason) in [
            ("ERSPANIndex=1", "[Tunnel] ERSPANIndex=1: xgre has nothing like it"),
            (
                "Local=dhcp4",
                "[Tunnel] Local=dhcp4: an IP address is expected rather than \"dhcp4\"",
            ),
            ("TTL=256", "[Tunnel] TTL=256: a number is expected, and no greater one"),
            ("Key=x", "[Tunnel] Key=x: a number is expected, and no greater one"),
            ("DiscoverPathMTU=maybe", "[Tunnel] DiscoverPathMTU=maybe: yes or no is expected"),
        ] {
            assert_eq!(netdev(&file("gre", options)), Err(reason.to_owned()));
        }
        assert!(netdev("Kind=gre").unwrap_err().contains("no [NetDev]"));
    }
}
