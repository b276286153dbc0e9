//! A tunnel's options, in any order.

use std::{net::IpAddr, str::FromStr};

use super::{
    grammar::Grammar,
    values::{Tos, encap_limit, fwmark, key, mtu, tos, ttl},
};
use crate::{
    cli::{Failure, output::Family, usage},
    config::{bad_name, unfit},
    model::{Endpoint, FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel},
};

/// What a command line says; what it does not say is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    pub(super) name: Option<String>,
    pub(super) mode: Option<Mode>,
    pub(super) local: Option<Endpoint>,
    pub(super) remote: Option<Endpoint>,
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

/// What is known before the words are read.
#[derive(Clone, Copy)]
struct Context {
    grammar: Grammar,
    /// The outer IP version, where the mode, the type or `-6` tells.
    over_ipv6: Option<bool>,
    family: Family,
}

/// Of tunnels that we do not do, or not yet.
const UNSUPPORTED: [&str; 5] =
    ["external", "allow-localremote", "encap-csum", "encap-udp6-csum", "encap-remcsum"];
/// What a tunnel without these is anyway.
const AS_IT_IS: [&str; 5] =
    ["noallow-localremote", "noencap", "noencap-csum", "noencap-udp6-csum", "noencap-remcsum"];

/// What iproute2 takes for modes over IPv6 (tunnel_mode_is_ipv6 in ip/iptunnel.c), and ours.
const OVER_IPV6: [&str; 13] = [
    "ipv6/ipv6",
    "ip6ip6",
    "vti6",
    "ip/ipv6",
    "ipv4/ipv6",
    "ipip6",
    "ip4ip6",
    "ip6gre",
    "gre/ipv6",
    "any/ipv6",
    "any",
    "ip6gre/ip",
    "ip6gretap",
];

/// iproute2's, which are not of GRE.
const OTHER_MODES: [&str; 15] = [
    "ipip",
    "ip/ip",
    "sit",
    "ipv6/ip",
    "isatap",
    "vti",
    "ip6ip6",
    "ipv6/ipv6",
    "ipip6",
    "ip4ip6",
    "ip/ipv6",
    "ipv4/ipv6",
    "vti6",
    "any",
    "any/ipv6",
];

impl Words {
    /// Of `ip tunnel`, with `-4`, `-6` or neither.
    pub(super) fn of_tunnel(words: &[String], family: Family) -> Result<Self, Failure> {
        let mode = words.windows(2).find(|pair| pair[0] == "mode").map(|pair| pair[1].as_str());
        let over_ipv6 = match (mode, family) {
            (Some(mode), _) if OVER_IPV6.contains(&mode) => Some(true),
            (_, Family::Inet6) => Some(true),
            (Some(_), _) | (None, Family::Inet) => Some(false),
            (None, Family::Any) => None,
        };
        Self::parse(words, Context { grammar: Grammar::Tunnel, over_ipv6, family })
    }

    /// Of `ip link`, behind the type.
    pub(super) fn of_link(words: &[String], mode: Mode) -> Result<Self, Failure> {
        let over_ipv6 = Some(mode.is_over_ipv6());
        let context = Context { grammar: Grammar::Link, over_ipv6, family: Family::Any };
        Ok(Self { mode: Some(mode), ..Self::parse(words, context)? })
    }

