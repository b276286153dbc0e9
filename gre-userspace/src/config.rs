//! `/etc/xgre/xgre.toml`: what the user asks for, kept in a file. A mistake is answered with its
//! file, line and column, and with what was probably meant.

mod adopt;
mod check;
mod diagnostic;
mod import;
mod options;
mod save;
mod schema;
mod values;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    ops::Range,
    path::Path,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use self::{
    adopt::AdoptValue,
    check::bad_group,
    diagnostic::Source,
    values::{AddressValue, EncapLimit, End, Key, Label, Prefix, SegmentSize, Sequence, Tos, Ttl},
};
pub use self::{
    adopt::adopt,
    check::{Unfit, unfit, warnings},
    diagnostic::ConfigError,
    import::netdev,
    options::options,
    save::save,
    schema::schema,
};
pub(crate) use self::{check::bad_name, diagnostic::nearest};
use crate::model::{Desired, Limits, Mode, Netfilter, Tunnel, XdpMode};

/// Where `xgre run` looks when it is not told.
pub const DEFAULT_PATH: &str = "/etc/xgre/xgre.toml";

/// The text of a config file.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Reads and checks a config file.
pub fn read(path: &Path) -> Result<Desired, ConfigError> {
    parse(&path.display().to_string(), &text(path)?)
}

/// The same, and what is hardly meant goes to the log.
pub fn load(path: &Path) -> Result<Desired, ConfigError> {
    let desired = read(path)?;
    for warning in warnings(&desired) {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok(desired)
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
        adopt: file.adopt.0,
        told: Vec::new(),
        control_group: control_group(&source, file.control)?,
    })
}

/// The config of `xgre run`.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "xgre.toml")]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tunnel: Vec<TunnelTable>,
    #[serde(default)]
    port: Vec<PortTable>,
    /// GRE devices of the kernel's own that are accelerated: `"all"`, those to come too, or their names.
    #[serde(default)]
    #[schemars(schema_with = "schema::adopt")]
    adopt: AdoptValue,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    control: ControlTable,
}

/// A tunnel and its device. Keys mean what they mean to `ip tunnel` and `ip link`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TunnelTable {
    /// The name of its network device.
    #[schemars(schema_with = "schema::device")]
    name: Spanned<String>,
    #[serde(default = "gre")]
    #[schemars(with = "Mode")]
    mode: Mode,
    /// An address of the mode's family, or `any`.
    #[schemars(with = "String")]
    local: Spanned<End>,
    /// As `local`.
    #[schemars(with = "String")]
    remote: Spanned<End>,
    /// The underlay interface that it is bound to.
    #[schemars(schema_with = "schema::device")]
    dev: Option<Spanned<String>>,
    /// Outer TTL or hop limit; `inherit` copies the inner packet's.
    #[serde(default, alias = "hoplimit")]
    #[schemars(schema_with = "schema::ttl")]
    ttl: Ttl,
    /// Outer TOS byte or traffic class, a multiple of 4; `inherit` copies the inner packet's.
    #[serde(alias = "tclass")]
    #[schemars(schema_with = "schema::tos")]
    tos: Option<Spanned<Tos>>,
    /// Of both directions: a number or a dotted quad.
    #[schemars(schema_with = "schema::key")]
    key: Option<Key>,
    /// The key of received packets, where it differs.
    #[schemars(schema_with = "schema::key")]
    ikey: Option<Key>,
    /// The key of sent packets, where it differs.
    #[schemars(schema_with = "schema::key")]
    okey: Option<Key>,
    /// Checksums in both directions.
    #[serde(default)]
    csum: bool,
    /// Received packets must carry a checksum.
    icsum: Option<bool>,
    /// Sent packets carry a checksum.
    ocsum: Option<bool>,
    /// Sequence numbers in both directions.
    #[serde(default)]
    seq: bool,
    /// Received packets that are out of sequence are dropped.
    iseq: Option<bool>,
    /// Sent packets are numbered.
    oseq: Option<bool>,
    /// `rfc2890` takes packets without a number, which `linux` drops.
    #[serde(default, rename = "seq-mode")]
    #[schemars(schema_with = "schema::seq_mode")]
    seq_mode: Sequence,
    /// Set Don't Fragment on the outer packet.
    #[schemars(with = "Option<bool>")]
    pmtudisc: Option<Spanned<bool>>,
    /// Do not copy the inner packet's Don't Fragment.
    #[serde(rename = "ignore-df")]
    #[schemars(with = "Option<bool>")]
    ignore_df: Option<Spanned<bool>>,
    /// How many further encapsulations a sent packet may get, over IPv6.
    #[schemars(schema_with = "schema::encap_limit")]
    encaplimit: Option<Spanned<EncapLimit>>,
    /// Over IPv6; `inherit` copies the inner packet's.
    #[schemars(schema_with = "schema::flow_label")]
    flowlabel: Option<Spanned<Label>>,
    /// What TCP's segment size is lowered to: bytes, what fits (`auto`), or not at all (`off`).
    #[schemars(schema_with = "schema::mss")]
    mss: Option<SegmentSize>,
    /// Where rules of netfilter are on the way of its packets: `respect` leaves them to the kernel, and
    /// `bypass` accelerates them past the rules.
    #[serde(default)]
    #[schemars(with = "Netfilter")]
    netfilter: Netfilter,
    /// Of the device, in bytes; by default the underlay's less the encapsulation.
    #[schemars(schema_with = "schema::mtu")]
    mtu: Option<Spanned<u32>>,
    /// That the device gets.
    #[serde(default)]
    #[schemars(schema_with = "schema::addresses")]
    addresses: Vec<AddressValue>,
    /// Prefixes that are routed into the device.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    routes: Vec<Prefix>,
}

