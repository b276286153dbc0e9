use crate::{in_namespace, ip};

#[test]
fn any_rule_but_the_three_default_ones_is_custom() {
    in_namespace(|kernel| async move {
        let custom = || async { kernel.snapshot().await.unwrap().custom_rules };
        assert!(!custom().await);

        for rule in ["from 10.0.0.0/8 table 100", "fwmark 1 table main", "pref 10 table local"] {
            ip(&format!("rule add {rule}"));
            assert!(custom().await, "{rule}");
            ip(&format!("rule del {rule}"));
            assert!(!custom().await, "after {rule}");
        }

        ip("rule del pref 32766");
        assert!(custom().await, "no look-up in the main table");
        ip("rule add pref 32766 fwmark 1 table main");
        assert!(custom().await, "three rules, but not the default ones");
    });
}

#[test]
fn any_ipv6_rule_but_the_two_default_ones_is_custom() {
    in_namespace(|kernel| async move {
        let custom = || async {
            let snapshot = kernel.snapshot().await.unwrap();
            (snapshot.custom_rules, snapshot.custom_rules6)
        };
        assert_eq!(custom().await, (false, false));

        for rule in ["from 2001:db8::/32 table 100", "fwmark 1 table main", "table default"] {
            ip(&format!("-6 rule add {rule}"));
            assert_eq!(custom().await, (false, true), "{rule}");
            ip(&format!("-6 rule del {rule}"));
            assert_eq!(custom().await, (false, false), "after {rule}");
        }
        ip("rule add from 10.0.0.0/8 table 100");
        assert_eq!(custom().await, (true, false), "an IPv4 rule");

        ip("-6 rule del pref 32766");
        assert_eq!(custom().await, (true, true), "no look-up in the main table");
    });
}
