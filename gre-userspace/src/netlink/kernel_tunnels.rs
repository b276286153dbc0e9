//! What the kernel tells of its own GRE devices, which `ip tunnel` and `ip link` make: the
//! IFLA_INFO_DATA of RTM_NEWLINK.

use netlink_packet_core::{
    DecodeError, NlasIterator, parse_u8, parse_u16, parse_u32, parse_u32_be,
};

use super::socket::address;
use crate::{
    model::{FlowLabel, Mode, Tunnel},
    observed::KernelTunnel,
};

// linux/if_tunnel.h
const IFLA_GRE_IFLAGS: u16 = 2;
const IFLA_GRE_OFLAGS: u16 = 3;
const IFLA_GRE_IKEY: u16 = 4;
const IFLA_GRE_OKEY: u16 = 5;
const IFLA_GRE_LOCAL: u16 = 6;
const IFLA_GRE_REMOTE: u16 = 7;
const IFLA_GRE_TTL: u16 = 8;
const IFLA_GRE_TOS: u16 = 9;
const IFLA_GRE_PMTUDISC: u16 = 10;
const IFLA_GRE_ENCAP_LIMIT: u16 = 11;
const IFLA_GRE_FLOWINFO: u16 = 12;
const IFLA_GRE_FLAGS: u16 = 13;
const IFLA_GRE_ENCAP_TYPE: u16 = 14;
const IFLA_GRE_COLLECT_METADATA: u16 = 18;
const IFLA_GRE_IGNORE_DF: u16 = 19;
const IFLA_GRE_FWMARK: u16 = 20;
/// Of IFLA_GRE_IFLAGS and IFLA_GRE_OFLAGS, as words in network byte order have them.
const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;

// linux/ip6_tunnel.h
const IP6_TNL_F_IGN_ENCAP_LIMIT: u32 = 0x1;
const IP6_TNL_F_USE_ORIG_TCLASS: u32 = 0x2;
const IP6_TNL_F_USE_ORIG_FLOWLABEL: u32 = 0x4;
const IP6_TNL_F_RCV_DSCP_COPY: u32 = 0x10;
const IP6_TNL_F_USE_ORIG_FWMARK: u32 = 0x20;

