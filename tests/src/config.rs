//! Config files for the daemons under test.

use std::fmt::Write as _;

use crate::topology::{FAR_LAN_OF_R1, FAR_LAN_OF_R2, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN};

/// How XDP is to run on the ports; every scenario must work with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xdp {
    Native,
    Generic,
    Off,
}

impl Xdp {
    fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

/// The config of a gateway: its tunnels, and the same XDP mode on each of its ports.
#[derive(Debug, Clone)]
pub struct Gateway {
    tunnels: Vec<Tunnel>,
    ports: Vec<String>,
    xdp: Option<Xdp>,
    adopt: Option<String>,
}

#[derive(Debug, Clone)]
struct Tunnel {
    name: String,
    mode: &'static str,
    local: String,
    remote: String,
    key: Option<u32>,
    /// Own addresses and the peer's, in the smallest prefix that has both.
    addresses: Vec<(String, String)>,
    routes: Vec<String>,
    /// As they are in the file, `csum = true` say.
    options: Vec<String>,
}

impl Gateway {
    /// One tunnel called `tunnel0`, without addresses and routes; ports as by default. Over IPv6 if
    /// its ends are.
    pub fn new(local: &str, remote: &str) -> Self {
        let tunnel = Tunnel {
            name: "tunnel0".into(),
            mode: if local.contains(':') || remote.contains(':') { "ip6gre" } else { "gre" },
            local: local.into(),
            remote: remote.into(),
            key: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            options: Vec::new(),
        };
        Self { tunnels: vec![tunnel], ports: Vec::new(), xdp: None, adopt: None }
    }

    /// For Ethernet frames (gretap, ip6gretap) in place of IP packets.
    pub fn ethernet(self) -> Self {
        self.each(|tunnel| {
            tunnel.mode = if tunnel.mode == "ip6gre" { "ip6gretap" } else { "gretap" };
        })
    }

    /// R1 and R2 of the document, NAT off (S5).
    pub fn both() -> [Self; 2] {
        [
            Self::new(R1_WAN, R2_WAN).address(R1_TUNNEL, R2_TUNNEL).routes(&[FAR_LAN_OF_R1]),
            Self::new(R2_WAN, R1_WAN).address(R2_TUNNEL, R1_TUNNEL).routes(&[FAR_LAN_OF_R2]),
        ]
    }

    /// Ports only, for tunnels that are added by command.
    pub fn without_tunnels() -> Self {
        Self { tunnels: Vec::new(), ports: Vec::new(), xdp: None, adopt: None }
    }

    /// Which tunnels of the kernel's own: a value in TOML.
    pub fn adopt(mut self, value: &str) -> Self {
        self.adopt = Some(value.into());
        self
    }

    pub fn name(self, name: &str) -> Self {
        self.each(|tunnel| tunnel.name = name.into())
    }

    pub fn key(self, key: Option<u32>) -> Self {
        self.each(|tunnel| tunnel.key = key)
    }

    pub fn address(self, own: &str, peer: &str) -> Self {
        self.each(|tunnel| tunnel.addresses.push((own.into(), peer.into())))
    }

    /// Without addresses and routes.
    pub fn without_places(self) -> Self {
        self.each(|tunnel| {
            tunnel.addresses.clear();
            tunnel.routes.clear();
        })
    }

    /// Lines of the file, such as `csum = true`.
    pub fn options(self, lines: &[&str]) -> Self {
        self.each(|tunnel| tunnel.options.extend(lines.iter().map(ToString::to_string)))
    }

    pub fn routes(self, routes: &[&str]) -> Self {
        self.each(|tunnel| tunnel.routes.extend(routes.iter().map(ToString::to_string)))
    }

    pub fn ports(mut self, ports: &[&str]) -> Self {
        self.ports = ports.iter().map(ToString::to_string).collect();
        self
    }

    /// Forces the mode on the ports, by default `wan` and `lan`.
    pub fn xdp(mut self, mode: Xdp) -> Self {
        if self.ports.is_empty() {
            self = self.ports(&["wan", "lan"]);
        }
        self.xdp = Some(mode);
        self
    }

    /// The other's tunnels as well.
    pub fn and(mut self, other: Self) -> Self {
        self.tunnels.extend(other.tunnels);
        self
    }

    /// The file.
    pub fn toml(&self) -> String {
        let adopt = self.adopt.as_ref().map(|value| format!("adopt = {value}\n"));
        let mut text = adopt.unwrap_or_default();
        for tunnel in &self.tunnels {
            tunnel.write(&mut text).expect("writing to a string");
        }
        for port in &self.ports {
            let mode = self.xdp.map_or("auto", Xdp::word);
            writeln!(text, "[[port]]\nname = \"{port}\"\nxdp = \"{mode}\"\n")
                .expect("writing to a string");
        }
        text
    }

    fn each(mut self, change: impl Fn(&mut Tunnel)) -> Self {
        self.tunnels.iter_mut().for_each(change);
        self
    }
}

impl Tunnel {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { name, mode, local, remote, .. } = self;
        writeln!(text, "[[tunnel]]\nname = \"{name}\"\nmode = \"{mode}\"")?;
        writeln!(text, "local = \"{local}\"\nremote = \"{remote}\"")?;
        if !self.options.iter().any(|line| line.starts_with("ttl")) {
            writeln!(text, "ttl = 245")?;
        }
        if let Some(key) = self.key {
            writeln!(text, "key = {key}")?;
        }
        for line in &self.options {
            writeln!(text, "{line}")?;
        }
        writeln!(text, "addresses = [")?;
        for (own, peer) in &self.addresses {
            let len = if own.contains(':') { 126 } else { 30 };
            writeln!(text, "  {{ local = \"{own}/{len}\", peer = \"{peer}/{len}\" }},")?;
        }
        writeln!(text, "]\nroutes = {:?}\n", self.routes)
    }
}
