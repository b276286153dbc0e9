//! Config values that are written in more than one way.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use crate::model::{self, Address, Endpoint, FlowLabel, Mss, SeqMode};

/// An address, or `"any"`.
#[derive(Clone, Copy)]
pub(super) struct End(pub Endpoint);

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer).map(Self)
    }
}

/// A text that knows how to be read.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
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

/// `"linux"` or `"rfc2890"`.
#[derive(Default)]
pub(super) struct Sequence(pub SeqMode);

impl<'de> Deserialize<'de> for Sequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer).map(Self)
    }
}

/// Encapsulation limit: 0 to 255, or `"none"`.
pub(super) struct EncapLimit(pub Option<u8>);

impl<'de> Deserialize<'de> for EncapLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "an encaplimit of 0 to 255 or \"none\"",
                number: |limit| u8::try_from(limit).ok().map(Some),
                text: |text| (text == "none").then_some(None),
            })
            .map(Self)
    }
}

/// Flow label: 0 to 0xfffff, or `"inherit"`.
pub(super) struct Label(pub FlowLabel);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "a flowlabel of 0 to 0xfffff or \"inherit\"",
                number: |label| {
                    let label = u32::try_from(label).ok().filter(|&label| label <= FlowLabel::MAX);
                    label.map(FlowLabel::Fixed)
                },
                text: |text| (text == "inherit").then_some(FlowLabel::Inherit),
            })
            .map(Self)
    }
}

/// Maximum segment size: a number of bytes, `"auto"` or `"off"`.
pub(super) struct SegmentSize(pub Mss);

impl<'de> Deserialize<'de> for SegmentSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberOrText {
                expected: "an mss of 88 to 65495 bytes, \"auto\" or \"off\"",
                number: |bytes| {
                    let bytes = u16::try_from(bytes).ok().filter(|mss| Mss::RANGE.contains(mss));
                    bytes.map(Mss::Fixed)
                },
                text: |text| match text {
                    "auto" => Some(Mss::Auto),
                    "off" => Some(Mss::Off),
                    _ => None,
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

/// A routed prefix; `default` is 0.0.0.0/0, and no length is one host, as in `ip route`.
pub(super) struct Prefix(pub IpNet);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        model::route(&text).map(Self).map_err(de::Error::custom)
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
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Address, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            local: Net,
            peer: Option<Net>,
        }
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Address::of(table.local.0, table.peer.map(|peer| peer.0)).map_err(de::Error::custom)
    }
}

struct Net(IpNet);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        model::prefix(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}
