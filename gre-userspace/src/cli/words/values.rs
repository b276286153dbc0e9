//! The values of `ip tunnel`'s words, as iproute2 reads them.

use crate::{
    cli::{Failure, dsfield},
    model::{self, Mode},
};

/// `word` is what iproute2 calls it: TTL or HLIM.
pub(super) fn ttl(text: &str, word: &str) -> Result<u8, Failure> {
    if text == "inherit" {
        return Ok(0);
    }
    number(text).and_then(|ttl| ttl.try_into().ok()).ok_or_else(|| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: invalid {word}"))
    })
}

/// A TOS byte or traffic class, and whether the inner packet's takes its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tos {
    inherit: bool,
    /// With `inherit`, of packets that are not IP.
    byte: u8,
}

/// `inherit`, a DSCP, or `inherit/DSCP`; `wrong` is what iproute2 says of anything else.
pub(super) fn tos(text: &str, wrong: &str) -> Result<Tos, Failure> {
    let (inherit, dsfield) = match text.split_once('/') {
        _ if text == "inherit" => return Ok(Tos { inherit: true, byte: 0 }),
        Some(("inherit", dsfield)) => (true, dsfield),
        _ => (false, text),
    };
    match dsfield::parse(dsfield) {
        Some(byte) => Ok(Tos { inherit, byte }),
        None => Err(Failure::senseless(format!("Error: argument \"{text}\" is wrong: {wrong}"))),
    }
}

impl Tos {
    /// As a tunnel has it: bit 0 inherits.
    pub(super) fn of_mode(self, mode: Mode) -> Result<u8, Failure> {
        let Self { inherit, byte } = self;
        let wrong = |reason: &str| {
            Failure::senseless(format!(
                "Error: argument \"{byte:#04x}\" is wrong: invalid TClass\n{reason}"
            ))
        };
        if mode.is_over_ipv6() && inherit && byte != 0 {
            return Err(wrong("a traffic class is either inherited or fixed"));
        }
        if mode.is_over_ipv6() && byte & 3 != 0 {
            return Err(wrong("its last two bits are ECN's, which follows the inner packet"));
        }
        Ok(byte | u8::from(inherit))
    }
}

/// In bytes.
pub(super) fn mtu(text: &str) -> Result<u32, Failure> {
    number(text).ok_or_else(|| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: Invalid \"mtu\" value"))
    })
}

pub(super) fn encap_limit(text: &str) -> Result<Option<u8>, Failure> {
    if text == "none" {
        return Ok(None);
    }
    number(text).and_then(|limit| limit.try_into().ok()).map(Some).ok_or_else(|| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: invalid ELIM"))
    })
}

pub(super) fn fwmark(text: &str) -> Result<u32, Failure> {
    number(text).ok_or_else(|| {
        Failure::senseless(format!("Error: argument \"{text}\" is wrong: invalid fwmark"))
    })
}

/// Of an Ethernet device, as ll_addr_a2n reads it.
pub(super) fn mac(text: &str) -> Result<[u8; 6], Failure> {
    model::mac(text).ok_or_else(|| Failure::refused(format!("\"{text}\" is invalid lladdr.")))
}

/// Of `key`, `ikey` or `okey`: a number, or a dotted quad.
pub(super) fn key(word: &str, text: &str) -> Result<u32, Failure> {
    if text.contains('.') {
        let quad = text.parse::<std::net::Ipv4Addr>();
        return quad.map(u32::from).map_err(|_| {
            Failure::refused(format!("Error: an IP address is expected rather than \"{text}\""))
        });
    }
    number(text).ok_or_else(|| {
        Failure::senseless(format!(
            "invalid value for \"{word}\": \"{text}\"; it should be an unsigned integer"
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
