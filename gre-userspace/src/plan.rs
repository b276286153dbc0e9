//! What has to be done so that tunnels and ports are as a config file says. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use toml_edit::Value;

use crate::{
    config::{adopt, options},
    model::{Adopt, Desired, Limits, Tunnel, XdpMode},
    report::{ADD, CHANGE, DELETE, PlanStep},
};

/// Ports by interface name; none named is every Ethernet interface that has an address.
pub type Ports = BTreeMap<String, XdpMode>;

/// One change, which can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Ports {
        old: Ports,
        new: Ports,
    },
    /// The group that may change what runs.
    Group {
        old: Option<String>,
        new: Option<String>,
    },
    /// Which tunnels of the kernel's own are accelerated.
    Adopt {
        old: Adopt,
        new: Adopt,
    },
    Add(Tunnel),
    Change {
        old: Tunnel,
        new: Tunnel,
    },
    Delete(Tunnel),
}

/// Why a config cannot be applied to what runs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Impossible {
    #[error(
        "limits.{name} is {old} and would be {new}: limits are fixed while the programs run; \
         leave it at {old}, or stop the daemon, take everything down (`xgre teardown`) and start again"
    )]
    Limit { name: &'static str, old: u32, new: u32 },
    #[error(
        "tunnel \"{new}\" and \"{old}\", which a command made, have the same local, remote and key: \
         `xgre tunnel del {old}`, or name it in the config instead"
    )]
    Clash { new: String, old: String },
    #[error(
        "there would be {count} tunnels, {commands} of which commands made, and limits.tunnels is \
         {limit}"
    )]
    TooMany { count: usize, commands: usize, limit: u32 },
}

/// The steps from `current` to `wanted`. Tunnels that commands made and `wanted` does not name stay.
/// What is deleted goes last, unless something else cannot come before it is gone.
pub fn plan(current: &Desired, wanted: &Desired) -> Result<Vec<Step>, Impossible> {
    limits(&current.limits, &wanted.limits)?;
    let stay: Vec<_> = current
        .tunnels
        .values()
        .filter(|tunnel| !tunnel.up && !wanted.tunnels.contains_key(&tunnel.name))
        .collect();
    for tunnel in wanted.tunnels.values() {
        if let Some(old) = stay.iter().find(|old| old.identity() == tunnel.identity()) {
            return Err(Impossible::Clash { new: tunnel.name.clone(), old: old.name.clone() });
        }
    }
    let (count, limit) = (wanted.tunnels.len() + stay.len(), current.limits.tunnels);
    if count > limit as usize {
        return Err(Impossible::TooMany { count, commands: stay.len(), limit });
    }
    let mut steps = Vec::new();
    if current.ports != wanted.ports {
        steps.push(Step::Ports { old: current.ports.clone(), new: wanted.ports.clone() });
    }
    let groups = [current, wanted].map(|desired| desired.control_group.clone());
    if let [old, new] = groups
        && old != new
    {
        steps.push(Step::Group { old, new });
    }
    if current.adopt != wanted.adopt {
        steps.push(Step::Adopt { old: current.adopt.clone(), new: wanted.adopt.clone() });
    }
    let mut order = Order {
        now: current.tunnels.iter().map(|(name, tunnel)| (name.as_str(), tunnel)).collect(),
        wanted: &wanted.tunnels,
        unwanted: current
            .tunnels
            .values()
            .filter(|tunnel| tunnel.up && !wanted.tunnels.contains_key(&tunnel.name))
            .map(|tunnel| tunnel.name.as_str())
            .collect(),
        begun: BTreeSet::new(),
        limit: limit as usize,
        steps,
    };
    for tunnel in wanted.tunnels.values() {
        order.make(tunnel);
    }
    while let Some(name) = order.unwanted.first().copied() {
        order.delete(name);
    }
    Ok(order.steps)
}

fn limits(old: &Limits, new: &Limits) -> Result<(), Impossible> {
    let changed = old.named().into_iter().zip(new.named()).find(|(old, new)| old != new);
    match changed {
        Some(((name, old), (_, new))) => Err(Impossible::Limit { name, old, new }),
        None => Ok(()),
    }
}

/// Puts steps in an order in which no two tunnels are alike at any time.
struct Order<'a> {
    /// The tunnels after the steps so far.
    now: BTreeMap<&'a str, &'a Tunnel>,
    wanted: &'a BTreeMap<String, Tunnel>,
    unwanted: BTreeSet<&'a str>,
    /// Tunnels that something must be done before.
    begun: BTreeSet<&'a str>,
    limit: usize,
    steps: Vec<Step>,
}

