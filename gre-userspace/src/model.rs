//! What the user asks for: tunnels and ports, however they were given (config file, command line,
//! control socket). Words and defaults are iproute2's.

mod adopt;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::adopt::{Adopt, Adoption};

/// A tunnel as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The name of its network device, 1 to 15 bytes.
    pub name: String,
    pub mode: Mode,
    /// Unspecified (0.0.0.0 or ::) is any address; the family is the mode's.
    pub local: IpAddr,
    /// As `local`.
    pub remote: IpAddr,
    /// The underlay interface that the tunnel is bound to (`dev`).
    pub dev: Option<String>,
    /// Outer TTL or hop limit; 0 copies the inner packet's (`ttl inherit`).
    pub ttl: u8,
    /// Outer TOS byte or traffic class; bit 0 set copies the inner packet's (`tos inherit`), as in
    /// the kernel.
    pub tos: u8,
    /// Key that received packets must carry, in host byte order; without one they must carry none.
    pub ikey: Option<u32>,
    /// Key of sent packets, in host byte order.
    pub okey: Option<u32>,
    /// Received packets must carry a checksum; otherwise they must carry none.
    pub icsum: bool,
    /// Sent packets carry a checksum.
    pub ocsum: bool,
    /// Received packets that are out of sequence are dropped.
    pub iseq: bool,
    /// Sent packets are numbered.
    pub oseq: bool,
    pub seq_mode: SeqMode,
    /// Set Don't Fragment on the outer packet (`pmtudisc`, the default); always of IPv6.
    pub pmtudisc: bool,
    /// Do not copy the inner packet's Don't Fragment to the outer one.
    pub ignore_df: bool,
    /// How many further encapsulations a sent packet may get (RFC 2473, 4.1.1), in an IPv6 option
    /// of 8 bytes; `None` is `encaplimit none`. Over IPv6 only.
    pub encap_limit: Option<u8>,
    /// Over IPv6 only.
    pub flow_label: FlowLabel,
    pub mss: Mss,
    pub netfilter: Netfilter,
    /// Device MTU in bytes; by default the underlay's less the encapsulation.
    pub mtu: Option<u32>,
    /// Addresses that the daemon gives the device.
    pub addresses: Vec<Address>,
    /// Prefixes that the daemon routes into the device.
    pub routes: Vec<IpNet>,
    /// Bring the device up (config file); `xgre tunnel add` leaves that to `ip link set up`.
    pub up: bool,
}

/// What no two tunnels have in common: it tells whose a received packet is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Frames and IP packets are told apart by the protocol type.
    pub ethernet: bool,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub ikey: Option<u32>,
    pub dev: Option<String>,
}

impl Tunnel {
    /// A tunnel with all options as `ip tunnel add` leaves them, except that `encaplimit` is none.
    pub fn new(name: impl Into<String>, mode: Mode, local: IpAddr, remote: IpAddr) -> Self {
        Self {
            name: name.into(),
            mode,
            local,
            remote,
            dev: None,
            ttl: if mode.is_over_ipv6() { 64 } else { 0 },
            tos: 0,
            ikey: None,
            okey: None,
            icsum: false,
            ocsum: false,
            iseq: false,
            oseq: false,
            seq_mode: SeqMode::Linux,
            pmtudisc: true,
            ignore_df: false,
            encap_limit: None,
            flow_label: FlowLabel::default(),
            mss: Mss::Off,
            netfilter: Netfilter::Respect,
            mtu: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            up: false,
        }
    }

    /// Bytes that encapsulation adds to an IP packet: outer IP header with its option, GRE header,
    /// and the Ethernet header of a frame.
    pub fn overhead(&self) -> u32 {
        let ip = if self.mode.is_over_ipv6() { 40 } else { 20 };
        let ethernet = if self.mode.is_ethernet() { 14 } else { 0 };
        let option = if self.encap_limit.is_some() { 8 } else { 0 };
        let words = [self.ocsum, self.okey.is_some(), self.oseq];
        let gre = 4 + 4 * words.into_iter().filter(|&present| present).count() as u32;
        ip + option + gre + ethernet
    }

