//! The grammar of `ip tunnel`: words in any order. What is refused is refused in iproute2's words;
//! a line of our own may follow.

mod values;

use std::{net::IpAddr, str::FromStr};

use self::values::{Tos, encap_limit, key, mtu, tos, ttl};
use super::Failure;
use crate::{
    config::{bad_name, nearest, unfit},
    model::{Endpoint, FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel},
};

/// The tunnel that the words of `tunnel add` describe.
pub fn tunnel(words: &[String]) -> Result<Tunnel, Failure> {
    let words = Words::parse(words)?;
    let Some(mode) = words.mode.or(words.mode_of_name()) else {
        return Err(Failure::refused(
            "cannot determine tunnel mode (ipip, gre, vti or sit)\n\
             xgre does gre: add `mode gre`, or `mode ip6gre` for GRE over IPv6",
        ));
    };
    let Some(name) = &words.name else {
        return Err(Failure::refused(
            "the tunnel has no name\n\
             xgre tunnel add NAME mode gre remote ADDR local ADDR [ ttl TTL ] [ key KEY ]",
        ));
    };
    let tunnel = Tunnel::new(name, mode, mode.any(), mode.any());
    words.apply(tunnel, Grammar::Tunnel)
}

/// The tunnel that the words of `link add` describe.
pub fn link(words: &[String]) -> Result<Tunnel, Failure> {
    let words = Words::parse(&of_link(words))?;
    let Some(mode) = words.mode else {
        return Err(Failure::senseless(
            "Not enough information: \"type\" argument is required\n\
             xgre does type gre, ip6gre, gretap and ip6gretap",
        ));
    };
    let Some(name) = &words.name else {
        return Err(Failure::senseless(
            "Not enough information: \"dev\" argument is required\n\
             xgre link add NAME type gretap remote ADDR local ADDR",
        ));
    };
    let tunnel = Tunnel::new(name, mode, mode.any(), mode.any());
    words.apply(tunnel, Grammar::Link)
}

/// The words of `ip link` as those of `ip tunnel`: the device may be introduced by `dev`, and its mode
/// is its type. Behind the type `dev` is the underlay's interface, as in both.
pub(super) fn of_link(words: &[String]) -> Vec<String> {
    let at = words.iter().position(|word| word == "type").unwrap_or(words.len());
    let (device, rest) = words.split_at(at);
    let device = device.iter().filter(|word| *word != "dev").cloned();
    let rest = rest.iter().enumerate();
    let rest = rest.map(|(i, word)| if i == 0 { "mode".to_owned() } else { word.clone() });
    device.chain(rest).collect()
}

/// Whose rules hold where `ip tunnel` and `ip link` differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grammar {
    Tunnel,
    Link,
}

/// What the words of `tunnel change` make of a tunnel.
pub fn change(words: &[String], tunnel: &Tunnel) -> Result<Tunnel, Failure> {
    let words = Words::parse(words)?;
    if let Some(mode) = words.mode.filter(|mode| *mode != tunnel.mode) {
        return Err(Failure::refused(format!(
            "Error: {} is {}, and a tunnel keeps its mode\n\
             delete it and add it again with `mode {mode}`",
            tunnel.name, tunnel.mode
        )));
    }
    words.apply(tunnel.clone(), Grammar::Tunnel)
}

/// The name in `tunnel change NAME seq reset`, if those are the words.
pub(super) fn sequence_reset(words: &[String]) -> Result<Option<String>, Failure> {
    if !words.windows(2).any(|pair| pair == ["seq", "reset"]) {
        return Ok(None);
    }
    match words {
        [name, _, _] => Ok(Some(name.clone())),
        _ => Err(Failure::refused("`seq reset` stands alone: xgre tunnel change NAME seq reset")),
    }
}

/// The name in the words of `ip tunnel delete`, `show` and `change`, which may say more about the
/// tunnel.
pub(super) fn name(words: &[String]) -> Result<Option<String>, Failure> {
    Words::parse(words).map(|words| words.name)
}

/// What a command line says; what it does not say is none.
#[derive(Default)]
struct Words {
    name: Option<String>,
    mode: Option<Mode>,
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
    dev: Option<String>,
    ttl: Option<u8>,
    tos: Option<Tos>,
    ikey: Option<Option<u32>>,
    okey: Option<Option<u32>>,
    icsum: Option<bool>,
    ocsum: Option<bool>,
    iseq: Option<bool>,
    oseq: Option<bool>,
    seq_mode: Option<SeqMode>,
    pmtudisc: Option<bool>,
    ignore_df: Option<bool>,
    encap_limit: Option<Option<u8>>,
    flow_label: Option<FlowLabel>,
    mss: Option<Mss>,
    netfilter: Option<Netfilter>,
    mtu: Option<u32>,
    /// A word that only tunnels over one IP version have, and whether that is IPv6.
    of_one_version: Vec<(String, bool)>,
}

