//! A tunnel's device as `ip link` shows the kernel's own of the same options. Ours is a veth, which
//! `ip link` shows as what it is.

use std::net::{IpAddr, Ipv4Addr};

use crate::report::{LinkInfo, TunnelInfo};

/// A tunnel and its device.
pub struct Device<'a> {
    pub tunnel: &'a TunnelInfo,
    pub link: &'a LinkInfo,
}

// linux/if.h
const IFF_UP: u32 = 1;
const IFF_BROADCAST: u32 = 1 << 1;
const IFF_POINTOPOINT: u32 = 1 << 4;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_MULTICAST: u32 = 1 << 12;

/// In the order in which iproute2 prints them (print_link_flags in ip/ipaddress.c).
const FLAGS: [(u32, &str); 18] = [
    (1 << 3, "LOOPBACK"),
    (IFF_BROADCAST, "BROADCAST"),
    (IFF_POINTOPOINT, "POINTOPOINT"),
    (IFF_MULTICAST, "MULTICAST"),
    (1 << 7, "NOARP"),
    (1 << 9, "ALLMULTI"),
    (1 << 8, "PROMISC"),
    (1 << 10, "MASTER"),
    (1 << 11, "SLAVE"),
    (1 << 2, "DEBUG"),
    (1 << 15, "DYNAMIC"),
    (1 << 14, "AUTOMEDIA"),
    (1 << 13, "PORTSEL"),
    (1 << 5, "NOTRAILERS"),
    (IFF_UP, "UP"),
    (1 << 16, "LOWER_UP"),
    (1 << 17, "DORMANT"),
    (1 << 18, "ECHO"),
];

impl<'a> Device<'a> {
    pub(super) fn is_ethernet(&self) -> bool {
        matches!(self.tunnel.mode.as_str(), "gretap" | "ip6gretap")
    }

    /// The underlay interface that it is bound to.
    pub(super) fn below(&self) -> Option<&'a str> {
        self.tunnel.dev.as_deref()
    }

    /// As the kernel's tunnel of these addresses has it (ip_tunnel_bind_dev, ip6gre_tnl_link_config).
    pub(super) fn is_point_to_point(&self) -> bool {
        let known =
            |address: &str| address.parse().is_ok_and(|address: IpAddr| !address.is_unspecified());
        let local = self.tunnel.mode != "ip6gre" || known(&self.tunnel.local);
        !self.is_ethernet() && local && known(&self.tunnel.remote)
    }

    pub(super) fn flags(&self) -> Vec<&'static str> {
        let mut flags = self.link.flags;
        if !self.is_ethernet() {
            flags &= !(IFF_BROADCAST | IFF_MULTICAST);
        }
        if self.is_point_to_point() {
            flags |= IFF_POINTOPOINT;
        }
        let no_carrier = flags & IFF_UP != 0 && flags & IFF_RUNNING == 0;
        let set = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
        let down = self.link.underlay_down.then_some("M-DOWN");
        no_carrier.then_some("NO-CARRIER").into_iter().chain(set).chain(down).collect()
    }

    /// A tunnel of the kernel's does not know whether it works.
    pub(super) fn state(&self) -> &'a str {
        match self.link.operstate.as_str() {
            "UP" => "UNKNOWN",
            state => state,
        }
    }

    pub(super) fn link_type(&self) -> &'static str {
        match self.tunnel.mode.as_str() {
            "gre" => "gre",
            "ip6gre" => "gre6",
            _ => "ether",
        }
    }

    pub(super) fn address(&self) -> &'a str {
        match &self.link.address {
            Some(address) if self.is_ethernet() => address,
            _ => &self.tunnel.local,
        }
    }

    pub(super) fn broadcast(&self) -> &'a str {
        match &self.link.broadcast {
            Some(address) if self.is_ethernet() => address,
            _ => &self.tunnel.remote,
        }
    }

    pub(super) fn group(&self) -> String {
        match self.link.group {
            0 => "default".to_owned(),
            group => group.to_string(),
        }
    }
}

/// As `ip link` shows keys.
pub(super) fn quad(key: u32) -> String {
    Ipv4Addr::from(key).to_string()
}
