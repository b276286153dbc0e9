//! Routing rules (RTM_GETRULE): only whether they are the kernel's own, and if not, whose.

use netlink_packet_core::{DecodeError, NlasIterator, parse_u8, parse_u32};
use nix::libc::{AF_INET, AF_INET6, EAFNOSUPPORT, EOPNOTSUPP};

use super::{
    NetlinkError,
    socket::{Dump, split, word},
};
use crate::observed::Rules;

// linux/rtnetlink.h, linux/fib_rules.h
const RTM_GETRULE: u16 = 34;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_L3MDEV: u16 = 19;
const FRA_PROTOCOL: u16 = 21;

/// (priority, table) of the rules that the kernel makes in every namespace.
const DEFAULT: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];
/// IPv6 has no default table.
const DEFAULT6: [(u32, u32); 2] = [(0, 255), (32766, 254)];

pub(super) async fn read() -> Result<Rules, NetlinkError> {
    of_family("IPv4 rules", AF_INET, &DEFAULT).await
}

pub(super) async fn read6() -> Result<Rules, NetlinkError> {
    of_family("IPv6 rules", AF_INET6, &DEFAULT6).await
}

async fn of_family(
    what: &'static str,
    family: i32,
    default: &[(u32, u32)],
) -> Result<Rules, NetlinkError> {
    match Dump::route(what, RTM_GETRULE, family, 12).read(parse).await {
        Ok(rules) => Ok(judge(&rules, default)),
        // A kernel without policy routing, or without IPv6.
        Err(error) if matches!(error.errno(), Some(EOPNOTSUPP | EAFNOSUPPORT)) => {
            Ok(Rules::Kernels)
        }
        Err(error) => Err(error),
    }
}

/// What rules in the kernel's order come to; one of the default ones may be missing.
fn judge(rules: &[Rule], default: &[(u32, u32)]) -> Rules {
    let others = rules.iter().copied().filter(|rule| *rule != Rule::Vrfs);
    let default = default.iter().map(|&(priority, table)| Rule::Table { priority, table });
    if !others.eq(default) {
        Rules::Others
    } else if rules.contains(&Rule::Vrfs) {
        Rules::Vrfs
    } else {
        Rules::Kernels
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Every packet to a table.
    Table { priority: u32, table: u32 },
    /// Packets of a VRF's members to its table.
    Vrfs,
    /// Whatever else.
    Other,
}

/// An RTM_NEWRULE: `struct fib_rule_hdr` and attributes.
fn parse(payload: &[u8]) -> Result<Option<Rule>, DecodeError> {
    let (header, attributes) = split::<12>(payload)?;
    let [_, destination_length, source_length, tos, table, _, _, action, ..] = *header;
    let mut plain = (destination_length, source_length, tos, action) == (0, 0, 0, FR_ACT_TO_TBL)
        && word(header, 8) & FIB_RULE_INVERT == 0;
    let mut table = u32::from(table);
    let (mut priority, mut vrfs) = (0, false);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            FRA_TABLE => table = parse_u32(value)?,
            FRA_PRIORITY => priority = parse_u32(value)?,
            // Always told; all ones is "no".
            FRA_SUPPRESS_PREFIXLEN => plain &= parse_u32(value)? == u32::MAX,
            FRA_L3MDEV => vrfs = parse_u8(value)? != 0,
            FRA_PROTOCOL => {}
            // A selector, perhaps of a kernel newer than this list.
            _ => plain = false,
        }
    }
    Ok(Some(match (plain, vrfs) {
        (true, false) => Rule::Table { priority, table },
        (true, true) => Rule::Vrfs,
        (false, _) => Rule::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn main_rule(flags: u32, more: &[Vec<u8>]) -> Rule {
        let mut message = vec![2, 0, 0, 0, 254, 0, 0, FR_ACT_TO_TBL];
        message.extend(flags.to_ne_bytes());
        message.extend(attribute(FRA_TABLE, &254u32.to_ne_bytes()));
        message.extend(attribute(FRA_PRIORITY, &32766u32.to_ne_bytes()));
        message.extend(attribute(FRA_SUPPRESS_PREFIXLEN, &u32::MAX.to_ne_bytes()));
        message.extend(more.concat());
        parse(&message).unwrap().unwrap()
    }

    #[test]
    fn a_selector_makes_even_a_default_rule_custom() {
        const FRA_FWMARK: u16 = 10;
        const FRA_OF_THE_FUTURE: u16 = 99;
        assert_eq!(main_rule(0, &[]), Rule::Table { priority: 32766, table: 254 });
        assert_eq!(main_rule(FIB_RULE_INVERT, &[]), Rule::Other);
        let mark = attribute(FRA_FWMARK, &1u32.to_ne_bytes());
        let vrfs = attribute(FRA_L3MDEV, &[1]);
        for more in [
            vec![mark.clone()],
            vec![mark, vrfs.clone()],
            vec![attribute(FRA_SUPPRESS_PREFIXLEN, &0u32.to_ne_bytes())],
            vec![attribute(FRA_OF_THE_FUTURE, &[1])],
        ] {
            assert_eq!(main_rule(0, &more), Rule::Other);
        }
        assert_eq!(main_rule(0, &[vrfs]), Rule::Vrfs);
    }

    #[test]
    fn the_rule_of_vrfs_is_told_from_rules_of_the_users() {
        let table = |(priority, table)| Rule::Table { priority, table };
        let [local, main, default] = DEFAULT.map(table);
        for (rules, expected) in [
            (&[local, main, default][..], Rules::Kernels),
            (&[local, Rule::Vrfs, main, default], Rules::Vrfs),
            (&[Rule::Vrfs, table((32765, 255)), main, default], Rules::Others),
            (&[local, Rule::Other, main, default], Rules::Others),
            (&[local, main], Rules::Others),
        ] {
            assert_eq!(judge(rules, &DEFAULT), expected, "{rules:?}");
        }
        assert_eq!(judge(&[local, main], &DEFAULT6), Rules::Kernels);
    }
}