/// What a mistyped word is compared with.
const KNOWN: [&str; 25] = [
    "mode",
    "remote",
    "local",
    "dev",
    "ttl",
    "hoplimit",
    "tos",
    "tclass",
    "key",
    "ikey",
    "okey",
    "nokey",
    "csum",
    "icsum",
    "ocsum",
    "seq",
    "iseq",
    "oseq",
    "seq-mode",
    "pmtudisc",
    "ignore-df",
    "encaplimit",
    "flowlabel",
    "mss",
    "netfilter",
];

/// Words of iproute2's tunnels that take a value, and that we do not do.
const UNSUPPORTED_WITH_VALUE: [&str; 6] =
    ["fwmark", "dscp", "encap", "6rd-prefix", "prl-default", "prl-nodefault"];
const UNSUPPORTED: [&str; 3] = ["external", "allow-localremote", "noallow-localremote"];

impl Words {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or_else(|| {
                    Failure::senseless("Command line is not complete. Try option \"help\"")
                })
            };
            match word {
                "mode" => parsed.mode(value()?)?,
                "remote" => parsed.remote = Some(address(value()?)?),
                "local" => parsed.local = Some(address(value()?)?),
                "dev" => parsed.dev = Some(device(value()?)?),
                "ttl" | "hoplimit" | "hlim" => parsed.ttl = Some(ttl(value()?)?),
                "tos" | "tclass" | "tc" | "dsfield" => parsed.tos = Some(tos(value()?)?),
                "key" => {
                    let key = Some(key(word, value()?)?);
                    (parsed.ikey, parsed.okey) = (Some(key), Some(key));
                }
                "ikey" => parsed.ikey = Some(Some(key(word, value()?)?)),
                "okey" => parsed.okey = Some(Some(key(word, value()?)?)),
                "encaplimit" => {
                    parsed.encap_limit = Some(encap_limit(value()?)?);
                    parsed.of_one_version.push((word.to_owned(), true));
                }
                "flowlabel" | "fl" => {
                    parsed.flow_label = Some(option("invalid Flowlabel", value()?)?);
                    parsed.of_one_version.push((word.to_owned(), true));
                }
                "mtu" => parsed.mtu = Some(mtu(value()?)?),
                "seq-mode" => parsed.seq_mode = Some(option("invalid seq-mode", value()?)?),
                "mss" => parsed.mss = Some(option("invalid mss", value()?)?),
                "netfilter" => parsed.netfilter = Some(option("invalid netfilter", value()?)?),
                "name" => parsed.name(value()?)?,
                _ if UNSUPPORTED_WITH_VALUE.contains(&word) => {
                    return Err(unsupported(&format!("{word} {}", value()?)));
                }
                _ if UNSUPPORTED.contains(&word) => return Err(unsupported(word)),
                _ if parsed.flag(word) => {}
                _ => parsed.name(word)?,
            }
        }
        Ok(parsed)
    }

    /// Takes a word without a value; false where it is none.
    fn flag(&mut self, word: &str) -> bool {
        let (on, option) = match word.strip_prefix("no") {
            Some(option) => (false, option),
            None => (true, word),
        };
        let given = Some(on);
        match option {
            "csum" => (self.icsum, self.ocsum) = (given, given),
            "icsum" => self.icsum = given,
            "ocsum" => self.ocsum = given,
            "seq" => (self.iseq, self.oseq) = (given, given),
            "iseq" => self.iseq = given,
            "oseq" => self.oseq = given,
            "key" if !on => (self.ikey, self.okey) = (Some(None), Some(None)),
            "ikey" if !on => self.ikey = Some(None),
            "okey" if !on => self.okey = Some(None),
            "pmtudisc" => self.pmtudisc = given,
            "ignore-df" => self.ignore_df = given,
            _ => return false,
        }
        if matches!(option, "pmtudisc" | "ignore-df") {
            self.of_one_version.push((word.to_owned(), false));
        }
        true
    }

    fn mode(&mut self, text: &str) -> Result<(), Failure> {
        let mode = match text {
            "gre" | "gre/ip" => Mode::Gre,
            "ip6gre" | "ip6gre/ip" | "gre/ipv6" => Mode::Ip6gre,
            "gretap" => Mode::Gretap,
            "ip6gretap" => Mode::Ip6gretap,
            "ipip" | "ip/ip" | "sit" | "ipv6/ip" | "isatap" | "vti" | "ip6ip6" | "ipv6/ipv6"
            | "ipip6" | "ip4ip6" | "ip/ipv6" | "ipv4/ipv6" | "vti6" | "any" | "any/ipv6" => {
                return Err(unsupported(&format!("mode {text}")));
            }
            _ => return Err(Failure::senseless(format!("Unknown tunnel mode \"{text}\""))),
        };
        if self.mode.is_some_and(|other| other != mode) {
            return Err(Failure::senseless("You managed to ask for more than one tunnel mode."));
        }
        self.mode = Some(mode);
        Ok(())
    }

    /// Whatever is no keyword is the name, so a second one is a mistake.
    fn name(&mut self, word: &str) -> Result<(), Failure> {
        if self.name.is_some() {
            let mut text =
                format!("Error: either \"name\" is duplicate, or \"{word}\" is a garbage.");
            if let Some(near) = nearest(word, &KNOWN) {
                text.push_str(&format!("\ndid you mean \"{near}\"?"));
            }
            return Err(Failure::senseless(text));
        }
        if let Some(reason) = bad_name(word) {
            return Err(Failure::senseless(format!(
                "Error: argument \"{word}\" is wrong: \"name\" not a valid ifname\n{reason}"
            )));
        }
        self.name = Some(word.to_owned());
        Ok(())
    }

    /// As in iproute2, a name that begins with "gre" says the mode.
    fn mode_of_name(&self) -> Option<Mode> {
        let name = self.name.as_deref()?;
        // Of two names that fit, the longer.
        let modes = Mode::ALL.into_iter().filter(|mode| name.starts_with(mode.name()));
        modes.max_by_key(|mode| mode.name().len())
    }

    fn apply(self, mut tunnel: Tunnel, grammar: Grammar) -> Result<Tunnel, Failure> {
        fn set<T>(option: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *option = given;
            }
        }
        let mode = tunnel.mode;
        let own = mode.is_over_ipv6();
        if let Some((word, _)) = self.of_one_version.iter().find(|(_, of)| *of != own) {
            let other = mode.over_the_other();
            return Err(Failure::refused(format!(
                "Error: \"{word}\" is an option of mode {other}, and {} is {mode}\n\
                 leave it out",
                tunnel.name
            )));
        }
        let fragments = self.ttl.is_some() || self.pmtudisc.is_some();
        set(&mut tunnel.local, of_family(self.local, mode)?);
        set(&mut tunnel.remote, of_family(self.remote, mode)?);
        set(&mut tunnel.dev, self.dev.map(Some));
        set(&mut tunnel.ttl, self.ttl);
        set(&mut tunnel.tos, self.tos.map(|tos| tos.of_mode(mode)).transpose()?);
        set(&mut tunnel.ikey, self.ikey);
        set(&mut tunnel.okey, self.okey);
        set(&mut tunnel.icsum, self.icsum);
        set(&mut tunnel.ocsum, self.ocsum);
        set(&mut tunnel.iseq, self.iseq);
        set(&mut tunnel.oseq, self.oseq);
        set(&mut tunnel.seq_mode, self.seq_mode);
        set(&mut tunnel.pmtudisc, self.pmtudisc);
        set(&mut tunnel.ignore_df, self.ignore_df);
        set(&mut tunnel.encap_limit, self.encap_limit);
        set(&mut tunnel.flow_label, self.flow_label);
        set(&mut tunnel.mss, self.mss);
        set(&mut tunnel.netfilter, self.netfilter);
        set(&mut tunnel.mtu, self.mtu.map(Some));
        // `ip link` takes both, as the config file does, and then other options can be changed.
        let refuses = grammar == Grammar::Tunnel && !mode.is_ethernet();
        if refuses && fragments && tunnel.ttl != 0 && !tunnel.pmtudisc {
            return Err(Failure::refused("ttl != 0 and nopmtudisc are incompatible"));
        }
        match unfit(&tunnel) {
            None => Ok(tunnel),
            Some(unfit) => Err(Failure::refused(format!("Error: {}", unfit.reason))),
        }
    }
}

