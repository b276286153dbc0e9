//! The interface on the wire: method names, parameters and errors. Replies are of
//! [`crate::report`]. Parameters may be added when they are optional; none changes its meaning.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use zlink::introspect::{self, CustomType, Type};

use crate::{
    config::unfit,
    daemon::handle::Refusal,
    model::{self, Address, Adoption, DeviceSettings, Endpoint, Mode, Tunnel, mac_text},
    report::{LinkInfo, PlanStep, PortInfo, TunnelInfo},
};

/// A tunnel to add, or what one is changed to. Numbers and addresses are checked by the daemon
/// rather than by their types, so that a wrong one is answered in words instead of by hanging up.
/// What is left out has the default of `ip tunnel add`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, CustomType)]
pub struct TunnelSpec {
    /// The name of its network device, 1 to 15 bytes.
    pub name: String,
    /// `gre`, which is the default, `ip6gre`, `gretap` or `ip6gretap`.
    pub mode: Option<String>,
    /// An address of the mode's family, or `any`.
    pub local: String,
    /// As `local`.
    pub remote: String,
    /// The underlay interface that it is bound to.
    pub dev: Option<String>,
    /// 1 to 255; 0 copies the inner packet's. The default is 0, and 64 over IPv6.
    pub ttl: Option<i64>,
    /// 0 to 255; bit 0 set copies the inner packet's. 0 is the default.
    pub tos: Option<i64>,
    /// 0 to 4294967295, of both directions; without one, packets carry no key.
    pub key: Option<i64>,
    /// The key of received packets, where it differs.
    pub ikey: Option<i64>,
    /// The key of sent packets, where it differs.
    pub okey: Option<i64>,
    /// Received packets must carry a checksum.
    pub icsum: Option<bool>,
    /// Sent packets carry a checksum.
    pub ocsum: Option<bool>,
    /// Received packets that are out of sequence are dropped.
    pub iseq: Option<bool>,
    /// Sent packets are numbered.
    pub oseq: Option<bool>,
    /// `linux`, which is the default, or `rfc2890`.
    pub seq_mode: Option<String>,
    /// Set Don't Fragment on the outer packet, which is the default.
    pub pmtudisc: Option<bool>,
    /// Do not copy the inner packet's Don't Fragment to the outer one.
    pub ignore_df: Option<bool>,
    /// 0 to 255, over IPv6; without one, no limit is sent.
    pub encap_limit: Option<i64>,
    /// Over IPv6: 0x0 to 0xfffff, hexadecimal, or `inherit`.
    pub flow_label: Option<String>,
    /// `auto`, a number of bytes, or `off`, which is the default.
    pub mss: Option<String>,
    /// `respect`, as by default, or `bypass`: what becomes of its packets where rules of netfilter are
    /// on their way.
    pub netfilter: Option<String>,
    /// The device's MTU in bytes; by default it follows the underlay's. Of a new tunnel only.
    pub mtu: Option<i64>,
    /// `LOCAL/LEN` or `LOCAL/LEN peer PEER/LEN`, which the device gets. Of a new tunnel only.
    pub addresses: Option<Vec<String>>,
    /// Prefixes that are routed into the device whenever it comes up. Of a new tunnel only.
    pub routes: Option<Vec<String>>,
}

impl From<&Tunnel> for TunnelSpec {
    fn from(tunnel: &Tunnel) -> Self {
        let texts = |texts: Vec<String>| (!texts.is_empty()).then_some(texts);
        Self {
            name: tunnel.name.clone(),
            mode: Some(tunnel.mode.to_string()),
            local: tunnel.local.to_string(),
            remote: tunnel.remote.to_string(),
            dev: tunnel.dev.clone(),
            ttl: Some(tunnel.ttl.into()),
            tos: Some(tunnel.tos.into()),
            key: None,
            ikey: tunnel.ikey.map(Into::into),
            okey: tunnel.okey.map(Into::into),
            icsum: Some(tunnel.icsum),
            ocsum: Some(tunnel.ocsum),
            iseq: Some(tunnel.iseq),
            oseq: Some(tunnel.oseq),
            seq_mode: Some(tunnel.seq_mode.to_string()),
            pmtudisc: Some(tunnel.pmtudisc),
            ignore_df: Some(tunnel.ignore_df),
            encap_limit: tunnel.encap_limit.map(Into::into),
            flow_label: Some(tunnel.flow_label.to_string()),
            mss: Some(tunnel.mss.to_string()),
            netfilter: Some(tunnel.netfilter.to_string()),
            mtu: tunnel.mtu.map(Into::into),
            addresses: texts(tunnel.addresses.iter().map(ToString::to_string).collect()),
            routes: texts(tunnel.routes.iter().map(ToString::to_string).collect()),
        }
    }
}

