use nix::libc::EEXIST;

use crate::{by_name, in_namespace, ip};

#[test]
fn a_tunnel_device_is_made_as_a_quiet_pair_and_deleted_whole() {
    in_namespace(|kernel| async move {
        let device = kernel
            .create_tunnel_device("tunnel0", "xgre-0", 1476, "xgre tunnel", false)
            .await
            .unwrap();

        let links = kernel.snapshot().await.unwrap().links;
        let (tunnel, peer) = (&links[&device.ifindex], &links[&device.peer_ifindex]);
        assert_eq!((tunnel.name.as_str(), peer.name.as_str()), ("tunnel0", "xgre-0"));
        assert_eq!((tunnel.link, peer.link), (Some(peer.ifindex), Some(tunnel.ifindex)));
        assert_eq!((tunnel.mtu, peer.mtu), (1476, 65_535));
        assert_eq!((tunnel.up, peer.up), (false, true));
        assert_eq!((tunnel.alias.as_deref(), peer.alias.as_deref()), (Some("xgre tunnel"), None));
        for name in ["tunnel0", "xgre-0"] {
            let details = ip(&format!("-d link show {name}"));
            assert!(details.contains("NOARP"), "{details}");
            assert!(details.contains("addrgenmode none"), "{details}");
        }
        kernel.set_up(device.ifindex, true).await.unwrap();
        assert_eq!(ip("-6 addr show"), "", "no link-local addresses");

        kernel.delete_link(device.ifindex).await.unwrap();
        let names: Vec<_> = by_name(&kernel.snapshot().await.unwrap()).into_keys().collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn a_tunnel_device_that_cannot_be_finished_leaves_nothing_behind() {
    in_namespace(|kernel| async move {
        let too_long = "x".repeat(300);

        let error = kernel
            .create_tunnel_device("tunnel0", "xgre-0", 1476, &too_long, false)
            .await
            .unwrap_err();

        assert!(error.to_string().contains("the alias of the device tunnel0"), "{error}");
        let names: Vec<_> = by_name(&kernel.snapshot().await.unwrap()).into_keys().collect();
        assert_eq!(names, ["lo"]);
    });
}

#[test]
fn a_tunnel_device_does_not_take_the_place_of_another_device() {
    in_namespace(|kernel| async move {
        ip("link add tunnel0 type bridge");

        let error =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap_err();

        assert_eq!(error.errno(), Some(EEXIST));
        assert_eq!(
            error.to_string(),
            "cannot create the tunnel device tunnel0 with its peer xgre-0: File exists (os error \
             17); choose another name, or delete what has it"
        );
        let links = by_name(&kernel.snapshot().await.unwrap());
        assert_eq!(links["tunnel0"].kind.as_deref(), Some("bridge"));
        assert!(!links.contains_key("xgre-0"));
    });
}

#[test]
fn a_small_mtu_without_ipv6_is_no_obstacle() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 576, "", false).await.unwrap();

        assert_eq!(kernel.snapshot().await.unwrap().links[&device.ifindex].mtu, 576);
    });
}