/// The tunnel of a device of this kind, without its name and what it is bound to; none of another kind.
pub(super) fn parse(kind: &str, data: &[u8]) -> Result<Option<KernelTunnel>, DecodeError> {
    let Ok(mode) = kind.parse::<Mode>() else { return Ok(None) };
    let mut tunnel = Tunnel::new("", mode, mode.any(), mode.any());
    let (mut input, mut output, mut keys) = (0, 0, [0; 2]);
    let (mut flow, mut flags, mut limit) = (0, 0, 0);
    let mut beyond = Vec::new();
    for attribute in NlasIterator::new(data) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_GRE_IFLAGS => input = u16::from_be(parse_u16(value)?),
            IFLA_GRE_OFLAGS => output = u16::from_be(parse_u16(value)?),
            IFLA_GRE_IKEY => keys[0] = parse_u32_be(value)?,
            IFLA_GRE_OKEY => keys[1] = parse_u32_be(value)?,
            IFLA_GRE_LOCAL => tunnel.local = address(value)?,
            IFLA_GRE_REMOTE => tunnel.remote = address(value)?,
            IFLA_GRE_TTL => tunnel.ttl = parse_u8(value)?,
            IFLA_GRE_TOS => tunnel.tos = parse_u8(value)?,
            IFLA_GRE_PMTUDISC => tunnel.pmtudisc = parse_u8(value)? != 0,
            IFLA_GRE_IGNORE_DF => tunnel.ignore_df = parse_u8(value)? != 0,
            IFLA_GRE_ENCAP_LIMIT => limit = parse_u8(value)?,
            IFLA_GRE_FLOWINFO => flow = parse_u32_be(value)?,
            IFLA_GRE_FLAGS => flags = parse_u32(value)?,
            IFLA_GRE_ENCAP_TYPE if parse_u16(value)? != 0 => beyond.push("encap"),
            IFLA_GRE_COLLECT_METADATA => beyond.push("external"),
            IFLA_GRE_FWMARK if parse_u32(value)? != 0 => beyond.push("fwmark"),
            _ => {}
        }
    }
    tunnel.ikey = (input & KEY != 0).then_some(keys[0]);
    tunnel.okey = (output & KEY != 0).then_some(keys[1]);
    (tunnel.icsum, tunnel.ocsum) = (input & CHECKSUM != 0, output & CHECKSUM != 0);
    (tunnel.iseq, tunnel.oseq) = (input & SEQUENCE != 0, output & SEQUENCE != 0);
    if mode.is_over_ipv6() {
        let is_set = |flag| flags & flag != 0;
        tunnel.encap_limit = (!is_set(IP6_TNL_F_IGN_ENCAP_LIMIT)).then_some(limit);
        // The traffic class is in front of the label's 20 bits; bit 0 of `tos` stands for the inner one's.
        let class = (flow >> 20) as u8;
        tunnel.tos = if is_set(IP6_TNL_F_USE_ORIG_TCLASS) { 1 } else { class };
        tunnel.flow_label = match is_set(IP6_TNL_F_USE_ORIG_FLOWLABEL) {
            true => FlowLabel::Inherit,
            false => FlowLabel::Fixed(flow & FlowLabel::MAX),
        };
        let words = [
            (IP6_TNL_F_RCV_DSCP_COPY, "dscp inherit"),
            (IP6_TNL_F_USE_ORIG_FWMARK, "fwmark inherit"),
        ];
        beyond.extend(words.into_iter().filter(|(flag, _)| is_set(*flag)).map(|(_, word)| word));
    }
    Ok(Some(KernelTunnel { tunnel, beyond, qdisc: None, filtered: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn found(kind: &str, data: &[Vec<u8>]) -> KernelTunnel {
        parse(kind, &data.concat()).unwrap().unwrap()
    }

    fn ends() -> Vec<Vec<u8>> {
        vec![
            attribute(IFLA_GRE_LOCAL, &[192, 0, 2, 1]),
            attribute(IFLA_GRE_REMOTE, &[198, 51, 100, 1]),
            attribute(IFLA_GRE_PMTUDISC, &[1]),
        ]
    }

    fn plain() -> Tunnel {
        Tunnel::new("", Mode::Gre, [192, 0, 2, 1].into(), [198, 51, 100, 1].into())
    }

    #[test]
    fn a_tunnel_is_read_with_its_ends_and_options() {
        let as_it_is = found("gre", &ends());
        assert_eq!((as_it_is.tunnel, as_it_is.beyond), (plain(), vec![]));

        let mut data = ends();
        data.extend([
            attribute(IFLA_GRE_IFLAGS, &(KEY | CHECKSUM).to_be_bytes()),
            attribute(IFLA_GRE_OFLAGS, &(KEY | SEQUENCE).to_be_bytes()),
            attribute(IFLA_GRE_IKEY, &42u32.to_be_bytes()),
            attribute(IFLA_GRE_OKEY, &43u32.to_be_bytes()),
            attribute(IFLA_GRE_TTL, &[9]),
            attribute(IFLA_GRE_TOS, &[0xb9]),
            attribute(IFLA_GRE_PMTUDISC, &[0]),
            attribute(IFLA_GRE_IGNORE_DF, &[1]),
        ]);
        let expected = Tunnel {
            ikey: Some(42),
            okey: Some(43),
            icsum: true,
            oseq: true,
            ttl: 9,
            tos: 0xb9,
            pmtudisc: false,
            ignore_df: true,
            ..plain()
        };
        assert_eq!(found("gre", &data).tunnel, expected);
    }

    #[test]
    fn a_key_without_its_flag_is_none() {
        let mut data = ends();
        data.push(attribute(IFLA_GRE_IKEY, &42u32.to_be_bytes()));
        assert_eq!(found("gretap", &data).tunnel.ikey, None);
    }

    #[test]
    fn over_ipv6_class_and_label_are_of_one_word() {
        let data = |flags: u32| {
            vec![
                attribute(IFLA_GRE_TTL, &[64]),
                attribute(IFLA_GRE_ENCAP_LIMIT, &[4]),
                attribute(IFLA_GRE_FLOWINFO, &0x0b81_2345_u32.to_be_bytes()),
                attribute(IFLA_GRE_FLAGS, &flags.to_ne_bytes()),
            ]
        };
        let given = found("ip6gre", &data(IP6_TNL_F_IGN_ENCAP_LIMIT)).tunnel;
        assert_eq!((given.tos, given.flow_label), (0xb8, FlowLabel::Fixed(0x1_2345)));
        assert_eq!(given.encap_limit, None);
        let flags = IP6_TNL_F_USE_ORIG_TCLASS | IP6_TNL_F_USE_ORIG_FLOWLABEL;
        let copied = found("ip6gre", &data(flags)).tunnel;
        assert_eq!((copied.tos, copied.flow_label), (1, FlowLabel::Inherit));
        assert_eq!(copied.encap_limit, Some(4));
    }

    #[test]
    fn what_xgre_does_not_do_is_told() {
        let mut data = ends();
        data.extend([
            attribute(IFLA_GRE_ENCAP_TYPE, &1u16.to_ne_bytes()),
            attribute(IFLA_GRE_COLLECT_METADATA, &[]),
            attribute(IFLA_GRE_FWMARK, &7u32.to_ne_bytes()),
        ]);
        assert_eq!(found("gre", &data).beyond, ["encap", "external", "fwmark"]);
        let none = [attribute(IFLA_GRE_ENCAP_TYPE, &[0; 2]), attribute(IFLA_GRE_FWMARK, &[0; 4])];
        assert!(found("gre", &none).beyond.is_empty());
        let flags = IP6_TNL_F_RCV_DSCP_COPY | IP6_TNL_F_USE_ORIG_FWMARK;
        let copied = [attribute(IFLA_GRE_FLAGS, &flags.to_ne_bytes())];
        assert_eq!(found("ip6gre", &copied).beyond, ["dscp inherit", "fwmark inherit"]);
        assert_eq!(parse("erspan", &[]).unwrap(), None);
    }
}