    pub fn identity(&self) -> Identity {
        Identity {
            ethernet: self.mode.is_ethernet(),
            local: self.local,
            remote: self.remote,
            ikey: self.ikey,
            dev: self.dev.clone(),
        }
    }
}

/// What a tunnel runs over, and what goes inside: IPv4 and IPv6 both, or Ethernet frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// GRE over IPv4.
    Gre,
    /// GRE over IPv6 (RFC 7676).
    Ip6gre,
    /// Ethernet in GRE over IPv4.
    Gretap,
    /// Ethernet in GRE over IPv6.
    Ip6gretap,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::Gre, Self::Ip6gre, Self::Gretap, Self::Ip6gretap];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::Ip6gre => "ip6gre",
            Self::Gretap => "gretap",
            Self::Ip6gretap => "ip6gretap",
        }
    }

    pub const fn is_over_ipv6(self) -> bool {
        matches!(self, Self::Ip6gre | Self::Ip6gretap)
    }

    /// Whether Ethernet frames go inside (protocol type 0x6558).
    pub const fn is_ethernet(self) -> bool {
        matches!(self, Self::Gretap | Self::Ip6gretap)
    }

    /// With the same inside, over the other IP version.
    pub const fn over_the_other(self) -> Self {
        match self {
            Self::Gre => Self::Ip6gre,
            Self::Ip6gre => Self::Gre,
            Self::Gretap => Self::Ip6gretap,
            Self::Ip6gretap => Self::Gretap,
        }
    }

    /// The address that stands for any.
    pub const fn any(self) -> IpAddr {
        if self.is_over_ipv6() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        }
    }

    pub fn has_family_of(self, address: IpAddr) -> bool {
        self.any().is_ipv4() == address.is_ipv4()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| format!("a mode is one of {modes}, not \"{text}\""))
    }
}

/// A tunnel's local or remote address, as given before the mode is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Any,
    Host(IpAddr),
}

impl Endpoint {
    pub(crate) fn address(self, mode: Mode) -> IpAddr {
        match self {
            Self::Any => mode.any(),
            Self::Host(address) => address,
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" | "all" | "default" => Ok(Self::Any),
            _ => text
                .parse()
                .map(Self::Host)
                .map_err(|_| format!("an IP address is expected rather than \"{text}\"")),
        }
    }
}

/// Which sequence numbers are accepted with `iseq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeqMode {
    /// As the kernel: a packet without a number is dropped.
    #[default]
    Linux,
    /// As RFC 2890: a packet without a number is in sequence.
    Rfc2890,
}

impl fmt::Display for SeqMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Rfc2890 => "rfc2890",
        })
    }
}

impl FromStr for SeqMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linux" => Ok(Self::Linux),
            "rfc2890" => Ok(Self::Rfc2890),
            _ => Err(format!("a seq-mode is linux or rfc2890, not \"{text}\"")),
        }
    }
}

/// The outer IPv6 header's flow label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowLabel {
    /// 20 bits.
    Fixed(u32),
    /// The inner packet's.
    Inherit,
}

impl FlowLabel {
    pub const MAX: u32 = 0xf_ffff;
}

impl Default for FlowLabel {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl fmt::Display for FlowLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(label) => write!(f, "{label:#07x}"),
            Self::Inherit => f.write_str("inherit"),
        }
    }
}

/// Numbers are hexadecimal, with or without `0x`, as for `ip tunnel`.
impl FromStr for FlowLabel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "inherit" {
            return Ok(Self::Inherit);
        }
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        match u32::from_str_radix(digits, 16) {
            Ok(label) if label <= Self::MAX => Ok(Self::Fixed(label)),
            _ => Err(format!("a flow label is 0x0 to 0xfffff or inherit, not \"{text}\"")),
        }
    }
}

