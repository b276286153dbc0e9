//! The base chains of nftables, over netlink: `nft` need not be installed. The kernel says of each how
//! many rules it has, so that the rules themselves, which may be many, are not read.

use std::collections::BTreeSet;

use netlink_packet_core::{DecodeError, NlasIterator, parse_u32_be};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc::{EINVAL, EPROTONOSUPPORT};

use super::{
    NetlinkError,
    socket::{Dump, split, text},
};
use crate::observed::{FilterChain, FilterFamily, FilterHook};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
pub(crate) const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;

// linux/netfilter.h
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_BRIDGE: u8 = 7;
const NFPROTO_IPV6: u8 = 10;
const NF_DROP: u32 = 0;

/// Empty where the kernel has no nftables.
pub(super) async fn chains() -> Result<Vec<FilterChain>, NetlinkError> {
    let tables = dump("tables of nftables", NFT_MSG_GETTABLE).read(dormant_table).await;
    let dormant: BTreeSet<_> = where_there_is(tables)?.into_iter().collect();
    let chains = dump("chains of nftables", NFT_MSG_GETCHAIN).read(base_chain).await;
    Ok(where_there_is(chains)?
        .into_iter()
        .filter(|chain| chain.rules > 0 || chain.drops)
        .filter(|chain| !dormant.contains(&(chain.family, chain.table.clone())))
        .collect())
}

/// Whether a notification says that chains, or the number of their rules, have changed: of sets and
/// counters, which may change often, there are notifications too.
pub(crate) fn is_of_chains(message_type: u16) -> bool {
    [
        NFT_MSG_NEWTABLE,
        NFT_MSG_DELTABLE,
        NFT_MSG_NEWCHAIN,
        NFT_MSG_DELCHAIN,
        NFT_MSG_NEWRULE,
        NFT_MSG_DELRULE,
    ]
    .into_iter()
    .any(|message| message_type == NFNL_SUBSYS_NFTABLES << 8 | message)
}

fn dump(what: &'static str, message: u16) -> Dump {
    // `struct nfgenmsg` of no family, which is all of them.
    let body = vec![0; 4];
    let message_type = NFNL_SUBSYS_NFTABLES << 8 | message;
    Dump { what, protocol: NETLINK_NETFILTER, message_type, body }
}

/// Nothing, where the kernel was built or booted without.
fn where_there_is<T>(read: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match read {
        Err(error) if matches!(error.errno(), Some(EINVAL | EPROTONOSUPPORT)) => Ok(Vec::new()),
        read => read,
    }
}

/// A NFT_MSG_NEWTABLE, if the table is dormant: its chains do nothing.
fn dormant_table(payload: &[u8]) -> Result<Option<(FilterFamily, String)>, DecodeError> {
    let (header, attributes) = split::<4>(payload)?;
    let (mut name, mut flags) = (String::new(), 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NFTA_TABLE_NAME => name = text(attribute.value()),
            NFTA_TABLE_FLAGS => flags = parse_u32_be(attribute.value())?,
            _ => {}
        }
    }
    let dormant = flags & NFT_TABLE_F_DORMANT != 0;
    Ok(family(header[0]).filter(|_| dormant).map(|family| (family, name)))
}

/// A NFT_MSG_NEWCHAIN: `struct nfgenmsg` and attributes. None for a chain that no hook leads to, and for
/// one of packets that do not go through this host.
fn base_chain(payload: &[u8]) -> Result<Option<FilterChain>, DecodeError> {
    let (header, attributes) = split::<4>(payload)?;
    let (mut table, mut name) = (String::new(), String::new());
    let (mut hook, mut drops, mut rules) = (None, false, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NFTA_CHAIN_TABLE => table = text(value),
            NFTA_CHAIN_NAME => name = text(value),
            NFTA_CHAIN_HOOK => hook = Some(hooked(value)?),
            NFTA_CHAIN_POLICY => drops = parse_u32_be(value)? == NF_DROP,
            // References: a base chain is not jumped to, so that all of them are its rules.
            NFTA_CHAIN_USE => rules = parse_u32_be(value)?,
            _ => {}
        }
    }
    let place = family(header[0]).zip(hook);
    Ok(place.and_then(|(family, (number, devices))| {
        let hook = hook_of(family, number)?;
        Some(FilterChain { family, table, name, hook, legacy: false, rules, drops, devices })
    }))
}

/// NFTA_CHAIN_HOOK: the hook's number, and devices.
fn hooked(nested: &[u8]) -> Result<(u32, Vec<String>), DecodeError> {
    let (mut number, mut devices) = (u32::MAX, Vec::new());
    for attribute in NlasIterator::new(nested) {
        let attribute = attribute?;
        match attribute.kind() {
            NFTA_HOOK_HOOKNUM => number = parse_u32_be(attribute.value())?,
            NFTA_HOOK_DEV => devices = vec![text(attribute.value())],
            NFTA_HOOK_DEVS => {
                devices = NlasIterator::new(attribute.value())
                    .map(|device| device.map(|device| text(device.value())))
                    .collect::<Result<_, _>>()?;
            }
            _ => {}
        }
    }
    Ok((number, devices))
}

