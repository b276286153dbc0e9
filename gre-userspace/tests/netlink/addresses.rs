use std::collections::BTreeMap;

use gre_userspace::{model::Address, netlink::Added};
use nix::libc::EEXIST;

use crate::{by_name, in_namespace, ip};

#[test]
fn addresses_are_read_with_their_peers_in_the_kernels_order() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("addr add 192.0.2.9/24 dev veth0");
        ip("addr add 192.0.2.3/24 dev veth0");
        ip("addr add 10.0.0.1 peer 10.0.0.2/30 dev veth0");
        ip("addr add 2001:db8::1/64 dev veth0");
        ip("addr add 2001:db8:1::1 peer 2001:db8:1::2/64 dev veth0");

        let snapshot = kernel.snapshot().await.unwrap();

        // Primary addresses come before secondary ones.
        let veth0 = by_name(&snapshot)["veth0"].ifindex;
        let expected = [
            address("192.0.2.9/24", None),
            address("10.0.0.1/32", Some("10.0.0.2/30")),
            address("192.0.2.3/24", None),
            // The kernel puts the newest first.
            address("2001:db8:1::1/128", Some("2001:db8:1::2/64")),
            address("2001:db8::1/64", None),
        ];
        assert_eq!(snapshot.addresses, BTreeMap::from([(veth0, expected.to_vec())]));
    });
}

#[test]
fn an_address_that_is_there_is_told_from_one_in_its_way() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        let plain = address("10.0.0.1/24", None);
        let with_peer = address("10.1.0.1/32", Some("10.1.0.2/24"));
        let other_peer = address("10.1.0.1/32", Some("10.1.0.3/24"));
        let add = |address| kernel.add_address(device.ifindex, address);

        assert_eq!(add(plain).await.unwrap(), Added::Now);
        assert_eq!(add(plain).await.unwrap(), Added::Before);
        assert_eq!(add(with_peer).await.unwrap(), Added::Now);
        assert_eq!(add(with_peer).await.unwrap(), Added::Before);
        assert_eq!(add(other_peer).await.unwrap_err().errno(), Some(EEXIST));

        let addresses = kernel.snapshot().await.unwrap().addresses;
        assert_eq!(addresses[&device.ifindex], [plain, with_peer]);
        assert!(!ip("addr show tunnel0").contains("brd 10."), "no broadcast address");

        kernel.delete_address(device.ifindex, with_peer).await.unwrap();
        kernel.delete_address(device.ifindex, plain).await.unwrap();
        assert_eq!(kernel.snapshot().await.unwrap().addresses, BTreeMap::new());
        let error = kernel.delete_address(device.ifindex, plain).await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot delete the address 10.0.0.1/24 of the device tunnel0: "),
            "{error}"
        );
        assert!(error.ends_with("`ip addr show` lists the addresses there are"), "{error}");
    });
}

#[test]
fn an_ipv6_address_that_is_there_is_told_from_one_in_its_way() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        let plain = address("2001:db8::1/64", None);
        let other_length = address("2001:db8::1/56", None);
        let with_peer = address("2001:db8:1::1/128", Some("2001:db8:1::2/64"));
        let add = |address| kernel.add_address(device.ifindex, address);

        assert_eq!(add(plain).await.unwrap(), Added::Now);
        assert_eq!(add(plain).await.unwrap(), Added::Before);
        assert_eq!(add(with_peer).await.unwrap(), Added::Now);
        assert_eq!(add(with_peer).await.unwrap(), Added::Before);
        assert_eq!(add(other_length).await.unwrap_err().errno(), Some(EEXIST));

        let shown = ip("-6 addr show tunnel0");
        assert!(
            shown.contains("inet6 2001:db8:1::1 peer 2001:db8:1::2/64 scope global"),
            "{shown}"
        );
        assert!(shown.contains("inet6 2001:db8::1/64 scope global"), "{shown}");

        kernel.delete_address(device.ifindex, with_peer).await.unwrap();
        kernel.delete_address(device.ifindex, plain).await.unwrap();
        assert_eq!(kernel.snapshot().await.unwrap().addresses, BTreeMap::new());
    });
}

fn address(local: &str, peer: Option<&str>) -> Address {
    Address { local: local.parse().unwrap(), peer: peer.map(|peer| peer.parse().unwrap()) }
}
