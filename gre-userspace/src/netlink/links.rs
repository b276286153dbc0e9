//! Links: their dump (RTM_GETLINK), and changes to one.

use std::collections::BTreeMap;

use netlink_packet_core::{
    DecodeError, NlasIterator, parse_i32, parse_u8, parse_u16, parse_u16_be, parse_u32,
};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use nix::libc::{AF_INET, AF_INET6, AF_UNSPEC, ENODEV, EOPNOTSUPP};
use rtnetlink::LinkUnspec;

use super::{
    Kernel, NetlinkError, bridges, device, features, kernel_tunnels,
    socket::{Dump, attribute, split, text, word},
    traffic_control,
};
use crate::{
    model::{DeviceSettings, mac_text},
    observed::{AttachedXdp, Bridge, BridgePort, KernelTunnel, Link, Vlan},
};

// linux/rtnetlink.h, linux/netconf.h
const RTM_GETLINK: u16 = 18;
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_IFINDEX_ALL: i32 = -1;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_SKB: u8 = 2;

// linux/ip.h; the array in IFLA_INET_CONF has no element for index 0.
const IPV4_DEVCONF_FORWARDING: usize = 1;
const IPV4_DEVCONF_RP_FILTER: usize = 8;

// linux/ipv6.h
const DEVCONF_DISABLE_IPV6: usize = 26;
const DEVCONF_FORCE_FORWARDING: usize = 59;

const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

// linux/if.h, linux/if_arp.h
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const ARPHRD_ETHER: u16 = 1;

pub(super) async fn read(kernel: &Kernel) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut dump = Dump::route("links", RTM_GETLINK, AF_UNSPEC, 16);
    dump.body.extend(attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
    let links = dump.read(parse).await?;

    // After the links: one made in between would otherwise look like one without features.
    let features = features::read(kernel).await?;
    let rp_filter_of_all =
        setting_of_all("IPv4 device settings", AF_INET, NETCONFA_RP_FILTER).await? as u8;
    let forwarding6_of_all =
        setting_of_all("IPv6 device settings", AF_INET6, NETCONFA_FORWARDING).await? != 0;

    let netfilter = bridges::netfilter_sees_bridges();

    let mut links: BTreeMap<u32, Link> = links
        .into_iter()
        .map(|(mut link, settings6)| {
            if let Some(bridge) = &mut link.bridge {
                bridge.netfilter |= netfilter;
            }
            link.xdp_features =
                features.as_ref().and_then(|features| features.get(&link.ifindex).copied());
            link.rp_filter = link.rp_filter.max(rp_filter_of_all);
            link.forwarding6 =
                !settings6.disabled && (forwarding6_of_all || settings6.force_forwarding);
            (link.ifindex, link)
        })
        .collect();
    finish_tunnels(&mut links).await?;
    Ok(links)
}

