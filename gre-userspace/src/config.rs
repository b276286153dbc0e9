//! `/etc/xgre/xgre.toml`: what the user asks for, kept in a file. A mistake is answered with its
//! file, line and column, and with what was probably meant.

mod check;
mod diagnostic;
mod values;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    path::Path,
};

use serde::Deserialize;
use toml::Spanned;

pub(crate) use self::{check::bad_name, diagnostic::nearest};
pub use self::{
    check::{Unfit, unfit},
    diagnostic::ConfigError,
};
use self::{
    diagnostic::Source,
    values::{AddressValue, Ip, Key, Prefix, Tos, Ttl},
};
use crate::model::{Desired, Limits, Mode, Tunnel, XdpMode};

/// Where `xgre run` looks when it is not told.
pub const DEFAULT_PATH: &str = "/etc/xgre/xgre.toml";

/// Reads and checks a config file.
pub fn load(path: &Path) -> Result<Desired, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), &text)
}

/// Checks the text of a config file; `name` stands for it in errors.
pub fn parse(name: &str, text: &str) -> Result<Desired, ConfigError> {
    let source = Source::new(name, text);
    let file: File = toml::from_str(text).map_err(|error| source.toml(&error))?;
    let limits = file.limits.into();
    Ok(Desired {
        tunnels: tunnels(&source, file.tunnel, &limits)?,
        ports: ports(&source, file.port)?,
        limits,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tunnel: Vec<TunnelTable>,
    #[serde(default)]
    port: Vec<PortTable>,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TunnelTable {
    name: Spanned<String>,
    #[serde(default = "gre")]
    mode: Mode,
    local: Spanned<Ip>,
    remote: Spanned<Ip>,
    #[serde(default)]
    ttl: Ttl,
    #[serde(default)]
    tos: Tos,
    key: Option<Spanned<Key>>,
    #[serde(default = "yes")]
    pmtudisc: bool,
    mtu: Option<Spanned<u32>>,
    #[serde(default)]
    addresses: Vec<AddressValue>,
    #[serde(default)]
    routes: Vec<Prefix>,
}

fn gre() -> Mode {
    Mode::Gre
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortTable {
    name: Spanned<String>,
    #[serde(default)]
    xdp: XdpMode,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    tunnels: Option<NonZeroU32>,
    next_hops: Option<NonZeroU32>,
    route_blocks: Option<NonZeroU32>,
    interfaces: Option<NonZeroU32>,
}

impl From<LimitsTable> for Limits {
    fn from(table: LimitsTable) -> Self {
        let default = Self::default();
        let or = |given: Option<NonZeroU32>, default| given.map_or(default, NonZeroU32::get);
        Self {
            tunnels: or(table.tunnels, default.tunnels),
            next_hops: or(table.next_hops, default.next_hops),
            route_blocks: or(table.route_blocks, default.route_blocks),
            interfaces: or(table.interfaces, default.interfaces),
        }
    }
}

fn tunnels(
    source: &Source,
    tables: Vec<TunnelTable>,
    limits: &Limits,
) -> Result<BTreeMap<String, Tunnel>, ConfigError> {
    let mut tunnels = BTreeMap::new();
    let mut names = HashMap::new();
    let mut identities = HashMap::new();
    for table in tables {
        let name = table.name.span();
        let tunnel = table.tunnel();
        if let Some(unfit) = unfit(&tunnel) {
            return Err(source.error(table.span_of(unfit.key), unfit.reason));
        }
        if let Some(first) = names.insert(tunnel.name.clone(), name.clone()) {
            let reason = format!(
                "two tunnels are called `{}`, at lines {} and {}",
                tunnel.name,
                source.line(&first),
                source.line(&name)
            );
            return Err(source.clash(name, first, reason));
        }
        let identity = (tunnel.local, tunnel.remote, tunnel.key);
        if let Some((other, first)) =
            identities.insert(identity, (tunnel.name.clone(), name.clone()))
        {
            let reason = format!(
                "tunnels `{other}` (line {}) and `{}` (line {}) have the same local, remote and \
                 key: packets of one could not be told from the other's",
                source.line(&first),
                tunnel.name,
                source.line(&name)
            );
            return Err(source.clash(name, first, reason));
        }
        if tunnels.len() as u64 >= u64::from(limits.tunnels) {
            let reason = format!(
                "there are more tunnels than the limit of {}; raise `tunnels` in `[limits]`",
                limits.tunnels
            );
            return Err(source.error(name, reason));
        }
        tunnels.insert(tunnel.name.clone(), tunnel);
    }
    Ok(tunnels)
}

impl TunnelTable {
    fn tunnel(&self) -> Tunnel {
        Tunnel {
            name: self.name.get_ref().clone(),
            mode: self.mode,
            local: self.local.get_ref().0,
            remote: self.remote.get_ref().0,
            ttl: self.ttl.0,
            tos: self.tos.0,
            key: self.key.as_ref().map(|key| key.get_ref().0),
            pmtudisc: self.pmtudisc,
            mtu: self.mtu.as_ref().map(|mtu| *mtu.get_ref()),
            addresses: self.addresses.iter().map(|address| address.0).collect(),
            routes: self.routes.iter().map(|prefix| prefix.0.into()).collect(),
            up: true,
        }
    }

    /// Where the value of `key` stands; the tunnel's name where it is left out.
    fn span_of(&self, key: &str) -> std::ops::Range<usize> {
        match key {
            "local" => self.local.span(),
            "remote" => self.remote.span(),
            "mtu" => self.mtu.as_ref().map_or(self.name.span(), Spanned::span),
            _ => self.name.span(),
        }
    }
}

fn ports(
    source: &Source,
    tables: Vec<PortTable>,
) -> Result<BTreeMap<String, XdpMode>, ConfigError> {
    let mut ports = BTreeMap::new();
    let mut names = HashMap::new();
    for PortTable { name, xdp } in tables {
        let span = name.span();
        let name = name.into_inner();
        if let Some(reason) = bad_name(&name) {
            return Err(source.error(span, reason));
        }
        if let Some(first) = names.insert(name.clone(), span.clone()) {
            let reason = format!(
                "port `{name}` is given twice, at lines {} and {}",
                source.line(&first),
                source.line(&span)
            );
            return Err(source.clash(span, first, reason));
        }
        ports.insert(name, xdp);
    }
    Ok(ports)
}
