//! The interface on the wire: method names, parameters and errors. Replies are of
//! [`crate::report`]. Parameters may be added when they are optional; none changes its meaning.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use zlink::introspect::{self, CustomType, Type};

use crate::{
    config::unfit,
    daemon::handle::Refusal,
    model::{Mode, Tunnel},
    report::{PortInfo, TunnelInfo},
};

/// A tunnel to add. Numbers and addresses are checked by the daemon rather than by their types, so
/// that a wrong one is answered in words instead of by hanging up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct TunnelSpec {
    /// The name of its network device, 1 to 15 bytes.
    pub name: String,
    /// `gre`, which is the default.
    pub mode: Option<String>,
    pub local: String,
    pub remote: String,
    /// 1 to 255; 0, the default, copies the inner packet's.
    pub ttl: Option<i64>,
    /// 0 to 255; bit 0 set copies the inner packet's. 0 is the default.
    pub tos: Option<i64>,
    /// 0 to 4294967295; without one, packets carry no key.
    pub key: Option<i64>,
    /// Set Don't Fragment on the outer packet, which is the default.
    pub pmtudisc: Option<bool>,
}

impl From<&Tunnel> for TunnelSpec {
    fn from(tunnel: &Tunnel) -> Self {
        Self {
            name: tunnel.name.clone(),
            mode: Some(tunnel.mode.to_string()),
            local: tunnel.local.to_string(),
            remote: tunnel.remote.to_string(),
            ttl: Some(tunnel.ttl.into()),
            tos: Some(tunnel.tos.into()),
            key: tunnel.key.map(Into::into),
            pmtudisc: Some(tunnel.pmtudisc),
        }
    }
}

impl TryFrom<TunnelSpec> for Tunnel {
    type Error = Error;

    fn try_from(spec: TunnelSpec) -> Result<Self, Error> {
        if let Some(mode) = spec.mode.filter(|mode| mode != "gre") {
            return Err(Error::invalid(format!("mode \"{mode}\" is not supported; use \"gre\"")));
        }
        let tunnel = Self {
            local: address("local", &spec.local)?,
            remote: address("remote", &spec.remote)?,
            ttl: number("ttl", spec.ttl)?.unwrap_or(0),
            tos: number("tos", spec.tos)?.unwrap_or(0),
            key: number("key", spec.key)?,
            name: spec.name,
            mode: Mode::Gre,
            pmtudisc: spec.pmtudisc.unwrap_or(true),
            mtu: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            up: false,
        };
        match unfit(&tunnel) {
            None => Ok(tunnel),
            Some(unfit) => Err(Error::invalid(unfit.reason)),
        }
    }
}

fn address(key: &str, text: &str) -> Result<Ipv4Addr, Error> {
    text.parse().map_err(|_| {
        Error::invalid(format!("{key}: an IP address is expected rather than \"{text}\""))
    })
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
    /// The kernel refused a step; what had been done is undone.
    KernelRefused { reason: String },
    /// Only root may change tunnels.
    RootRequired,
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
            Self::KernelRefused { reason } => f.write_str(reason),
            Self::RootRequired => {
                f.write_str("Operation not permitted\nonly root may change tunnels")
            }
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