/// Puts into the kernel's tunnels what their own messages do not tell.
async fn finish_tunnels(links: &mut BTreeMap<u32, Link>) -> Result<(), NetlinkError> {
    if links.values().all(|link| link.tunnel.is_none()) {
        return Ok(());
    }
    let mut queues = traffic_control::queues().await?;
    let below = |link: &Link| Some((link.ifindex, link.link?));
    let tunnels = links.values().filter(|link| link.tunnel.is_some());
    let bound: BTreeMap<u32, String> = tunnels
        .filter_map(below)
        .filter_map(|(ifindex, below)| Some((ifindex, links.get(&below)?.name.clone())))
        .collect();
    for link in links.values_mut() {
        let Some(kernel) = &mut link.tunnel else { continue };
        kernel.tunnel.name.clone_from(&link.name);
        kernel.tunnel.dev = bound.get(&link.ifindex).cloned();
        kernel.qdisc = queues.remove(&link.ifindex);
        kernel.filtered = match traffic_control::filters(link.ifindex).await {
            Ok(filters) => !filters.is_empty(),
            // It has gone since.
            Err(error) if error.errno() == Some(ENODEV) => false,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

impl Kernel {
    pub async fn delete_link(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).build();
        self.change(
            || format!("delete the device {}", device(ifindex)),
            RouteNetlinkMessage::DelLink(message),
            0,
        )
        .await
    }

    /// Of a tunnel device, set the peer's as well: a veth does not deliver more than its peer's.
    pub async fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(
            || format!("set the MTU of the device {} to {mtu}", device(ifindex)),
            LinkUnspec::new_with_index(ifindex).mtu(mtu).build(),
        )
        .await
    }

    pub async fn set_up(&self, ifindex: u32, up: bool) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex);
        let (word, message) = if up { ("up", message.up()) } else { ("down", message.down()) };
        self.set_link(|| format!("set the device {} {word}", device(ifindex)), message.build())
            .await
    }

    /// All in one request.
    pub async fn set_device(
        &self,
        ifindex: u32,
        settings: DeviceSettings,
    ) -> Result<(), NetlinkError> {
        let DeviceSettings { up, mtu, mac } = settings;
        let mut message = LinkUnspec::new_with_index(ifindex);
        let mut words = String::new();
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
            words.push_str(&format!(" mtu {mtu}"));
        }
        if let Some(mac) = mac {
            message = message.address(mac.to_vec());
            words.push_str(&format!(" address {}", mac_text(&mac)));
        }
        if let Some(up) = up {
            message = if up { message.up() } else { message.down() };
            words.push_str(if up { " up" } else { " down" });
        }
        self.set_link(|| format!("set the device {}{words}", device(ifindex)), message.build())
            .await
    }

    /// At most 255 bytes; an empty one takes the alias away.
    pub async fn set_alias(&self, ifindex: u32, alias: &str) -> Result<(), NetlinkError> {
        self.set_link(
            || format!("set the alias of the device {} to \"{alias}\"", device(ifindex)),
            LinkUnspec::new_with_index(ifindex).alias(alias).build(),
        )
        .await
    }

    pub(super) async fn set_link(
        &self,
        attempt: impl Fn() -> String,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        self.change(attempt, RouteNetlinkMessage::SetLink(message), 0).await
    }
}

/// net.ipvN.conf.all.SETTING, over netlink because what /proc shows depends on the thread. 0 where
/// the kernel has no such family.
async fn setting_of_all(
    what: &'static str,
    family: i32,
    setting: u16,
) -> Result<i32, NetlinkError> {
    let dump = Dump::route(what, RTM_GETNETCONF, family, 4);
    let values = dump.read(|payload| {
        let (_, attributes) = split::<4>(payload)?;
        let mut of_all = false;
        let mut found = 0;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NETCONFA_IFINDEX => of_all = parse_i32(value)? == NETCONFA_IFINDEX_ALL,
                kind if kind == setting => found = parse_i32(value)?,
                _ => {}
            }
        }
        Ok(of_all.then_some(found))
    });
    match values.await {
        Ok(values) => Ok(values.into_iter().max().unwrap_or(0)),
        Err(error) if error.errno() == Some(EOPNOTSUPP) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Settings in net.ipv6.conf.IF.
#[derive(Clone, Copy, Default)]
struct Settings6 {
    disabled: bool,
    force_forwarding: bool,
}

/// An RTM_NEWLINK: `struct ifinfomsg` and attributes. What other dumps tell is left at its default.
fn parse(payload: &[u8]) -> Result<Option<(Link, Settings6)>, DecodeError> {
    let (header, attributes) = split::<16>(payload)?;
    let link_layer = u16::from_ne_bytes([header[2], header[3]]);
    let flags = word(header, 8);
    let mut link = Link {
        ifindex: word(header, 4),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        kind: None,
        link: None,
        vlan: None,
        tunnel: None,
        master: None,
        bridge: None,
        bridge_port: None,
        alias: None,
        xdp: None,
        forwarding: false,
        forwarding6: false,
        rp_filter: 0,
        xdp_features: None,
    };
    let mut settings6 = Settings6 { disabled: true, force_forwarding: false };
    let mut link_is_elsewhere = false;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS if link_layer == ARPHRD_ETHER => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = parse_u32(value)?,
            IFLA_LINK => link.link = Some(parse_u32(value)?).filter(|ifindex| *ifindex != 0),
            IFLA_LINK_NETNSID => link_is_elsewhere = true,
            IFLA_MASTER => link.master = Some(parse_u32(value)?),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_LINKINFO => {
                let info = link_info(value)?;
                link.kind = info.kind;
                link.vlan = info.vlan;
                link.tunnel = info.tunnel.map(Box::new);
                link.bridge = info.bridge;
                link.bridge_port = info.bridge_port;
            }
            IFLA_XDP => link.xdp = attached_xdp(value)?,
            IFLA_AF_SPEC => {
                let ipv4 = settings(value, AF_INET, IFLA_INET_CONF)?;
                link.forwarding = ipv4.get(IPV4_DEVCONF_FORWARDING - 1).is_some_and(|on| *on != 0);
                link.rp_filter = ipv4.get(IPV4_DEVCONF_RP_FILTER - 1).map_or(0, |mode| *mode as u8);
                let ipv6 = settings(value, AF_INET6, IFLA_INET6_CONF)?;
                settings6.disabled = ipv6.get(DEVCONF_DISABLE_IPV6).is_none_or(|on| *on != 0);
                settings6.force_forwarding =
                    ipv6.get(DEVCONF_FORCE_FORWARDING).is_some_and(|on| *on != 0);
            }
            _ => {}
        }
    }
    if link_is_elsewhere {
        link.link = None;
        if let Some(kernel) = &mut link.tunnel {
            kernel.beyond.push("an underlay in another network namespace");
        }
    }
    Ok(Some((link, settings6)))
}