/// The TCP maximum segment size that passing SYN packets are lowered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mss {
    /// They are left alone.
    #[default]
    Off,
    /// What the tunnel's MTU leaves.
    Auto,
    /// In bytes.
    Fixed(u16),
}

impl Mss {
    /// What the kernel's TCP takes (`TCP_MIN_MSS`), and what fits the longest packet, in bytes.
    pub const RANGE: std::ops::RangeInclusive<u16> = 88..=65_495;
}

impl fmt::Display for Mss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Fixed(bytes) => bytes.fmt(f),
        }
    }
}

impl FromStr for Mss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(bytes) if Self::RANGE.contains(&bytes) => Ok(Self::Fixed(bytes)),
                _ => Err(format!(
                    "an mss is auto, off, or {} to {} bytes, not \"{text}\"",
                    Self::RANGE.start(),
                    Self::RANGE.end()
                )),
            },
        }
    }
}

/// What `ip link set` sets on a tunnel's device; what is none stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceSettings {
    pub up: Option<bool>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Of a device for Ethernet.
    pub mac: Option<[u8; 6]>,
}

impl DeviceSettings {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Six bytes in hexadecimal, with colons between them.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let byte = |digits| u8::from_str_radix(digits, 16).ok();
    let bytes: Vec<_> = text.split(':').map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// As it is written: `02:00:00:00:00:01`.
pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// What becomes of a tunnel's packets where rules of netfilter are on their way through the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Netfilter {
    /// They go through the kernel, by those rules. Without rules they are accelerated.
    #[default]
    Respect,
    /// They are accelerated, and the rules do not see them.
    Bypass,
}

impl fmt::Display for Netfilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Respect => "respect",
            Self::Bypass => "bypass",
        })
    }
}

impl FromStr for Netfilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "respect" => Ok(Self::Respect),
            "bypass" => Ok(Self::Bypass),
            _ => Err(format!("netfilter is respect or bypass, not \"{text}\"")),
        }
    }
}

/// `ip addr add LOCAL [peer PEER]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    pub local: IpNet,
    pub peer: Option<IpNet>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            None => self.local.fmt(f),
            Some(peer) => write!(f, "{} peer {peer}", self.local),
        }
    }
}

/// `"LOCAL/LEN"` or `"LOCAL/LEN peer PEER/LEN"`.
impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            [local] => Self::of(prefix(local)?, None),
            [local, "peer", peer] => Self::of(prefix(local)?, Some(prefix(peer)?)),
            _ => Err(format!(
                "an address such as \"172.16.168.1/30\" or \"10.0.0.1/32 peer 10.0.0.2/32\" is \
                 expected rather than \"{text}\""
            )),
        }
    }
}

impl Address {
    pub(crate) fn of(local: IpNet, peer: Option<IpNet>) -> Result<Self, String> {
        match peer {
            Some(peer) if peer.addr().is_ipv4() != local.addr().is_ipv4() => {
                Err(format!("{local} and its peer {peer} are not of one family"))
            }
            _ => Ok(Self { local, peer }),
        }
    }
}

/// A prefix; no length is that of one host, as in `ip route`.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    text.parse().map_err(|_| format!("an IP prefix is expected rather than \"{text}\""))
}

/// A prefix to route: without host bits. `default` is 0.0.0.0/0.
pub(crate) fn route(text: &str) -> Result<IpNet, String> {
    let prefix = match text {
        "default" => IpNet::V4(Default::default()),
        text => prefix(text)?,
    };
    match prefix.trunc() {
        network if network == prefix => Ok(prefix),
        network => Err(format!("{prefix} has host bits set; did you mean {network}?")),
    }
}

