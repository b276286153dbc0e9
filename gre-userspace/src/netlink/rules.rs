//! Routing rules (RTM_GETRULE): only whether they are the kernel's own.

use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};
use nix::libc::{AF_INET, AF_INET6, EAFNOSUPPORT, EOPNOTSUPP};

use super::{
    NetlinkError,
    socket::{Dump, split, word},
};

// linux/rtnetlink.h, linux/fib_rules.h
const RTM_GETRULE: u16 = 34;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;

/// (priority, table) of the rules that the kernel makes in every namespace.
const DEFAULT: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];
/// IPv6 has no default table.
const DEFAULT6: [(u32, u32); 2] = [(0, 255), (32766, 254)];

/// Whether a look-up in the tables local, main and default is not the whole answer for IPv4.
pub(super) async fn custom() -> Result<bool, NetlinkError> {
    differ("IPv4 rules", AF_INET, &DEFAULT).await
}

/// Whether a look-up in the tables local and main is not the whole answer for IPv6.
pub(super) async fn custom6() -> Result<bool, NetlinkError> {
    differ("IPv6 rules", AF_INET6, &DEFAULT6).await
}

/// Whether there are more rules than the default ones, or one of those is gone.
async fn differ(
    what: &'static str,
    family: i32,
    default: &[(u32, u32)],
) -> Result<bool, NetlinkError> {
    match Dump::route(what, RTM_GETRULE, family, 12).read(parse).await {
        Ok(rules) => Ok(!rules.into_iter().eq(default.iter().copied().map(Some))),
        // A kernel without policy routing, or without IPv6.
        Err(error) if matches!(error.errno(), Some(EOPNOTSUPP | EAFNOSUPPORT)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An RTM_NEWRULE: `struct fib_rule_hdr` and attributes. (priority, table) of a rule that sends
/// every packet to a table; `Some(None)` for any other rule, whatever it has.
fn parse(payload: &[u8]) -> Result<Option<Option<(u32, u32)>>, DecodeError> {
    let (header, attributes) = split::<12>(payload)?;
    let [_, destination_length, source_length, tos, table, _, _, action, ..] = *header;
    let mut plain = (destination_length, source_length, tos, action) == (0, 0, 0, FR_ACT_TO_TBL)
        && word(header, 8) & FIB_RULE_INVERT == 0;
    let mut table = u32::from(table);
    let mut priority = 0;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            FRA_TABLE => table = parse_u32(value)?,
            FRA_PRIORITY => priority = parse_u32(value)?,
            // Always told; all ones is "no".
            FRA_SUPPRESS_PREFIXLEN => plain &= parse_u32(value)? == u32::MAX,
            FRA_PROTOCOL => {}
            // A selector, perhaps of a kernel newer than this list.
            _ => plain = false,
        }
    }
    Ok(Some(plain.then_some((priority, table))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn main_rule(flags: u32, more: &[Vec<u8>]) -> Option<(u32, u32)> {
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
        assert_eq!(main_rule(0, &[]), Some(DEFAULT[1]));
        assert_eq!(main_rule(FIB_RULE_INVERT, &[]), None);
        for more in [
            attribute(FRA_FWMARK, &1u32.to_ne_bytes()),
            attribute(FRA_SUPPRESS_PREFIXLEN, &0u32.to_ne_bytes()),
            attribute(FRA_OF_THE_FUTURE, &[1]),
        ] {
            assert_eq!(main_rule(0, &[more]), None);
        }
    }
}
