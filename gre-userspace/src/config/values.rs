//! Config values that are written in more than one way.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use crate::model::Address;

/// An IPv4 address.
pub(super) struct Ip(pub Ipv4Addr);

impl<'de> Deserialize<'de> for Ip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!("an IPv4 address is expected rather than \"{text}\""))
        })
    }
}

/// Outer TTL: 1 to 255, or `"inherit"`, which is 0.
pub(super) struct Ttl(pub u8);

impl Default for Ttl {
    fn default() -> Self {
        Self(64)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "a ttl of 1 to 255 or \"inherit\"",
                number: |ttl| u8::try_from(ttl).ok().filter(|&ttl| ttl != 0),
                text: |text| (text == "inherit").then_some(0),
            })
            .map(Self)
    }
}

/// Outer TOS byte; the two ECN bits below DSCP follow the inner packet and cannot be set. Bit 0 set
/// is `"inherit"`.
#[derive(Default)]
pub(super) struct Tos(pub u8);

impl<'de> Deserialize<'de> for Tos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "a tos of 0 to 252 that is a multiple of 4, or \"inherit\"",
                number: |tos| u8::try_from(tos).ok().filter(|tos| tos & 3 == 0),
                text: |text| (text == "inherit").then_some(1),
            })
            .map(Self)
    }
}

/// GRE key: a number, or a dotted quad, as in `ip tunnel`.
pub(super) struct Key(pub u32);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "a key of 0 to 4294967295 or a dotted quad",
                number: |key| u32::try_from(key).ok(),
                text: |text| match text.parse::<Ipv4Addr>() {
                    Ok(quad) => Some(quad.into()),
                    Err(_) => text.parse().ok(),
                },
            })
            .map(Self)
    }
}

struct NumberOrText<T> {
    expected: &'static str,
    number: fn(i64) -> Option<T>,
    text: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A routed prefix; `default` is 0.0.0.0/0, and no length is /32, as in `ip route`.
pub(super) struct Prefix(pub Ipv4Net);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let prefix = match text.as_str() {
            "default" => Ipv4Net::default(),
            text => net(text).map_err(de::Error::custom)?,
        };
        if prefix.trunc() != prefix {
            return Err(de::Error::custom(format!(
                "{prefix} has host bits set; did you mean {}?",
                prefix.trunc()
            )));
        }
        Ok(Self(prefix))
    }
}

/// `"LOCAL/LEN"`, `"LOCAL/LEN peer PEER/LEN"` as in `ip address`, or a table of the two.
pub(super) struct AddressValue(pub Address);

impl<'de> Deserialize<'de> for AddressValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressVisitor).map(Self)
    }
}

struct AddressVisitor;

impl<'de> Visitor<'de> for AddressVisitor {
    type Value = Address;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"172.16.168.1/30\" or \"10.0.0.1/32 peer 10.0.0.2/32\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [local] => Ok(Address { local: net(local).map_err(E::custom)?.into(), peer: None }),
            [local, "peer", peer] => Ok(Address {
                local: net(local).map_err(E::custom)?.into(),
                peer: Some(net(peer).map_err(E::custom)?.into()),
            }),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            local: Net,
            peer: Option<Net>,
        }
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Address { local: table.local.0.into(), peer: table.peer.map(|peer| peer.0.into()) })
    }
}

struct Net(Ipv4Net);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        net(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

fn net(text: &str) -> Result<Ipv4Net, String> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.into());
    }
    text.parse().map_err(|_| format!("an IPv4 prefix is expected rather than \"{text}\""))
}
