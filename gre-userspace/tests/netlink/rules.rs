use gre_userspace::observed::Rules::{Kernels, Others, Vrfs};

use crate::{in_namespace, ip};

#[test]
fn any_rule_but_the_three_default_ones_is_custom() {
    in_namespace(|kernel| async move {
        let rules = || async { kernel.snapshot().await.unwrap().rules };
        assert_eq!(rules().await, Kernels);

        for rule in ["from 10.0.0.0/8 table 100", "fwmark 1 table main", "pref 10 table local"] {
            ip(&format!("rule add {rule}"));
            assert_eq!(rules().await, Others, "{rule}");
            ip(&format!("rule del {rule}"));
            assert_eq!(rules().await, Kernels, "after {rule}");
        }

        ip("rule del pref 32766");
        assert_eq!(rules().await, Others, "no look-up in the main table");
        ip("rule add pref 32766 fwmark 1 table main");
        assert_eq!(rules().await, Others, "three rules, but not the default ones");
    });
}

#[test]
fn any_ipv6_rule_but_the_two_default_ones_is_custom() {
    in_namespace(|kernel| async move {
        let rules = || async {
            let snapshot = kernel.snapshot().await.unwrap();
            (snapshot.rules, snapshot.rules6)
        };
        assert_eq!(rules().await, (Kernels, Kernels));

        for rule in ["from 2001:db8::/32 table 100", "fwmark 1 table main", "table default"] {
            ip(&format!("-6 rule add {rule}"));
            assert_eq!(rules().await, (Kernels, Others), "{rule}");
            ip(&format!("-6 rule del {rule}"));
            assert_eq!(rules().await, (Kernels, Kernels), "after {rule}");
        }
        ip("rule add from 10.0.0.0/8 table 100");
        assert_eq!(rules().await, (Others, Kernels), "an IPv4 rule");

        ip("-6 rule del pref 32766");
        assert_eq!(rules().await, (Others, Others), "no look-up in the main table");
    });
}

/// The kernel makes it with the first VRF; here it is made by hand, which takes no VRF.
#[test]
fn the_rule_of_vrfs_is_known() {
    in_namespace(|kernel| async move {
        for (family, expected) in [("", (Vrfs, Kernels)), ("-6 ", (Vrfs, Vrfs))] {
            ip(&format!("{family}rule add l3mdev pref 1000"));
            let snapshot = kernel.snapshot().await.unwrap();
            assert_eq!((snapshot.rules, snapshot.rules6), expected);
        }
        ip("rule add fwmark 1 table main");
        assert_eq!(kernel.snapshot().await.unwrap().rules, Others);
    });
}
