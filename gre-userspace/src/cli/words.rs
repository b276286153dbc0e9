//! The grammar of `ip tunnel add`: words in any order. What is refused is refused in iproute2's
//! words; a line of our own may follow.

use std::net::Ipv4Addr;

use super::{Failure, dsfield};
use crate::{
    config::{bad_name, nearest, unfit},
    model::{Mode, Tunnel},
};

/// The tunnel that a command line describes.
pub fn tunnel(words: &[String]) -> Result<Tunnel, Failure> {
    let words = Words::parse(words)?;
    if words.ttl != 0 && !words.pmtudisc {
        return Err(Failure::refused("ttl != 0 and nopmtudisc are incompatible"));
    }
    // As in iproute2, a name that begins with "gre" says the mode.
    let named_gre = words.name.as_ref().is_some_and(|name| name.starts_with("gre"));
    let Some(mode) = words.mode.or(named_gre.then_some(Mode::Gre)) else {
        return Err(Failure::refused(
            "cannot determine tunnel mode (ipip, gre, vti or sit)\nxgre does gre: add `mode gre`",
        ));
    };
    let Some(name) = words.name else {
        return Err(Failure::refused(
            "the tunnel has no name\n\
             xgre tunnel add NAME mode gre remote ADDR local ADDR [ ttl TTL ] [ key KEY ]",
        ));
    };
    let tunnel = Tunnel {
        name,
        mode,
        local: specific("local", words.local)?,
        remote: specific("remote", words.remote)?,
        ttl: words.ttl,
        tos: words.tos,
        key: words.key,
        pmtudisc: words.pmtudisc,
        mtu: None,
        addresses: Vec::new(),
        routes: Vec::new(),
        up: false,
    };
    match unfit(&tunnel) {
        None => Ok(tunnel),
        Some(unfit) => Err(Failure::refused(format!("Error: {}", unfit.reason))),
    }
}

/// The name in the words of `ip tunnel delete` and `show`, which may say more about the tunnel.
pub(super) fn name(words: &[String]) -> Result<Option<String>, Failure> {
    Words::parse(words).map(|words| words.name)
}

struct Words {
    name: Option<String>,
    mode: Option<Mode>,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    ttl: u8,
    tos: u8,
    key: Option<u32>,
    pmtudisc: bool,
}

const KNOWN: [&str; 8] = ["mode", "remote", "local", "ttl", "tos", "key", "pmtudisc", "nopmtudisc"];

/// Words of `ip tunnel` that take a value, and that we do not do yet.
const UNSUPPORTED_WITH_VALUE: [&str; 3] = ["dev", "ikey", "okey"];
const UNSUPPORTED: [&str; 6] = ["seq", "iseq", "oseq", "csum", "icsum", "ocsum"];

impl Words {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut parsed = Self {
            name: None,
            mode: None,
            local: Ipv4Addr::UNSPECIFIED,
            remote: Ipv4Addr::UNSPECIFIED,
            ttl: 0,
            tos: 0,
            key: None,
            pmtudisc: true,
        };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or_else(|| {
                    Failure::senseless("Command line is not complete. Try option \"help\"")
                })
            };
            match word {
                "mode" => parsed.mode = Some(mode(value()?)?),
                "remote" => parsed.remote = address(value()?)?,
                "local" => parsed.local = address(value()?)?,
                "ttl" | "hoplimit" | "hlim" => parsed.ttl = ttl(value()?)?,
                "tos" | "tclass" | "dsfield" => parsed.tos = tos(value()?)?,
                "key" => parsed.key = Some(key(value()?)?),
                "pmtudisc" => parsed.pmtudisc = true,
                "nopmtudisc" => parsed.pmtudisc = false,
                _ if UNSUPPORTED_WITH_VALUE.contains(&word) => {
                    return Err(unsupported(&format!("{word} {}", value()?)));
                }
                _ if UNSUPPORTED.contains(&word) => return Err(unsupported(word)),
                "name" => parsed.name(value()?)?,
                _ => parsed.name(word)?,
            }
        }
        Ok(parsed)
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
}

fn mode(text: &str) -> Result<Mode, Failure> {
    match text {
        "gre" | "gre/ip" => Ok(Mode::Gre),
        "ipip" | "ip/ip" | "sit" | "ipv6/ip" | "isatap" | "vti" => {
            Err(unsupported(&format!("mode {text}")))
        }
        _ => Err(Failure::senseless(format!("Unknown tunnel mode \"{text}\""))),
    }
}

fn unsupported(what: &str) -> Failure {
    Failure::senseless(format!(
        "Error: \"{what}\" is not supported by xgre yet\nleave it out, or make this tunnel with `ip tunnel`"
    ))
}

fn address(text: &str) -> Result<Ipv4Addr, Failure> {
    match text {
        "any" | "all" | "default" => Ok(Ipv4Addr::UNSPECIFIED),
        _ => text.parse().map_err(|_| {
            Failure::refused(format!("Error: an IP address is expected rather than \"{text}\""))
        }),
    }
}

fn specific(key: &str, address: Ipv4Addr) -> Result<Ipv4Addr, Failure> {
    if address.is_unspecified() {
        return Err(Failure::refused(format!(
            "Error: {key} is any\nwildcards are not supported yet: give the tunnel's {key} address, \
             `{key} ADDR`"
        )));
    }
    Ok(address)
}

fn ttl(text: &str) -> Result<u8, Failure> {
    if text == "inherit" {
        return Ok(0);
    }
    number(text).and_then(|ttl| ttl.try_into().ok()).ok_or_else(|| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: invalid TTL"))
    })
}

/// `inherit`, a DSCP, or `inherit/DSCP`: the latter for packets that are not IP.
fn tos(text: &str) -> Result<u8, Failure> {
    let (inherit, dsfield) = match text.split_once('/') {
        _ if text == "inherit" => (1, None),
        Some(("inherit", dsfield)) => (1, Some(dsfield)),
        _ => (0, Some(text)),
    };
    match dsfield.map(dsfield::parse) {
        None => Ok(inherit),
        Some(Some(tos)) => Ok(tos | inherit),
        Some(None) => {
            Err(Failure::senseless(format!("Error: argument \"{text}\" is wrong: bad TOS value")))
        }
    }
}

fn key(text: &str) -> Result<u32, Failure> {
    if text.contains('.') {
        return address(text).map(u32::from);
    }
    number(text).ok_or_else(|| {
        Failure::senseless(format!(
            "invalid value for \"key\": \"{text}\"; it should be an unsigned integer"
        ))
    })
}

/// As strtoul with base 0: `0x` is hexadecimal and a leading 0 octal.
fn number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u32::from_str_radix(digits, 16).ok()
    } else if text.len() > 1 && text.starts_with('0') {
        u32::from_str_radix(text, 8).ok()
    } else {
        text.parse().ok()
    }
}