impl<'a> Order<'a> {
    fn make(&mut self, new: &'a Tunnel) {
        let name = new.name.as_str();
        if self.now.get(name) == Some(&new) || !self.begun.insert(name) {
            return;
        }
        let alike = |other: &&Tunnel| other.name != new.name && other.identity() == new.identity();
        if let Some(other) = self.now.values().copied().find(alike) {
            let begun = self.begun.contains(other.name.as_str());
            match self.wanted.get(&other.name) {
                Some(other) if !begun => self.make(other),
                // They wait for each other, or it has to go anyway.
                _ => self.delete(&other.name),
            }
        }
        match self.now.get(name).copied() {
            Some(old) if old.mode == new.mode => {
                self.steps.push(Step::Change { old: old.clone(), new: new.clone() });
            }
            old => {
                if old.is_some() {
                    self.delete(name);
                } else if self.now.len() >= self.limit
                    && let Some(unwanted) = self.unwanted.first().copied()
                {
                    self.delete(unwanted);
                }
                self.steps.push(Step::Add(new.clone()));
            }
        }
        self.now.insert(name, new);
    }

    fn delete(&mut self, name: &str) {
        self.unwanted.remove(name);
        if let Some(old) = self.now.remove(name) {
            self.steps.push(Step::Delete(old.clone()));
        }
    }
}

impl Step {
    /// What undoes it.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Ports { old, new } => Self::Ports { old: new, new: old },
            Self::Group { old, new } => Self::Group { old: new, new: old },
            Self::Adopt { old, new } => Self::Adopt { old: new, new: old },
            Self::Add(tunnel) => Self::Delete(tunnel),
            Self::Change { old, new } => Self::Change { old: new, new: old },
            Self::Delete(tunnel) => Self::Add(tunnel),
        }
    }

    /// For people and programs to read.
    pub fn told(&self) -> Vec<PlanStep> {
        match self {
            Self::Ports { old, new } => ports_told(old, new),
            Self::Group { old, new } => {
                let name = |group: &Option<String>| group.clone().unwrap_or("none".to_owned());
                vec![step(CHANGE, "control", "group", format!("{} -> {}", name(old), name(new)))]
            }
            Self::Adopt { old, new } => {
                let said = |value: &Adopt| adopt(value).map_or("none".to_owned(), |v| word(&v));
                let what = format!("{} -> {}", said(old), said(new));
                vec![step(CHANGE, "adopt", "kernel's GRE", what)]
            }
            Self::Add(tunnel) => vec![step(ADD, "tunnel", &tunnel.name, words(tunnel))],
            Self::Change { old, new } => {
                vec![step(CHANGE, "tunnel", &new.name, differences(old, new).join(", "))]
            }
            Self::Delete(tunnel) => vec![step(DELETE, "tunnel", &tunnel.name, words(tunnel))],
        }
    }
}

fn step(action: &str, object: &str, name: &str, what: String) -> PlanStep {
    PlanStep { action: action.to_owned(), object: object.to_owned(), name: name.to_owned(), what }
}

fn words(tunnel: &Tunnel) -> String {
    let words: Vec<_> = options(tunnel)
        .into_iter()
        .filter(|(key, _)| *key != "name")
        .map(|(key, value)| format!("{key} {}", word(&value)))
        .collect();
    words.join(" ")
}

/// Without the quotes and brackets that a config has.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.value().clone(),
        Value::Array(array) => array.iter().map(word).collect::<Vec<_>>().join(" + "),
        other => other.to_string(),
    }
}

fn differences(old: &Tunnel, new: &Tunnel) -> Vec<String> {
    let texts = |tunnel| -> BTreeMap<_, _> {
        options(tunnel).into_iter().map(|(key, value)| (key, word(&value))).collect()
    };
    let (before, after) = (texts(old), texts(new));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let text = |texts: &BTreeMap<_, String>, key| {
        texts.get(key).map_or("default", String::as_str).to_owned()
    };
    let mut lines: Vec<_> = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key} {} -> {}", text(&before, key), text(&after, key)))
        .collect();
    if !old.up && new.up {
        lines.push("kept in the config from now on".to_owned());
    }
    lines
}

fn ports_told(old: &Ports, new: &Ports) -> Vec<PlanStep> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let port = |action, name, what| step(action, "port", name, what);
    let mut steps: Vec<_> = names
        .into_iter()
        .filter_map(|name| match (old.get(name), new.get(name)) {
            (None, Some(new)) => Some(port(ADD, name, format!("xdp {new}"))),
            (Some(old), None) => Some(port(DELETE, name, format!("xdp {old}"))),
            (Some(old), Some(new)) if old != new => {
                Some(port(CHANGE, name, format!("xdp {old} -> {new}")))
            }
            _ => None,
        })
        .collect();
    match (old.is_empty(), new.is_empty()) {
        (true, false) => steps.push(port(DELETE, "*", "those that are not named".to_owned())),
        (false, true) => {
            let every = "every Ethernet interface that has an address";
            steps.push(port(ADD, "*", every.to_owned()));
        }
        _ => {}
    }
    steps
}

#[cfg(test)]
mod tests;
