//! A tunnel for unit tests.

use gre_ebpf_common::tunnel::{Ends, Expected, Outer, Tunnel};

use super::{
    oversize::Policy,
    tables::{Device, Sources, TunnelEntry},
};

pub const LOCAL: [u8; 4] = [192, 0, 2, 1];
pub const REMOTE: [u8; 4] = [198, 51, 100, 1];
pub const DEVICE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub fn ends() -> Ends {
    Ends::v4(u32::from_ne_bytes(LOCAL), u32::from_ne_bytes(REMOTE))
}

/// `LOCAL` to `REMOTE` without a key, pmtudisc, over an underlay with an MTU of 1500 bytes.
pub fn entry() -> TunnelEntry {
    TunnelEntry {
        record: Tunnel::new(Outer { ttl: 64, ..Outer::new(ends()) }, Expected::default()),
        name: "tunnel0".to_owned(),
        local: LOCAL.into(),
        remote: REMOTE.into(),
        leg: false,
        received_key: None,
        sent_key: None,
        underlay_mtu: 1500,
        device: Device { ifindex: 7, mac: DEVICE_MAC, peer_ifindex: 8, peer_mac: PEER_MAC },
        policy: Policy { pmtudisc: true, ignore_df: false },
        sources: Sources { v4: Some([10, 1, 0, 1].into()), v6: None },
    }
}
