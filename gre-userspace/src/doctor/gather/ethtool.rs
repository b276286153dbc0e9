//! What a driver says of its device: features, queues, and counters, by ethtool's ioctl. Drivers' counters
//! have no netlink message, and so no crate; the rest comes by the same call.

use std::{collections::BTreeSet, io, os::fd::AsRawFd as _};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::doctor::{DeviceFacts, Queues};

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_STATS: u32 = 1;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// More strings than any driver has.
const MANY: u32 = 1 << 16;

/// What the driver says, as far as it does.
pub(super) fn device(name: &str) -> DeviceFacts {
    DeviceFacts {
        driver: driver(name).ok(),
        features: features(name).unwrap_or_default(),
        queues: queues(name).ok(),
        queue_packets: queue_packets(&counters(name).unwrap_or_default()),
        programs: Vec::new(),
    }
}

fn driver(name: &str) -> io::Result<String> {
    // `struct ethtool_drvinfo`: 196 bytes, of which the name is 4 to 36.
    let mut info = [0u32; 49];
    info[0] = ETHTOOL_GDRVINFO;
    call(name, &mut info)?;
    Ok(text(&bytes(&info[1..9])))
}

/// Names of the features that are on.
fn features(name: &str) -> io::Result<BTreeSet<String>> {
    let names = strings(name, ETH_SS_FEATURES)?;
    let blocks = names.len().div_ceil(32);
    // `struct ethtool_gfeatures`: two words, and for each 32 features four words, of which the third
    // has those that are active.
    let mut request = vec![0; 2 + 4 * blocks];
    (request[0], request[1]) = (ETHTOOL_GFEATURES, blocks as u32);
    call(name, &mut request)?;
    let is_on = |at: usize| request[2 + 4 * (at / 32) + 2] & 1 << (at % 32) != 0;
    Ok(names.into_iter().enumerate().filter(|(at, _)| is_on(*at)).map(|(_, name)| name).collect())
}

fn queues(name: &str) -> io::Result<Queues> {
    // `struct ethtool_channels`: how many there could be of rx, tx, other and combined, then how many
    // there are.
    let mut channels = [0u32; 9];
    channels[0] = ETHTOOL_GCHANNELS;
    call(name, &mut channels)?;
    let [_, max_rx, _, _, max_combined, rx, _, _, combined] = channels;
    let (used, possible) = (rx + combined, max_rx.max(max_combined));
    if used == 0 {
        return Err(io::Error::other("the driver names no receive queue"));
    }
    Ok(Queues { used, possible, combined: max_combined > 0 })
}

/// The driver's counters, by name.
fn counters(name: &str) -> io::Result<Vec<(String, u64)>> {
    let names = strings(name, ETH_SS_STATS)?;
    // `struct ethtool_stats`: two words, and 64 bits for each counter.
    let mut request = vec![0; 2 + 2 * names.len()];
    (request[0], request[1]) = (ETHTOOL_GSTATS, names.len() as u32);
    call(name, &mut request)?;
    let values = request[2..].chunks_exact(2).map(|pair| {
        let [low, high] = [pair[0], pair[1]].map(u32::to_ne_bytes);
        let mut value = [0; 8];
        value[..4].copy_from_slice(&low);
        value[4..].copy_from_slice(&high);
        u64::from_ne_bytes(value)
    });
    Ok(names.into_iter().zip(values).collect())
}

/// A set of names.
fn strings(name: &str, set: u32) -> io::Result<Vec<String>> {
    // `struct ethtool_sset_info`: which sets, in 64 bits, and how many strings each has.
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << set, 0, 0];
    call(name, &mut info)?;
    let count = info[4].min(MANY);
    if info[2] == 0 || count == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let words = count as usize * ETH_GSTRING_LEN / 4;
    let mut request = vec![0; 3 + words];
    request[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, set, count]);
    call(name, &mut request)?;
    Ok(bytes(&request[3..]).chunks_exact(ETH_GSTRING_LEN).map(text).collect())
}

/// One request, whose answer is written over it. It is long enough for as much as it asks for.
fn call(name: &str, request: &mut [u32]) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: request.as_mut_ptr().cast() };
    let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: the request starts with its command and the counts that the kernel goes by, and has room
    // for that much; both live until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut ifreq) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A string up to its NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Packets that each queue has received, in the names that drivers have for that: `rx_queue_0_packets`,
/// `rx0_packets`, `rx-0.packets`, `queue_0_rx_cnt`. Empty where no name is known.
fn queue_packets(counters: &[(String, u64)]) -> Vec<u64> {
    let mut queues: Vec<_> =
        counters.iter().filter_map(|(name, packets)| Some((queue_of(name)?, *packets))).collect();
    queues.sort_unstable();
    queues.dedup_by_key(|(queue, _)| *queue);
    queues.into_iter().map(|(_, packets)| packets).collect()
}

fn queue_of(name: &str) -> Option<u32> {
    const NAMES: [(&str, &str); 6] = [
        ("rx_queue_", "_packets"),
        ("rx_queue_", "_xdp_packets"),
        ("rx-", ".packets"),
        ("rx_", "_packets"),
        ("rx", "_packets"),
        ("queue_", "_rx_cnt"),
    ];
    NAMES
        .iter()
        .find_map(|(before, after)| name.strip_prefix(before)?.strip_suffix(after)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_counters_are_known_by_their_names() {
        for (name, queue) in [
            ("rx_queue_0_packets", Some(0)),
            ("rx_queue_3_xdp_packets", Some(3)),
            ("rx0_packets", Some(0)),
            ("rx-12.packets", Some(12)),
            ("queue_7_rx_cnt", Some(7)),
            ("rx_packets", None),
            ("rx_queue_0_bytes", None),
            ("tx_queue_0_packets", None),
            ("rx_queue_0_xdp_drops", None),
        ] {
            assert_eq!(queue_of(name), queue, "{name}");
        }
        let counter = |name: &str, packets| (name.to_owned(), packets);
        let counters =
            [counter("rx1_packets", 7), counter("peer_ifindex", 3), counter("rx0_packets", 5)];
        assert_eq!(queue_packets(&counters), [5, 7]);
    }

    /// Every namespace has one, with features but without counters.
    #[test]
    fn the_loopback_device_says_what_it_has() {
        let lo = device("lo");
        assert!(
            lo.features.contains("tx-nocache-copy") || lo.features.contains("loopback"),
            "{lo:?}"
        );
        assert_eq!((lo.queues, lo.queue_packets), (None, Vec::new()));
        assert_eq!(device("there is none"), DeviceFacts::default());
    }
}
