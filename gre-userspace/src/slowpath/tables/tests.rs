use super::{super::testing::entry, *};

const LOCAL: &str = "192.0.2.1";
const REMOTE: &str = "198.51.100.1";
const IFINDEX: u32 = 3;

fn tables(tunnels: &[(&str, &str, Option<u32>)]) -> Tables {
    let entries = tunnels.iter().enumerate().map(|(id, (local, remote, key))| {
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        let mut entry = TunnelEntry { local, remote, received_key: *key, ..entry() };
        let flags = entry.record.flags;
        entry.record.flags = flags.with(Flags::LOCAL_ANY, local.is_unspecified());
        (id as u32, entry)
    });
    Tables::new(entries.collect())
}

fn receiver(tables: &Tables, local: &str, remote: &str, key: Option<u32>) -> Option<u32> {
    let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
    tables.receiver(false, local, remote, key, IFINDEX).map(|(id, _)| id)
}

#[test]
fn the_kernels_order_of_preference_holds() {
    let tables = tables(&[
        ("0.0.0.0", "0.0.0.0", None),
        (LOCAL, "0.0.0.0", None),
        ("0.0.0.0", REMOTE, None),
        (LOCAL, REMOTE, None),
        (LOCAL, REMOTE, Some(0)),
    ]);
    assert_eq!(receiver(&tables, LOCAL, REMOTE, None), Some(3));
    assert_eq!(receiver(&tables, LOCAL, REMOTE, Some(0)), Some(4));
    assert_eq!(receiver(&tables, "192.0.2.2", REMOTE, None), Some(2));
    assert_eq!(receiver(&tables, LOCAL, "198.51.100.2", None), Some(1));
    assert_eq!(receiver(&tables, "192.0.2.2", "198.51.100.2", Some(0)), Some(0));
    assert_eq!(receiver(&tables, LOCAL, REMOTE, Some(1)), None);
}

#[test]
fn a_tunnel_bound_to_the_interface_comes_first_and_one_bound_to_another_last() {
    let bound = |link, any_local| {
        let mut tunnel = entry();
        tunnel.record.link = link;
        tunnel.record.flags = tunnel.record.flags.with(Flags::LOCAL_ANY, any_local);
        tunnel
    };
    let mut tunnels = BTreeMap::from([(1, bound(IFINDEX + 1, false))]);
    assert_eq!(receiver(&Tables::new(tunnels.clone()), LOCAL, REMOTE, None), Some(1));
    tunnels.insert(2, bound(0, false));
    assert_eq!(receiver(&Tables::new(tunnels.clone()), LOCAL, REMOTE, None), Some(2));
    tunnels.insert(3, bound(IFINDEX, true));
    assert_eq!(receiver(&Tables::new(tunnels), LOCAL, REMOTE, None), Some(3));
}

#[test]
fn a_leg_is_not_found_by_what_it_receives() {
    let leg = TunnelEntry { leg: true, ..entry() };
    let tables = Tables::new(BTreeMap::from([(1, leg)]));
    assert_eq!(receiver(&tables, LOCAL, REMOTE, None), None);
    assert_eq!(tables.towards(REMOTE.parse().unwrap()).count(), 1);
}

#[test]
fn over_ipv6_a_key_of_zero_is_none() {
    let tables = tables(&[("fd00::1", "fd00::2", Some(0))]);
    assert_eq!(receiver(&tables, "fd00::1", "fd00::2", None), Some(0));
    assert_eq!(receiver(&tables, "fd00::1", "fd00::2", Some(0)), Some(0));
    assert_eq!(receiver(&tables, "fd00::1", "fd00::2", Some(1)), None);
}

#[test]
fn all_tunnels_to_a_remote_are_found() {
    let tables = tables(&[
        (LOCAL, REMOTE, None),
        (LOCAL, "198.51.100.2", None),
        (LOCAL, REMOTE, Some(1)),
        (LOCAL, "0.0.0.0", None),
    ]);
    let towards = |remote: &str| -> Vec<u32> {
        tables.towards(remote.parse().unwrap()).map(|(id, _)| id).collect()
    };
    assert_eq!(towards(REMOTE), [0, 2]);
    assert_eq!(towards("0.0.0.0"), [0u32; 0]);
}