/// How XDP runs on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    Native,
    Generic,
    /// No XDP: the TC programs do the work.
    Off,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// Sizes fixed when the maps are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub tunnels: u32,
    pub next_hops: u32,
    /// Second-level route blocks: one for each /24 that holds a longer prefix.
    pub route_blocks: u32,
    /// Highest interface index plus one.
    pub interfaces: u32,
    /// Nodes of the trie of IPv6 routes.
    pub route6_nodes: u32,
    /// IPv6 neighbours that are sent to.
    pub hosts6: u32,
    /// VLAN interfaces on ports.
    pub vlans: u32,
    /// Fragments of outer packets that wait for the other one: two kilobytes each.
    pub fragments: u32,
    /// Addresses behind bridges; of more than these the kernel takes care.
    pub fdb: u32,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        tunnels: 1024,
        next_hops: 65_536,
        route_blocks: 16_384,
        interfaces: 65_536,
        route6_nodes: 4096,
        hosts6: 16_384,
        vlans: 1024,
        fragments: 1024,
        fdb: 16_384,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Limits {
    /// Each by its config key.
    pub const fn named(&self) -> [(&'static str, u32); 9] {
        [
            ("tunnels", self.tunnels),
            ("next_hops", self.next_hops),
            ("route_blocks", self.route_blocks),
            ("interfaces", self.interfaces),
            ("route6_nodes", self.route6_nodes),
            ("hosts6", self.hosts6),
            ("vlans", self.vlans),
            ("fragments", self.fragments),
            ("fdb", self.fdb),
        ]
    }
}

/// Everything the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// By device name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Ports named in the config, by interface name. Where it is empty, every Ethernet interface
    /// that has an address is a port, and each that a bridge joins to a tunnel.
    pub ports: BTreeMap<String, XdpMode>,
    pub limits: Limits,
    /// As configured.
    pub adopt: Adopt,
    /// What commands have asked for since, from the first to the last.
    pub told: Vec<Adoption>,
    /// The group whose members may change what runs, by the control socket.
    pub control_group: Option<String>,
}

impl Desired {
    /// Which tunnels of the kernel's own are accelerated: the last word counts.
    pub fn adoption(&self) -> Adopt {
        self.told.iter().fold(self.adopt.clone(), Adopt::then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_on_output_costs_what_it_adds_to_the_packet() {
        let gre = Tunnel::new("t", Mode::Gre, Mode::Gre.any(), Mode::Gre.any());
        let all = Tunnel { okey: Some(0), ocsum: true, oseq: true, ..gre.clone() };
        let receiving = Tunnel { ikey: Some(0), icsum: true, iseq: true, ..gre.clone() };
        assert_eq!([&gre, &all, &receiving].map(Tunnel::overhead), [24, 36, 24]);

        let ip6gre = Tunnel::new("t", Mode::Ip6gre, Mode::Ip6gre.any(), Mode::Ip6gre.any());
        let limited = Tunnel { encap_limit: Some(4), ..ip6gre.clone() };
        assert_eq!([&ip6gre, &limited].map(Tunnel::overhead), [44, 52]);
        let gretap = Tunnel { mode: Mode::Gretap, ..gre.clone() };
        let ip6gretap = Tunnel { mode: Mode::Ip6gretap, ..limited.clone() };
        assert_eq!([&gretap, &ip6gretap].map(Tunnel::overhead), [38, 66]);
    }

    #[test]
    fn words_of_options_are_read_as_they_are_written() {
        for text in ["0x00000", "0x00abc", "0xfffff", "inherit"] {
            assert_eq!(text.parse::<FlowLabel>().unwrap().to_string(), text);
        }
        for text in ["off", "auto", "88", "65495"] {
            assert_eq!(text.parse::<Mss>().unwrap().to_string(), text);
        }
        for text in ["gre", "ip6gre", "gretap", "ip6gretap"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        for text in ["linux", "rfc2890"] {
            assert_eq!(text.parse::<SeqMode>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1/30", "2001:db8::1/64", "10.0.0.1/32 peer 10.0.0.2/31"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!("100000".parse::<FlowLabel>().is_err() && "0x".parse::<FlowLabel>().is_err());
        assert!("87".parse::<Mss>().is_err() && "65496".parse::<Mss>().is_err());
        assert!("10.0.0.1 peer fd00::1".parse::<Address>().is_err());
        assert!(route("10.0.0.1/24").is_err() && route("fd00::1/64").is_err());
    }
}