fn gre() -> Mode {
    Mode::Gre
}

/// An interface that packets are forwarded between. Without any, every Ethernet interface that has an
/// address is one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PortTable {
    #[schemars(schema_with = "schema::device")]
    name: Spanned<String>,
    #[serde(default)]
    #[schemars(with = "XdpMode")]
    xdp: XdpMode,
}

/// Sizes of the maps, fixed while the programs run.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    tunnels: Option<NonZeroU32>,
    next_hops: Option<NonZeroU32>,
    route_blocks: Option<NonZeroU32>,
    interfaces: Option<NonZeroU32>,
    route6_nodes: Option<NonZeroU32>,
    hosts6: Option<NonZeroU32>,
    vlans: Option<NonZeroU32>,
    fragments: Option<NonZeroU32>,
    fdb: Option<NonZeroU32>,
}

/// Who may do what by the control socket: everybody may look, and root may do everything.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ControlTable {
    /// The group whose members may do everything, too.
    #[schemars(schema_with = "schema::group")]
    group: Option<Spanned<String>>,
}

/// Whether there is such a group, only the machine knows that the daemon runs on.
fn control_group(source: &Source, table: ControlTable) -> Result<Option<String>, ConfigError> {
    let Some(group) = table.group else { return Ok(None) };
    match bad_group(group.get_ref()) {
        Some(reason) => Err(source.error(group.span(), reason)),
        None => Ok(Some(group.into_inner())),
    }
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
            route6_nodes: or(table.route6_nodes, default.route6_nodes),
            hosts6: or(table.hosts6, default.hosts6),
            vlans: or(table.vlans, default.vlans),
            fragments: or(table.fragments, default.fragments),
            fdb: or(table.fdb, default.fdb),
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
        if let Some((other, first)) =
            identities.insert(tunnel.identity(), (tunnel.name.clone(), name.clone()))
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
        fn value<T>(given: &Option<Spanned<T>>) -> Option<&T> {
            given.as_ref().map(Spanned::get_ref)
        }
        let key = |of_direction: &Option<Key>| {
            of_direction.as_ref().or(self.key.as_ref()).map(|key| key.0)
        };
        let end = |end: &Spanned<End>| end.get_ref().0.address(self.mode);
        let (local, remote) = (end(&self.local), end(&self.remote));
        Tunnel {
            dev: value(&self.dev).cloned(),
            ttl: self.ttl.0,
            tos: value(&self.tos).map_or(0, |tos| tos.0),
            ikey: key(&self.ikey),
            okey: key(&self.okey),
            icsum: self.icsum.unwrap_or(self.csum),
            ocsum: self.ocsum.unwrap_or(self.csum),
            iseq: self.iseq.unwrap_or(self.seq),
            oseq: self.oseq.unwrap_or(self.seq),
            seq_mode: self.seq_mode.0,
            pmtudisc: value(&self.pmtudisc).is_none_or(|&on| on),
            ignore_df: value(&self.ignore_df).is_some_and(|&on| on),
            encap_limit: value(&self.encaplimit).and_then(|limit| limit.0),
            flow_label: value(&self.flowlabel).map(|label| label.0).unwrap_or_default(),
            mss: self.mss.as_ref().map(|mss| mss.0).unwrap_or_default(),
            netfilter: self.netfilter,
            mtu: value(&self.mtu).copied(),
            addresses: self.addresses.iter().map(|address| address.0).collect(),
            routes: self.routes.iter().map(|prefix| prefix.0).collect(),
            up: true,
            ..Tunnel::new(self.name.get_ref(), self.mode, local, remote)
        }
    }

    /// Where the value of `key` stands; the tunnel's name where it is left out.
    fn span_of(&self, key: &str) -> Range<usize> {
        fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        let span = match key {
            "local" => Some(self.local.span()),
            "remote" => Some(self.remote.span()),
            "dev" => span(&self.dev),
            "tos" => span(&self.tos),
            "pmtudisc" => span(&self.pmtudisc),
            "ignore-df" => span(&self.ignore_df),
            "encaplimit" => span(&self.encaplimit),
            "flowlabel" => span(&self.flowlabel),
            "mtu" => span(&self.mtu),
            _ => None,
        };
        span.unwrap_or(self.name.span())
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