/// The tunnel as it is, for a change to start from.
impl From<&TunnelInfo> for TunnelSpec {
    fn from(info: &TunnelInfo) -> Self {
        Self {
            name: info.name.clone(),
            mode: Some(info.mode.clone()),
            local: info.local.clone(),
            remote: info.remote.clone(),
            dev: info.dev.clone(),
            ttl: Some(info.ttl.into()),
            tos: Some(info.tos.into()),
            key: None,
            ikey: info.ikey.map(Into::into),
            okey: info.okey.map(Into::into),
            icsum: Some(info.icsum),
            ocsum: Some(info.ocsum),
            iseq: Some(info.iseq),
            oseq: Some(info.oseq),
            seq_mode: Some(info.seq_mode.clone()),
            pmtudisc: Some(info.pmtudisc),
            ignore_df: Some(info.ignore_df),
            encap_limit: info.encap_limit.map(Into::into),
            flow_label: Some(info.flow_label.clone()),
            mss: Some(info.mss.clone()),
            netfilter: Some(info.netfilter.clone()),
            mtu: None,
            addresses: None,
            routes: None,
        }
    }
}

impl TryFrom<TunnelSpec> for Tunnel {
    type Error = Error;

    fn try_from(spec: TunnelSpec) -> Result<Self, Error> {
        let mode = match spec.mode {
            None => Mode::Gre,
            Some(mode) => mode.parse::<Mode>().map_err(Error::invalid)?,
        };
        let end = |key, text| read::<Endpoint>(key, text).map(|end| end.address(mode));
        let (local, remote) = (end("local", &spec.local)?, end("remote", &spec.remote)?);
        let default = Self::new(spec.name, mode, local, remote);
        let key = number("key", spec.key)?;
        let tunnel = Self {
            dev: spec.dev,
            ttl: number("ttl", spec.ttl)?.unwrap_or(default.ttl),
            tos: number("tos", spec.tos)?.unwrap_or(default.tos),
            ikey: number("ikey", spec.ikey)?.or(key),
            okey: number("okey", spec.okey)?.or(key),
            icsum: spec.icsum.unwrap_or(default.icsum),
            ocsum: spec.ocsum.unwrap_or(default.ocsum),
            iseq: spec.iseq.unwrap_or(default.iseq),
            oseq: spec.oseq.unwrap_or(default.oseq),
            seq_mode: text("seq_mode", spec.seq_mode)?.unwrap_or_default(),
            pmtudisc: spec.pmtudisc.unwrap_or(default.pmtudisc),
            ignore_df: spec.ignore_df.unwrap_or(default.ignore_df),
            encap_limit: number("encap_limit", spec.encap_limit)?,
            flow_label: text("flow_label", spec.flow_label)?.unwrap_or_default(),
            mss: text("mss", spec.mss)?.unwrap_or_default(),
            netfilter: text("netfilter", spec.netfilter)?.unwrap_or_default(),
            mtu: number("mtu", spec.mtu)?,
            addresses: each("addresses", spec.addresses, str::parse::<Address>)?,
            routes: each("routes", spec.routes, model::route)?,
            ..default
        };
        match unfit(&tunnel) {
            None => Ok(tunnel),
            Some(unfit) => Err(Error::invalid(unfit.reason)),
        }
    }
}

fn read<T: FromStr<Err = String>>(key: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|reason| Error::invalid(format!("{key}: {reason}")))
}

fn text<T: FromStr<Err = String>>(key: &str, text: Option<String>) -> Result<Option<T>, Error> {
    text.map(|text| read(key, &text)).transpose()
}

fn each<T>(
    key: &str,
    texts: Option<Vec<String>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Error> {
    let parse =
        |text: &String| parse(text).map_err(|reason| Error::invalid(format!("{key}: {reason}")));
    texts.iter().flatten().map(parse).collect()
}

fn number<T: TryFrom<i64>>(key: &str, number: Option<i64>) -> Result<Option<T>, Error> {
    number
        .map(|number| {
            T::try_from(number).map_err(|_| Error::invalid(format!("{key}: {number} does not fit")))
        })
        .transpose()
}

/// The reply of `Tunnels`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Tunnels {
    pub tunnels: Vec<TunnelInfo>,
}