    fn parse(words: &[String], context: Context) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match context.grammar.option(word) {
                None if context.grammar == Grammar::Link => {
                    return Err(usage::of_type(word, context.grammar.near(word)));
                }
                None => parsed.name(word)?,
                Some("help") if context.grammar == Grammar::Link => return Err(usage::options()),
                Some("help") => return Err(usage::tunnel(context.over_ipv6 == Some(true))),
                Some(option) if parsed.flag(option) || AS_IT_IS.contains(&option) => {}
                Some(option) if UNSUPPORTED.contains(&option) => {
                    return Err(unsupported(option, context.grammar));
                }
                Some(option) => {
                    let value = words.next().ok_or_else(incomplete)?;
                    parsed.value(option, value, context)?;
                }
            }
        }
        Ok(parsed)
    }

    fn value(&mut self, word: &str, value: &str, context: Context) -> Result<(), Failure> {
        match word {
            "mode" => self.mode(value, context.family)?,
            "name" => self.name(value)?,
            "remote" => self.remote = Some(address(value, context)?),
            "local" => self.local = Some(address(value, context)?),
            "dev" => self.dev = Some(device(value)?),
            "ttl" | "hoplimit" | "hlim" => self.ttl = Some(ttl(value, limit_word(context))?),
            "tos" | "tclass" | "tc" | "dsfield" => {
                let wrong = match context.over_ipv6 {
                    Some(true) => "invalid TClass",
                    _ => "bad TOS value",
                };
                self.tos = Some(tos(value, wrong)?);
            }
            "key" => {
                let key = Some(key(word, value)?);
                (self.ikey, self.okey) = (Some(key), Some(key));
            }
            "ikey" => self.ikey = Some(Some(key(word, value)?)),
            "okey" => self.okey = Some(Some(key(word, value)?)),
            "encaplimit" => {
                self.encap_limit = Some(encap_limit(value)?);
                self.of_one_version.push((word.to_owned(), true));
            }
            "flowlabel" | "fl" => {
                self.flow_label = Some(option("invalid Flowlabel", value)?);
                self.of_one_version.push((word.to_owned(), true));
            }
            "mtu" => self.mtu = Some(mtu(value)?),
            "seq-mode" => self.seq_mode = Some(option("invalid seq-mode", value)?),
            "mss" => self.mss = Some(option("invalid mss", value)?),
            "netfilter" => self.netfilter = Some(option("invalid netfilter", value)?),
            _ => return unsupported_value(word, value, context.grammar),
        }
        Ok(())
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

    fn mode(&mut self, text: &str, family: Family) -> Result<(), Failure> {
        let second = || Failure::senseless("You managed to ask for more than one tunnel mode.");
        let mode = match text {
            "gre" | "gre/ip" if family != Family::Inet6 => Mode::Gre,
            "ip6gre" | "ip6gre/ip" | "gre/ipv6" => Mode::Ip6gre,
            "gretap" => Mode::Gretap,
            "ip6gretap" => Mode::Ip6gretap,
            _ if OTHER_MODES.contains(&text) && self.mode.is_some() => return Err(second()),
            _ if OTHER_MODES.contains(&text) => {
                return Err(unsupported(&format!("mode {text}"), Grammar::Tunnel));
            }
            _ => return Err(Failure::senseless(format!("Unknown tunnel mode \"{text}\""))),
        };
        if self.mode.is_some_and(|other| other != mode) {
            return Err(second());
        }
        self.mode = Some(mode);
        Ok(())
    }

    /// Whatever is no keyword is the name, so a second one is a mistake.
    fn name(&mut self, word: &str) -> Result<(), Failure> {
        if self.name.is_some() {
            return Err(garbage("name", word, Grammar::Tunnel.near(word)));
        }
        self.name = Some(valid_name("name", word)?);
        Ok(())
    }

    /// As in iproute2, a name that begins with "gre" says the mode.
    pub(super) fn mode_of_name(&self) -> Option<Mode> {
        let name = self.name.as_deref()?;
        // Of two names that fit, the longer.
        let modes = Mode::ALL.into_iter().filter(|mode| name.starts_with(mode.name()));
        modes.max_by_key(|mode| mode.name().len())
    }

    pub(super) fn apply(self, mut tunnel: Tunnel, grammar: Grammar) -> Result<Tunnel, Failure> {
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
        set(&mut tunnel.local, of_family(self.local, mode, grammar)?);
        set(&mut tunnel.remote, of_family(self.remote, mode, grammar)?);
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

fn address(text: &str, Context { grammar, over_ipv6, .. }: Context) -> Result<Endpoint, Failure> {
    text.parse().map_err(|reason| {
        Failure::refused(match (grammar, over_ipv6) {
            (_, Some(true)) => format!("Error: inet6 address is expected rather than \"{text}\"."),
            (Grammar::Link, _) => {
                format!("Error: inet address is expected rather than \"{text}\".")
            }
            (Grammar::Tunnel, _) => format!("Error: {reason}"),
        })
    })
}

fn of_family(
    end: Option<Endpoint>,
    mode: Mode,
    grammar: Grammar,
) -> Result<Option<IpAddr>, Failure> {
    let Some(address) = end.map(|end| end.address(mode)) else { return Ok(None) };
    if mode.has_family_of(address) {
        return Ok(Some(address));
    }
    let other = mode.over_the_other();
    let [own, others, word] = match (mode.is_over_ipv6(), grammar) {
        (true, Grammar::Tunnel) => ["IPv6", "IPv4", "mode"],
        (true, Grammar::Link) => ["IPv6", "IPv4", "type"],
        (false, Grammar::Tunnel) => ["IPv4", "IPv6", "mode"],
        (false, Grammar::Link) => ["IPv4", "IPv6", "type"],
    };
    let expected = match (mode.is_over_ipv6(), grammar) {
        (true, _) => format!("inet6 address is expected rather than \"{address}\"."),
        (false, Grammar::Link) => format!("inet address is expected rather than \"{address}\"."),
        (false, Grammar::Tunnel) => format!("an IP address is expected rather than \"{address}\""),
    };
    Err(Failure::refused(format!(
        "Error: {expected}\n{word} {mode} runs over {own}; over {others} it is `{word} {other}`"
    )))
}

fn device(text: &str) -> Result<String, Failure> {
    match bad_name(text) {
        None => Ok(text.to_owned()),
        Some(reason) => Err(Failure::refused(format!("Cannot find device \"{text}\"\n{reason}"))),
    }
}

/// What iproute2 calls an outer packet's lifetime in its errors.
fn limit_word(Context { grammar, over_ipv6, .. }: Context) -> &'static str {
    match (grammar, over_ipv6) {
        (Grammar::Link, Some(true)) => "HLIM",
        _ => "TTL",
    }
}

/// A name for a device, introduced by `what`.
pub(super) fn valid_name(what: &str, text: &str) -> Result<String, Failure> {
    match bad_name(text) {
        None => Ok(text.to_owned()),
        Some(reason) => Err(Failure::senseless(format!(
            "Error: argument \"{text}\" is wrong: \"{what}\" not a valid ifname\n{reason}"
        ))),
    }
}

/// A second `what`, or a mistyped word.
pub(super) fn garbage(what: &str, word: &str, near: Option<&str>) -> Failure {
    let mut text = format!("Error: either \"{what}\" is duplicate, or \"{word}\" is a garbage.");
    if let Some(near) = near {
        text.push_str(&format!("\ndid you mean \"{near}\"?"));
    }
    Failure::senseless(text)
}

pub(super) fn incomplete() -> Failure {
    Failure::senseless("Command line is not complete. Try option \"help\"")
}

/// A value that knows how to be read; its reason says what it could be.
fn option<T: FromStr<Err = String>>(what: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|reason| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: {what}\n{reason}"))
    })
}

/// A word of iproute2's whose value is not what every tunnel of ours has anyway.
fn unsupported_value(word: &str, value: &str, grammar: Grammar) -> Result<(), Failure> {
    let wrong = |what: &str| {
        Err(Failure::senseless(format!("Error: argument \"{value}\" is wrong: {what}")))
    };
    match (word, value) {
        ("encap", "none") => return Ok(()),
        ("encap", "fou" | "gue") | ("dscp" | "fwmark", "inherit") => {}
        ("encap", _) => return wrong("Invalid encap type."),
        ("dscp", _) => return wrong("not inherit"),
        ("fwmark", mark) if fwmark(mark)? == 0 => return Ok(()),
        _ => {}
    }
    Err(unsupported(&format!("{word} {value}"), grammar))
}

fn unsupported(words: &str, grammar: Grammar) -> Failure {
    let object = match grammar {
        Grammar::Tunnel => "tunnel",
        Grammar::Link => "link",
    };
    Failure::senseless(format!(
        "Error: \"{words}\" is not supported by xgre yet\n\
         leave it out, or make this tunnel with `ip {object}`"
    ))
}
