//! The chains of the older iptables (`iptables-legacy`), which the kernel tells by socket options
//! only, and not when they change. Only tables that are there are asked for: asking for another would make it.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::observed::{FilterChain, FilterFamily, FilterHook};

// linux/netfilter_ipv4/ip_tables.h; those of ip6_tables.h are the same.
const IPT_SO_GET_INFO: libc::c_int = 64;
const IPT_SO_GET_ENTRIES: libc::c_int = 65;
const XT_TABLE_MAXNAMELEN: usize = 32;
/// `struct ipt_getinfo`: a name and 13 words, of which the first tells which hooks count.
const INFO_LEN: usize = XT_TABLE_MAXNAMELEN + 13 * 4;
const VALID_HOOKS: usize = XT_TABLE_MAXNAMELEN;
const HOOK_ENTRY: usize = VALID_HOOKS + 4;
const UNDERFLOW: usize = HOOK_ENTRY + 5 * 4;
const SIZE: usize = UNDERFLOW + 6 * 4;
/// `struct ipt_get_entries`, up to the entries.
const ENTRIES_HEADER: usize = 40;
/// Of a standard target, up to its verdict: `struct xt_entry_target`.
const TARGET_HEADER: usize = 32;
/// NF_DROP, as a verdict has it (`-NF_DROP - 1`).
const DROP: i32 = -1;

const HOOKS: [(u32, FilterHook, &str); 3] = [
    (0, FilterHook::Prerouting, "PREROUTING"),
    (2, FilterHook::Forward, "FORWARD"),
    (4, FilterHook::Postrouting, "POSTROUTING"),
];

/// One of the two families of tables.
struct Family {
    family: FilterFamily,
    /// Below /proc/net.
    names: &'static str,
    domain: AddressFamily,
    level: libc::c_int,
    /// Where an entry tells where its target is: behind `struct ipt_ip` and a word, or `ip6t_ip6`.
    target_offset: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        family: FilterFamily::Ip,
        names: "ip_tables_names",
        domain: AddressFamily::Inet,
        level: libc::IPPROTO_IP,
        target_offset: 88,
    },
    Family {
        family: FilterFamily::Ip6,
        names: "ip6_tables_names",
        domain: AddressFamily::Inet6,
        level: libc::IPPROTO_IPV6,
        target_offset: 140,
    },
];

/// Those that have rules or drop, of the calling thread's network namespace, in order.
pub(crate) fn chains() -> Vec<FilterChain> {
    let mut chains: Vec<_> = FAMILIES.iter().flat_map(Family::chains).collect();
    chains.sort();
    chains
}

impl Family {
    fn chains(&self) -> Vec<FilterChain> {
        // Not there where the kernel has no such tables, and empty where nobody has used them.
        let path = format!("/proc/thread-self/net/{}", self.names);
        let names = fs::read_to_string(path).unwrap_or_default();
        let tables = names.lines().map(|name| match self.table(name) {
            Ok(chains) => chains,
            Err(error) => {
                tracing::warn!("reading the iptables table {name}: {error}; it counts as rules");
                vec![self.chain(name, FilterHook::Forward, "FORWARD", 1, false)]
            }
        });
        tables.flatten().collect()
    }

    fn table(&self, name: &str) -> io::Result<Vec<FilterChain>> {
        let socket =
            socket(self.domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).or_else(|_| {
                let kind = SockType::Datagram;
                nix::sys::socket::socket(self.domain, kind, SockFlag::SOCK_CLOEXEC, None)
            })?;
        let mut info = vec![0; INFO_LEN];
        info[..name.len()].copy_from_slice(name.as_bytes());
        self.get(&socket, IPT_SO_GET_INFO, &mut info)?;
        let size = word(&info, SIZE)?;
        let mut entries = vec![0; ENTRIES_HEADER + size as usize];
        entries[..name.len()].copy_from_slice(name.as_bytes());
        entries[XT_TABLE_MAXNAMELEN..][..4].copy_from_slice(&size.to_ne_bytes());
        self.get(&socket, IPT_SO_GET_ENTRIES, &mut entries)?;
        self.parse(name, &info, &entries[ENTRIES_HEADER..])
    }