/// What a link's kind says of it, and its master's.
#[derive(Default)]
struct Info {
    kind: Option<String>,
    vlan: Option<Vlan>,
    tunnel: Option<KernelTunnel>,
    bridge: Option<Bridge>,
    bridge_port: Option<BridgePort>,
}

fn link_info(nested: &[u8]) -> Result<Info, DecodeError> {
    let mut info = Info::default();
    let (mut data, mut masters_kind, mut of_master) = (None, None, None);
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_INFO_KIND => info.kind = Some(text(value)),
            IFLA_INFO_DATA => data = Some(value.to_vec()),
            IFLA_INFO_SLAVE_KIND => masters_kind = Some(text(value)),
            IFLA_INFO_SLAVE_DATA => of_master = Some(value.to_vec()),
            _ => {}
        }
    }
    if let Some(data) = data {
        match info.kind.as_deref() {
            Some("vlan") => info.vlan = vlan(&data)?,
            Some("bridge") => info.bridge = Some(bridges::bridge(&data)?),
            Some(kind) => info.tunnel = kernel_tunnels::parse(kind, &data)?,
            None => {}
        }
    }
    if let Some(data) = of_master
        && masters_kind.as_deref() == Some("bridge")
    {
        info.bridge_port = Some(bridges::port(&data)?);
    }
    Ok(info)
}

fn vlan(data: &[u8]) -> Result<Option<Vlan>, DecodeError> {
    let (mut id, mut protocol) = (None, None);
    for attribute in NlasIterator::new(data) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_VLAN_ID => id = Some(parse_u16(attribute.value())?),
            IFLA_VLAN_PROTOCOL => protocol = Some(parse_u16_be(attribute.value())?),
            _ => {}
        }
    }
    Ok(id.zip(protocol).map(|(id, protocol)| Vlan { id, protocol }))
}

fn attached_xdp(nested: &[u8]) -> Result<Option<AttachedXdp>, DecodeError> {
    let mut generic = false;
    let mut only = None;
    let mut native = None;
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_XDP_ATTACHED => generic = parse_u8(value)? == XDP_ATTACHED_SKB,
            IFLA_XDP_PROG_ID => only = Some(parse_u32(value)?),
            IFLA_XDP_DRV_PROG_ID => native = Some(parse_u32(value)?),
            _ => {}
        }
    }
    // With programs in several modes at once there is no IFLA_XDP_PROG_ID, and the native one sees
    // the packets first.
    Ok(only.or(native).map(|program_id| AttachedXdp { program_id, generic }))
}

