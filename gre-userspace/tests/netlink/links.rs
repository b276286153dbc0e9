use std::path::Path;

use gre_userspace::{
    netlink::Kernel,
    observed::{Link, Vlan, xdp_features::NDO_XMIT},
};
use nix::libc::EPERM;

use crate::{by_name, in_namespace, ip, sysctl, try_ip};

#[test]
fn links_are_read_with_what_they_are_and_belong_to() {
    in_namespace(|kernel| async move {
        ip("link set lo up");
        ip("link add br0 type bridge");
        ip("link add veth0 mtu 1400 address 02:00:00:00:00:01 type veth peer name veth1");
        ip("link set veth0 master br0 alias the-alias up");

        let links = by_name(&kernel.snapshot().await.unwrap());

        let lo = &links["lo"];
        assert_eq!((lo.loopback, lo.up, lo.mac, &lo.kind), (true, true, None, &None));
        let veth0 = &links["veth0"];
        assert_eq!(veth0.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!((veth0.mtu, veth0.up, veth0.loopback), (1400, true, false));
        assert_eq!(veth0.kind.as_deref(), Some("veth"));
        assert_eq!(veth0.alias.as_deref(), Some("the-alias"));
        assert_eq!(veth0.link, Some(links["veth1"].ifindex));
        assert_eq!(veth0.master, Some(links["br0"].ifindex));
        assert_eq!(veth0.xdp, None);
        let veth1 = &links["veth1"];
        assert_eq!((veth1.up, veth1.link), (false, Some(veth0.ifindex)));
        assert_eq!(links["br0"].kind.as_deref(), Some("bridge"));
    });
}

#[test]
fn forwarding_and_rp_filter_are_those_in_effect() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        for (setting, value) in [
            ("ipv4/conf/all/forwarding", "0"),
            ("ipv4/conf/veth0/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "1"),
            ("ipv4/conf/veth0/rp_filter", "2"),
            ("ipv4/conf/veth1/rp_filter", "0"),
        ] {
            sysctl(setting, value);
        }

        let links = by_name(&kernel.snapshot().await.unwrap());

        assert_eq!((links["veth0"].forwarding, links["veth0"].rp_filter), (true, 2));
        assert_eq!((links["veth1"].forwarding, links["veth1"].rp_filter), (false, 1));
    });
}

#[test]
fn ipv6_is_forwarded_by_the_setting_for_all_devices_and_not_by_a_devices_own() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        let forwarding = || async {
            let links = by_name(&kernel.snapshot().await.unwrap());
            (links["veth0"].forwarding6, links["veth1"].forwarding6)
        };
        assert_eq!(forwarding().await, (false, false));

        sysctl("ipv6/conf/veth0/forwarding", "1");
        assert_eq!(forwarding().await, (false, false));
        sysctl("ipv6/conf/all/forwarding", "1");
        sysctl("ipv6/conf/veth0/forwarding", "0");
        assert_eq!(forwarding().await, (true, true));
        sysctl("ipv6/conf/veth0/disable_ipv6", "1");
        assert_eq!(forwarding().await, (false, true));
        // Too small for IPv6, which the kernel then takes off the device.
        ip("link set veth1 mtu 1000");
        assert_eq!(forwarding().await, (false, false));
    });
}

#[test]
fn ipv6_can_be_forwarded_for_one_device_where_the_kernel_has_a_setting_for_that() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        if !Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
            println!("skipped: Linux before 6.17 has no net.ipv6.conf.IF.force_forwarding");
            return;
        }

        sysctl("ipv6/conf/veth0/force_forwarding", "1");

        let links = by_name(&kernel.snapshot().await.unwrap());
        assert_eq!((links["veth0"].forwarding6, links["veth1"].forwarding6), (true, false));
    });
}

#[test]
fn a_vlan_is_read_with_its_tag_and_the_port_below() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        if let Err(error) = try_ip("link add link veth0 name customer type vlan id 7") {
            assert!(error.contains("Unknown device type"), "{error}");
            println!("skipped: this kernel has no VLAN devices (CONFIG_VLAN_8021Q)");
            return;
        }
        ip("link add link veth0 name service type vlan proto 802.1ad id 4094");

        let links = by_name(&kernel.snapshot().await.unwrap());

        assert_eq!(links["customer"].vlan, Some(Vlan { id: 7, protocol: 0x8100 }));
        assert_eq!(links["service"].vlan, Some(Vlan { id: 4094, protocol: 0x88a8 }));
        assert_eq!(links["customer"].link, Some(links["veth0"].ifindex));
        assert_eq!(links["veth0"].vlan, None);
    });
}

#[test]
fn a_veth_can_be_redirected_to_once_its_peer_has_gro_on() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
        // A veth driver works this out when the device is brought up.
        kernel.set_up(device.ifindex, true).await.unwrap();

        let links = kernel.snapshot().await.unwrap().links;

        let features = |link: &Link| link.xdp_features.expect("xdp-features, from Linux 6.3 on");
        let veth0 = links.values().find(|link| link.name == "veth0").unwrap();
        assert_eq!(features(veth0) & NDO_XMIT, 0);
        // GRO is on at the device alone, and so packets can be redirected out of its other end.
        assert_eq!(features(&links[&device.ifindex]) & NDO_XMIT, 0);
        assert_eq!(features(&links[&device.peer_ifindex]) & NDO_XMIT, NDO_XMIT);
    });
}

#[test]
fn a_links_settings_are_changed() {
    in_namespace(|kernel| async move {
        let device =
            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "old", false).await.unwrap();

        kernel.set_mtu(device.ifindex, 1400).await.unwrap();
        kernel.set_alias(device.ifindex, "new").await.unwrap();
        kernel.set_up(device.ifindex, true).await.unwrap();
        kernel.set_up(device.peer_ifindex, false).await.unwrap();

        let links = kernel.snapshot().await.unwrap().links;
        let tunnel = &links[&device.ifindex];
        assert_eq!((tunnel.mtu, tunnel.alias.as_deref(), tunnel.up), (1400, Some("new"), true));
        assert!(!links[&device.peer_ifindex].up);

        let error = kernel.set_mtu(device.ifindex, 1).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot set the MTU of the device tunnel0 to 1: "), "{error}");
        assert!(error.contains("(mtu less than device minimum)"), "the kernel's words: {error}");
    });
}

#[test]
fn without_privileges_the_error_says_what_is_missing() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        let ifindex = by_name(&kernel.snapshot().await.unwrap())["veth0"].ifindex;
        drop_network_privileges();

        let unprivileged = Kernel::connect().unwrap();
        let error = unprivileged.set_mtu(ifindex, 1400).await.unwrap_err();

        assert_eq!(error.errno(), Some(EPERM));
        assert!(error.to_string().ends_with("or give the daemon CAP_NET_ADMIN"), "{error}");
    });
}

/// Makes the calling thread another user, for good. Only this thread: the system call itself, not
/// the C library's function, which would change all of them.
fn drop_network_privileges() {
    // SAFETY: the call takes three numbers and touches no memory of ours.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(result, 0, "setresuid: {}", std::io::Error::last_os_error());
}