fn family(number: u8) -> Option<FilterFamily> {
    match number {
        NFPROTO_INET => Some(FilterFamily::Inet),
        NFPROTO_IPV4 => Some(FilterFamily::Ip),
        NFPROTO_IPV6 => Some(FilterFamily::Ip6),
        NFPROTO_BRIDGE => Some(FilterFamily::Bridge),
        NFPROTO_NETDEV => Some(FilterFamily::Netdev),
        _ => None,
    }
}

/// `enum nf_inet_hooks`, and of devices `enum nf_dev_hooks`.
fn hook_of(family: FilterFamily, number: u32) -> Option<FilterHook> {
    match (family, number) {
        (FilterFamily::Netdev, 0) | (FilterFamily::Inet, 5) => Some(FilterHook::Ingress),
        (FilterFamily::Netdev, 1) => Some(FilterHook::Egress),
        (FilterFamily::Netdev, _) => None,
        (_, 0) => Some(FilterHook::Prerouting),
        (_, 2) => Some(FilterHook::Forward),
        (_, 4) => Some(FilterHook::Postrouting),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    /// As the kernel tells of a chain: everything in network byte order.
    fn message(family: u8, hook: Option<u32>, more: &[Vec<u8>]) -> Vec<u8> {
        let hook = hook.map(|number| {
            let number = attribute(NFTA_HOOK_HOOKNUM, &number.to_be_bytes());
            let priority = attribute(2, &0u32.to_be_bytes());
            attribute(NFTA_CHAIN_HOOK, &[number, priority].concat())
        });
        let names =
            [attribute(NFTA_CHAIN_TABLE, b"filter\0"), attribute(NFTA_CHAIN_NAME, b"forward\0")];
        let header = vec![family, 0, 0, 0];
        [&[header], &names[..], hook.as_slice(), more].concat().concat()
    }

    fn number(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_be_bytes())
    }

    #[test]
    fn a_base_chain_is_read_with_its_rules_and_policy() {
        let more = [number(NFTA_CHAIN_POLICY, 0), number(NFTA_CHAIN_USE, 3)];
        let chain = base_chain(&message(NFPROTO_INET, Some(2), &more)).unwrap().unwrap();
        let expected = FilterChain {
            family: FilterFamily::Inet,
            table: "filter".into(),
            name: "forward".into(),
            hook: FilterHook::Forward,
            legacy: false,
            rules: 3,
            drops: true,
            devices: Vec::new(),
        };
        assert_eq!(chain, expected);
        assert_eq!(
            chain.to_string(),
            "chain forward of table inet filter (forward, 3 rules, policy drop)"
        );
        assert_eq!(chain.listing(), "nft list chain inet filter forward");
    }

    #[test]
    fn each_family_numbers_its_hooks() {
        use FilterHook::{Egress, Forward, Ingress, Postrouting, Prerouting};

        let hook = |family, number| {
            base_chain(&message(family, Some(number), &[])).unwrap().map(|chain| chain.hook)
        };
        for family in [NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_BRIDGE] {
            let found = [0, 1, 2, 3, 4].map(|number| hook(family, number));
            let expected = [Some(Prerouting), None, Some(Forward), None, Some(Postrouting)];
            assert_eq!(found, expected, "{family}");
        }
        assert_eq!(hook(NFPROTO_INET, 5), Some(Ingress));
        assert_eq!([0, 1, 2].map(|n| hook(NFPROTO_NETDEV, n)), [Some(Ingress), Some(Egress), None]);
        assert_eq!(hook(3, 0), None, "ARP is never forwarded");
    }

    #[test]
    fn a_chain_that_no_hook_leads_to_is_none() {
        let more = [number(NFTA_CHAIN_USE, 3)];
        assert_eq!(base_chain(&message(NFPROTO_IPV4, None, &more)).unwrap(), None);
    }

    #[test]
    fn the_devices_of_an_ingress_chain_are_read_in_both_ways_of_telling_them() {
        let hook = |devices: Vec<u8>| {
            let nested = [number(NFTA_HOOK_HOOKNUM, 0), devices].concat();
            let hook = attribute(NFTA_CHAIN_HOOK, &nested);
            let payload = message(NFPROTO_NETDEV, None, &[hook]);
            base_chain(&payload).unwrap().unwrap().devices
        };
        assert_eq!(hook(attribute(NFTA_HOOK_DEV, b"wan\0")), ["wan"]);
        let both = [attribute(1, b"wan\0"), attribute(1, b"lan\0")].concat();
        assert_eq!(hook(attribute(NFTA_HOOK_DEVS, &both)), ["wan", "lan"]);
    }

    #[test]
    fn dormant_tables_are_told_from_others() {
        let table = |flags: u32| {
            let name = attribute(NFTA_TABLE_NAME, b"filter\0");
            [vec![NFPROTO_IPV4, 0, 0, 0], name, number(NFTA_TABLE_FLAGS, flags)].concat()
        };
        assert_eq!(dormant_table(&table(0)).unwrap(), None);
        let dormant = Some((FilterFamily::Ip, "filter".to_owned()));
        assert_eq!(dormant_table(&table(NFT_TABLE_F_DORMANT)).unwrap(), dormant);
    }

    #[test]
    fn rules_and_chains_are_told_from_sets() {
        assert!([0xa00, 0xa02, 0xa03, 0xa05, 0xa06, 0xa08].into_iter().all(is_of_chains));
        assert!(![0xa09, 0xa0c, 0xa0f, 0x006, 0x106].into_iter().any(is_of_chains));
    }
}