fn address(text: &str) -> Result<Endpoint, Failure> {
    text.parse().map_err(|reason| Failure::refused(format!("Error: {reason}")))
}

fn of_family(end: Option<Endpoint>, mode: Mode) -> Result<Option<IpAddr>, Failure> {
    let Some(address) = end.map(|end| end.address(mode)) else { return Ok(None) };
    if mode.has_family_of(address) {
        return Ok(Some(address));
    }
    let other = mode.over_the_other();
    Err(Failure::refused(if mode.is_over_ipv6() {
        format!(
            "Error: inet6 address is expected rather than \"{address}\".\n\
             mode {mode} runs over IPv6; over IPv4 it is `mode {other}`"
        )
    } else {
        format!(
            "Error: an IP address is expected rather than \"{address}\"\n\
             mode {mode} runs over IPv4; over IPv6 it is `mode {other}`"
        )
    }))
}

fn device(text: &str) -> Result<String, Failure> {
    match bad_name(text) {
        None => Ok(text.to_owned()),
        Some(reason) => Err(Failure::refused(format!("Cannot find device \"{text}\"\n{reason}"))),
    }
}

/// A value that knows how to be read; its reason says what it could be.
fn option<T: FromStr<Err = String>>(what: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|reason| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: {what}\n{reason}"))
    })
}

fn unsupported(words: &str) -> Failure {
    Failure::senseless(format!(
        "Error: \"{words}\" is not supported by xgre yet\n\
         leave it out, or make this tunnel with `ip tunnel`"
    ))
}
