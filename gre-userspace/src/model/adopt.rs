//! Which tunnels of the kernel's own the user wants accelerated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Netfilter;

/// Which tunnels of the kernel's own are accelerated, and whether those respect netfilter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adopt {
    /// All that are not named, those to come too.
    pub all: Option<Netfilter>,
    /// By name; none is not.
    pub named: BTreeMap<String, Option<Netfilter>>,
}

impl Adopt {
    pub fn all(netfilter: Netfilter) -> Self {
        Self { all: Some(netfilter), named: BTreeMap::new() }
    }

    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let respecting = |name: &str| (name.to_owned(), Some(Netfilter::Respect));
        Self { all: None, named: names.into_iter().map(respecting).collect() }
    }

    /// What is to become of one; none leaves it alone.
    pub fn of(&self, name: &str) -> Option<Netfilter> {
        self.named.get(name).copied().unwrap_or(self.all)
    }

    /// As commands would ask for it, one after the other.
    pub fn told(&self) -> Vec<Adoption> {
        let all = self.all.map(|netfilter| Adoption::new(Adoption::ALL, Some(netfilter)));
        let named = self.named.iter().map(|(name, netfilter)| Adoption::new(name, *netfilter));
        all.into_iter().chain(named).collect()
    }

    /// With what a command has asked for since.
    pub fn then(mut self, adoption: &Adoption) -> Self {
        match adoption.name() {
            None => self = Self { all: adoption.netfilter, named: BTreeMap::new() },
            Some(name) if self.of(name) == adoption.netfilter => {}
            Some(name) => _ = self.named.insert(name.to_owned(), adoption.netfilter),
        }
        self
    }
}

/// What a command asks for: to accelerate a tunnel of the kernel's own, or to leave it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Of a device, or [`Adoption::ALL`].
    name: String,
    /// None leaves it alone.
    pub netfilter: Option<Netfilter>,
}

impl Adoption {
    /// Every tunnel of the kernel's own, those to come too.
    pub const ALL: &'static str = "all";

    pub fn new(name: impl Into<String>, netfilter: Option<Netfilter>) -> Self {
        Self { name: name.into(), netfilter }
    }

    /// None is all.
    pub fn name(&self) -> Option<&str> {
        (self.name != Self::ALL).then_some(&self.name)
    }

    /// All that commands have asked for and that still counts after this one.
    pub fn after(self, told: &[Self]) -> Vec<Self> {
        let still = told.iter().filter(|one| self.name().is_some() && one.name != self.name);
        let mut told: Vec<_> = still.cloned().collect();
        told.push(self);
        told
    }
}
