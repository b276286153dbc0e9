//! IPv4 policy rules (RTM_GETRULE; linux/fib_rules.h).

use netlink_packet_core::{DecodeError, NlasIterator};
use nix::libc;

use super::{
    error::NetlinkError,
    socket::{Dump, split, word},
};

const RTM_GETRULE: u16 = 34;
/// struct fib_rule_hdr: family, destination and source length, TOS, table, two reserved bytes,
/// action, flags.
const HEADER: usize = 12;

const FRA_PRIORITY: u16 = 6;
/// The kernel always tells this one; -1 is none.
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FRA_PAD: u16 = 18;

const FR_ACT_TO_TBL: u8 = 1;

/// Priority and table of the rules that every namespace starts with.
const DEFAULTS: [(u32, u32); 3] = [(0, 255), (32_766, 254), (32_767, 253)];

/// Whether there are rules besides the kernel's own three, or one of those is missing.
pub(super) async fn are_custom() -> Result<bool, NetlinkError> {
    let rules = Dump::route("rules", RTM_GETRULE, libc::AF_INET, HEADER)
        .read(|payload| parse(payload).map(Some))
        .await?;
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_unstable();
    Ok(rules != DEFAULTS.map(Some))
}

/// Priority and table of a rule that does nothing but send to a table.
fn parse(payload: &[u8]) -> Result<Option<(u32, u32)>, DecodeError> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let selects = header[1] != 0 || header[2] != 0 || header[3] != 0;
    let mut plain = !selects && header[7] == FR_ACT_TO_TBL && word(header, 8) == 0;
    let (mut priority, mut table) = (0, u32::from(header[4]));
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            FRA_PRIORITY => priority = word(attribute.value(), 0),
            FRA_TABLE => table = word(attribute.value(), 0),
            FRA_SUPPRESS_PREFIXLEN => plain &= word(attribute.value(), 0) == u32::MAX,
            FRA_PROTOCOL | FRA_PAD => {}
            _ => plain = false,
        }
    }
    Ok(plain.then_some((priority, table)))
}