/// net.ipvN.conf.IF, in the kernel's order; empty for a device without the family.
fn settings(af_spec: &[u8], family: i32, kind: u16) -> Result<Vec<i32>, DecodeError> {
    for of_family in NlasIterator::new(af_spec) {
        let of_family = of_family?;
        if i32::from(of_family.kind()) != family {
            continue;
        }
        for attribute in NlasIterator::new(of_family.value()) {
            let attribute = attribute?;
            if attribute.kind() == kind {
                let (settings, _) = attribute.value().as_chunks::<4>();
                return Ok(settings.iter().map(|bytes| i32::from_ne_bytes(*bytes)).collect());
            }
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(link_layer: u16, attributes: &[Vec<u8>]) -> Link {
        let mut message = vec![0; 16];
        message[2..4].copy_from_slice(&link_layer.to_ne_bytes());
        message.extend(attributes.concat());
        parse(&message).unwrap().unwrap().0
    }

    #[test]
    fn a_hardware_address_is_a_mac_only_on_ethernet() {
        let address = [attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])];

        assert_eq!(link(ARPHRD_ETHER, &address).mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(link(772, &address).mac, None);
    }

    #[test]
    fn a_peer_in_another_namespace_is_no_link() {
        let peer = attribute(IFLA_LINK, &7u32.to_ne_bytes());
        let elsewhere = attribute(IFLA_LINK_NETNSID, &0i32.to_ne_bytes());

        assert_eq!(link(ARPHRD_ETHER, std::slice::from_ref(&peer)).link, Some(7));
        assert_eq!(link(ARPHRD_ETHER, &[peer, elsewhere]).link, None);
    }

    #[test]
    fn a_vlan_is_read_with_its_tag_and_nothing_else_is_taken_for_one() {
        let tagged = |kind: &[u8]| {
            let data = [
                attribute(IFLA_VLAN_ID, &7u16.to_ne_bytes()),
                attribute(IFLA_VLAN_PROTOCOL, &0x88a8_u16.to_be_bytes()),
            ];
            let info = [attribute(IFLA_INFO_KIND, kind), attribute(IFLA_INFO_DATA, &data.concat())];
            link(ARPHRD_ETHER, &[attribute(IFLA_LINKINFO, &info.concat())])
        };

        assert_eq!(tagged(b"vlan\0").vlan, Some(Vlan { id: 7, protocol: 0x88a8 }));
        assert_eq!(tagged(b"macvlan\0").vlan, None);
    }

    #[test]
    fn only_a_bridges_member_is_read_as_one() {
        let enslaved = |kind: &[u8]| {
            // IFLA_BRPORT_STATE, and of a bond's member something else (IFLA_BOND_SLAVE_STATE).
            let data = attribute(1, &[3]);
            let info =
                [attribute(IFLA_INFO_SLAVE_KIND, kind), attribute(IFLA_INFO_SLAVE_DATA, &data)];
            link(ARPHRD_ETHER, &[attribute(IFLA_LINKINFO, &info.concat())]).bridge_port
        };

        assert!(enslaved(b"bridge\0").is_some_and(|port| port.forwarding));
        assert_eq!(enslaved(b"bond\0"), None);
    }

    #[test]
    fn of_several_xdp_programs_the_native_one_is_reported() {
        const XDP_ATTACHED_MULTI: u8 = 4;
        const IFLA_XDP_SKB_PROG_ID: u16 = 6;
        let xdp = |attributes: &[Vec<u8>]| {
            link(ARPHRD_ETHER, &[attribute(IFLA_XDP, &attributes.concat())]).xdp
        };
        let id = |kind, id: u32| attribute(kind, &id.to_ne_bytes());

        assert_eq!(xdp(&[attribute(IFLA_XDP_ATTACHED, &[0])]), None);
        assert_eq!(
            xdp(&[
                attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_SKB]),
                id(IFLA_XDP_PROG_ID, 5),
                id(IFLA_XDP_SKB_PROG_ID, 5),
            ]),
            Some(AttachedXdp { program_id: 5, generic: true })
        );
        assert_eq!(
            xdp(&[
                attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_MULTI]),
                id(IFLA_XDP_SKB_PROG_ID, 5),
                id(IFLA_XDP_DRV_PROG_ID, 6),
            ]),
            Some(AttachedXdp { program_id: 6, generic: false })
        );
    }

    #[test]
    fn a_message_cut_short_is_an_error_not_half_a_link() {
        assert!(parse(&[0; 15]).is_err());
        assert!(parse(&[[0; 16].as_slice(), &[9, 0, 3, 0, b'e']].concat()).is_err());
    }
}