    /// `getsockopt`, whose value starts with the question.
    fn get(&self, socket: &OwnedFd, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
        let mut len = value.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, all of which are the slice's.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.level,
                option,
                value.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Each chain of a hook is a run of entries, whose last one, at its "underflow", is the policy.
    fn parse(&self, table: &str, info: &[u8], entries: &[u8]) -> io::Result<Vec<FilterChain>> {
        let valid = word(info, VALID_HOOKS)?;
        let mut chains = Vec::new();
        for (number, hook, name) in HOOKS {
            if valid & 1 << number == 0 {
                continue;
            }
            let of_hook = |base| word(info, base + 4 * number as usize);
            let (mut at, policy) = (of_hook(HOOK_ENTRY)?, of_hook(UNDERFLOW)?);
            let mut rules = 0;
            while at < policy {
                let len = half(entries, at as usize + self.target_offset + 2)?;
                if len == 0 {
                    return Err(cut_short());
                }
                at += u32::from(len);
                rules += 1;
            }
            let target = half(entries, policy as usize + self.target_offset)?;
            let verdict = word(entries, policy as usize + usize::from(target) + TARGET_HEADER)?;
            let drops = verdict.cast_signed() == DROP;
            if rules > 0 || drops {
                chains.push(self.chain(table, hook, name, rules, drops));
            }
        }
        Ok(chains)
    }

    fn chain(
        &self,
        table: &str,
        hook: FilterHook,
        name: &str,
        rules: u32,
        drops: bool,
    ) -> FilterChain {
        FilterChain {
            family: self.family,
            table: table.to_owned(),
            name: name.to_owned(),
            hook,
            legacy: true,
            rules,
            drops,
            devices: Vec::new(),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map(|word| u32::from_ne_bytes(*word)).ok_or_else(cut_short)
}

fn half(bytes: &[u8], at: usize) -> io::Result<u16> {
    let half = bytes.get(at..).and_then(<[u8]>::first_chunk);
    half.map(|half| u16::from_ne_bytes(*half)).ok_or_else(cut_short)
}

fn cut_short() -> io::Error {
    io::Error::other("the kernel's answer is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &Family = &FAMILIES[0];
    const ENTRY_LEN: usize = 152;

    /// A table whose forward chain has so many rules, and this policy.
    fn table(rules: usize, policy: i32) -> (Vec<u8>, Vec<u8>) {
        let mut info = vec![0; INFO_LEN];
        let policy_at = (rules * ENTRY_LEN) as u32;
        info[VALID_HOOKS..][..4].copy_from_slice(&(1u32 << 2).to_ne_bytes());
        info[UNDERFLOW + 8..][..4].copy_from_slice(&policy_at.to_ne_bytes());
        let mut entry = [0; ENTRY_LEN];
        entry[88..90].copy_from_slice(&112u16.to_ne_bytes());
        entry[90..92].copy_from_slice(&(ENTRY_LEN as u16).to_ne_bytes());
        let mut entries = entry.repeat(rules + 1);
        let verdict = rules * ENTRY_LEN + 112 + TARGET_HEADER;
        entries[verdict..][..4].copy_from_slice(&policy.to_ne_bytes());
        (info, entries)
    }

    fn found(rules: usize, policy: i32) -> Vec<FilterChain> {
        let (info, entries) = table(rules, policy);
        IPV4.parse("filter", &info, &entries).unwrap()
    }

    #[test]
    fn rules_are_counted_up_to_the_policy() {
        let accept = -2;
        assert_eq!(found(0, accept), []);
        let chain =
            |rules, drops| IPV4.chain("filter", FilterHook::Forward, "FORWARD", rules, drops);
        assert_eq!(found(2, accept), [chain(2, false)]);
        assert_eq!(found(0, DROP), [chain(0, true)]);
    }

    #[test]
    fn entries_that_do_not_add_up_are_an_error() {
        let (info, entries) = table(2, DROP);
        assert!(IPV4.parse("filter", &info, &entries[..ENTRY_LEN]).is_err());
        assert!(IPV4.parse("filter", &info, &vec![0; entries.len()]).is_err());
        assert!(IPV4.parse("filter", &info[..40], &entries).is_err());
    }
}
