//! GRE tunnels of the kernel's own, which `ip tunnel` and `ip link` make (RTM_GETLINK).

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, NlasIterator, parse_u16, parse_u32_be};
use nix::libc::AF_UNSPEC;

use super::{
    NetlinkError,
    socket::{Dump, address, split, text},
};
use crate::model::Mode;

// linux/rtnetlink.h, linux/if_link.h, linux/if_tunnel.h
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_GRE_IFLAGS: u16 = 2;
const IFLA_GRE_IKEY: u16 = 4;
const IFLA_GRE_LOCAL: u16 = 6;
const IFLA_GRE_REMOTE: u16 = 7;
/// GRE_KEY, as a word in network byte order has it.
const KEY: u16 = 0x2000;

/// A GRE tunnel of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTunnel {
    pub name: String,
    pub mode: Mode,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub ikey: Option<u32>,
}

/// Those of the network namespace, without the fallback devices (`gre0`), which have neither address.
pub(crate) async fn kernel_tunnels() -> Result<Vec<KernelTunnel>, NetlinkError> {
    Dump::route("links", RTM_GETLINK, AF_UNSPEC, 16).read(parse).await
}

/// An RTM_NEWLINK: `struct ifinfomsg` and attributes.
fn parse(payload: &[u8]) -> Result<Option<KernelTunnel>, DecodeError> {
    let (_, attributes) = split::<16>(payload)?;
    let (mut name, mut found) = (String::new(), None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_IFNAME => name = text(attribute.value()),
            IFLA_LINKINFO => found = tunnel(attribute.value())?,
            _ => {}
        }
    }
    Ok(found.map(|tunnel| KernelTunnel { name, ..tunnel }))
}

fn tunnel(nested: &[u8]) -> Result<Option<KernelTunnel>, DecodeError> {
    let (mut kind, mut data) = (String::new(), None);
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_INFO_KIND => kind = text(attribute.value()),
            IFLA_INFO_DATA => data = Some(attribute.value().to_vec()),
            _ => {}
        }
    }
    let (Ok(mode), Some(data)) = (kind.parse::<Mode>(), data) else { return Ok(None) };
    let any = mode.any();
    let mut tunnel =
        KernelTunnel { name: String::new(), mode, local: any, remote: any, ikey: None };
    let (mut flags, mut key) = (0, 0);
    for attribute in NlasIterator::new(&data[..]) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_GRE_IFLAGS => flags = u16::from_be(parse_u16(attribute.value())?),
            IFLA_GRE_IKEY => key = parse_u32_be(attribute.value())?,
            IFLA_GRE_LOCAL => tunnel.local = address(attribute.value())?,
            IFLA_GRE_REMOTE => tunnel.remote = address(attribute.value())?,
            _ => {}
        }
    }
    tunnel.ikey = (flags & KEY != 0).then_some(key);
    let is_fallback = tunnel.local.is_unspecified() && tunnel.remote.is_unspecified();
    Ok((!is_fallback || tunnel.ikey.is_some()).then_some(tunnel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn message(kind: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
        let info = [attribute(IFLA_INFO_KIND, kind), attribute(IFLA_INFO_DATA, &data.concat())];
        let attributes =
            [attribute(IFLA_IFNAME, b"gre1\0"), attribute(IFLA_LINKINFO, &info.concat())];
        [vec![0; 16], attributes.concat()].concat()
    }

    #[test]
    fn a_tunnel_is_read_with_its_ends_and_key() {
        let ends = [
            attribute(IFLA_GRE_LOCAL, &[192, 0, 2, 1]),
            attribute(IFLA_GRE_REMOTE, &[198, 51, 100, 1]),
        ];
        let key = [
            attribute(IFLA_GRE_IFLAGS, &KEY.to_be_bytes()),
            attribute(IFLA_GRE_IKEY, &42u32.to_be_bytes()),
        ];
        let plain = KernelTunnel {
            name: "gre1".into(),
            mode: Mode::Gre,
            local: [192, 0, 2, 1].into(),
            remote: [198, 51, 100, 1].into(),
            ikey: None,
        };
        assert_eq!(parse(&message(b"gre\0", &ends)).unwrap(), Some(plain.clone()));
        let keyed = KernelTunnel { ikey: Some(42), ..plain };
        assert_eq!(parse(&message(b"gre\0", &[ends, key].concat())).unwrap(), Some(keyed));
    }

    #[test]
    fn fallback_devices_and_other_kinds_are_none() {
        let any = [attribute(IFLA_GRE_LOCAL, &[0; 4]), attribute(IFLA_GRE_REMOTE, &[0; 4])];
        assert_eq!(parse(&message(b"gre\0", &any)).unwrap(), None);
        assert_eq!(parse(&message(b"veth\0", &any)).unwrap(), None);
    }
}