/// What `ip link set` sets on the device of a tunnel; what is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, CustomType)]
pub struct LinkSettings {
    pub up: Option<bool>,
    /// In bytes.
    pub mtu: Option<i64>,
    /// Six bytes in hexadecimal with colons, of a tunnel of Ethernet.
    pub address: Option<String>,
}

impl From<DeviceSettings> for LinkSettings {
    fn from(DeviceSettings { up, mtu, mac }: DeviceSettings) -> Self {
        Self { up, mtu: mtu.map(Into::into), address: mac.map(|mac| mac_text(&mac)) }
    }
}

impl TryFrom<LinkSettings> for DeviceSettings {
    type Error = Error;

    fn try_from(settings: LinkSettings) -> Result<Self, Error> {
        let mac = settings.address.map(|text| {
            model::mac(&text)
                .ok_or_else(|| Error::invalid(format!("address: \"{text}\" is no MAC address")))
        });
        Ok(Self { up: settings.up, mtu: number("mtu", settings.mtu)?, mac: mac.transpose()? })
    }
}

/// The reply of `Links`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Links {
    pub links: Vec<LinkInfo>,
}

/// A tunnel of the kernel's own, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct AdoptSpec {
    /// Of its device, or `all`: those that are not named, and those to come.
    pub name: String,
    /// `respect` or `bypass`, where it is to be accelerated.
    pub netfilter: Option<String>,
}

impl From<&Adoption> for AdoptSpec {
    fn from(adoption: &Adoption) -> Self {
        let name = adoption.name().unwrap_or(Adoption::ALL).to_owned();
        Self { name, netfilter: adoption.netfilter.map(|netfilter| netfilter.to_string()) }
    }
}

impl TryFrom<AdoptSpec> for Adoption {
    type Error = Error;

    fn try_from(spec: AdoptSpec) -> Result<Self, Error> {
        Ok(Self::new(spec.name, text("netfilter", spec.netfilter)?))
    }
}

/// The reply of `Running`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Running {
    pub tunnels: Vec<TunnelSpec>,
    /// What the kernel's own tunnels are to be: all first, if all are, and then those that differ.
    pub adopt: Vec<AdoptSpec>,
}

/// The reply of `Apply`: what has been done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Applied {
    pub steps: Vec<PlanStep>,
}

/// The reply of `Ports`, by interface index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Ports {
    pub ports: Vec<PortInfo>,
}

/// Why a call changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, zlink::ReplyError, introspect::ReplyError)]
#[zlink(interface = "io.xgre.Control")]
pub enum Error {
    /// A tunnel with this name, or with the same local, remote and key, exists.
    TunnelExists { reason: String },
    /// No tunnel has this name.
    NoSuchTunnel { name: String },
    /// A parameter is wrong.
    InvalidTunnel { reason: String },
    /// A config cannot be read, or not be applied to what runs.
    InvalidConfig { reason: String },
    /// The kernel refused a step; what had been done is undone.
    KernelRefused { reason: String },
    /// The caller may only look; the reason says who may do more, and what to do.
    PermissionDenied { reason: String },
    /// The daemon is stopping.
    Stopping,
}

// By hand: zlink's derive copies the attributes that thiserror's would need into code of its own.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TunnelExists { reason } => write!(f, "File exists\n{reason}"),
            Self::NoSuchTunnel { name } => write!(
                f,
                "No such device\nno tunnel is called \"{name}\"; `xgre tunnel show` lists them"
            ),
            Self::InvalidTunnel { reason } => write!(f, "Invalid argument\n{reason}"),
            Self::KernelRefused { reason } | Self::InvalidConfig { reason } => f.write_str(reason),
            Self::PermissionDenied { reason } => write!(f, "Operation not permitted\n{reason}"),
            Self::Stopping => f.write_str("the daemon is stopping"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn invalid(reason: String) -> Self {
        Self::InvalidTunnel { reason }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Exists(reason) => Self::TunnelExists { reason },
            Refusal::NoSuchTunnel(name) => Self::NoSuchTunnel { name },
            Refusal::Invalid(reason) => Self::InvalidTunnel { reason },
            Refusal::Kernel(reason) => Self::KernelRefused { reason },
        }
    }
}
