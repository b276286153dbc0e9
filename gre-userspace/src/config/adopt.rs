//! Which tunnels of the kernel's own are adopted: `"all"`, names, or tables where there is more to say.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use toml_edit::{Array, InlineTable, Value};

use super::check::bad_name;
use crate::model::{Adopt, Adoption, Netfilter};

/// What the key `adopt` says.
#[derive(Default)]
pub(super) struct AdoptValue(pub Adopt);

/// One of its elements.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    name: String,
    #[serde(default)]
    netfilter: Netfilter,
    /// Left alone, where all others are adopted.
    #[serde(default)]
    off: bool,
}

impl Element {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), netfilter: Netfilter::default(), off: false }
    }

    fn put<E: de::Error>(self, adopt: &mut Adopt) -> Result<(), E> {
        let netfilter = (!self.off).then_some(self.netfilter);
        if self.name == Adoption::ALL {
            if self.off {
                return Err(E::custom("all that are not named are left alone as it is"));
            }
            return match adopt.all.replace(self.netfilter) {
                None => Ok(()),
                Some(_) => Err(E::custom("`all` is given twice")),
            };
        }
        if let Some(reason) = bad_name(&self.name) {
            return Err(E::custom(reason));
        }
        match adopt.named.insert(self.name.clone(), netfilter) {
            None => Ok(()),
            Some(_) => Err(E::custom(format!("`{}` is given twice", self.name))),
        }
    }
}

impl<'de> Deserialize<'de> for AdoptValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Elements).map(Self)
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Adopt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"all\", or an array of names of GRE devices of the kernel's")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Adopt, E> {
        match text {
            Adoption::ALL => Ok(Adopt::all(Netfilter::default())),
            name => Err(E::custom(format!("adopt is \"all\" or an array: adopt = [\"{name}\"]"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Adopt, A::Error> {
        let mut adopt = Adopt::default();
        while elements.next_element_seed(Into(&mut adopt))?.is_some() {}
        Ok(adopt)
    }
}

/// Puts one element in, so that what is wrong with it is told where it stands.
struct Into<'a>(&'a mut Adopt);

impl<'de> de::DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a table such as { name = \"gre1\", netfilter = \"bypass\" }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<(), E> {
        Element::named(name).put(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Element::deserialize(MapAccessDeserializer::new(map))?.put(self.0)
    }
}

/// As a config file says it, in as few words as there are; none where nothing is adopted.
pub fn adopt(adopt: &Adopt) -> Option<Value> {
    if *adopt == Adopt::all(Netfilter::Respect) {
        return Some(Adoption::ALL.into());
    }
    let all = adopt.all.map(|netfilter| (Adoption::ALL, Some(netfilter)));
    let named: BTreeMap<_, _> = adopt.named.iter().map(|(name, to)| (name.as_str(), *to)).collect();
    let elements = all.into_iter().chain(named);
    let array: Array = elements
        // Left alone they are anyway.
        .filter(|(_, netfilter)| netfilter.is_some() || adopt.all.is_some())
        .map(|(name, netfilter)| match netfilter {
            Some(Netfilter::Respect) => Value::from(name),
            Some(netfilter) => table(name, "netfilter", netfilter.to_string().into()),
            None => table(name, "off", true.into()),
        })
        .collect();
    (!array.is_empty()).then_some(array.into())
}

fn table(name: &str, key: &str, value: Value) -> Value {
    InlineTable::from_iter([("name", Value::from(name)), (key, value)]).into()
}
