use std::process::Command;

use gre_userspace::{monitor, netlink::Kernel, observed::FilterChain};

use crate::{in_namespace, ip, until};

/// Runs a command line in the thread's namespace.
fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn told(kernel: &Kernel) -> Vec<String> {
    let chains = kernel.filter_chains().await.unwrap();
    chains.iter().map(FilterChain::to_string).collect()
}

#[test]
fn chains_of_nftables_are_those_that_do_something_to_forwarded_packets() {
    in_namespace(|kernel| async move {
        ip("link add lan type veth peer name peer");
        assert_eq!(told(&kernel).await, [""; 0]);
        run("nft add table inet t");
        run("nft add chain inet t empty { type filter hook forward priority 0 ; }");
        run("nft add chain inet t input { type filter hook input priority 0 ; policy drop ; }");
        run("nft add chain inet t called");
        run("nft add rule inet t input accept");
        run("nft add rule inet t called accept");
        assert_eq!(told(&kernel).await, [""; 0], "no forwarded packet meets any of these");

        run("nft add rule inet t empty jump called");
        run("nft add rule inet t empty drop");
        run("nft add table ip6 t");
        run("nft add chain ip6 t f { type filter hook forward priority 0 ; policy drop ; }");
        run("nft add table ip n");
        run("nft add chain ip n post { type nat hook postrouting priority 100 ; }");
        run("nft add rule ip n post masquerade");
        run("nft add table netdev d");
        run("nft add chain netdev d i { type filter hook ingress device lan priority 0 ; }");
        run("nft add rule netdev d i drop");
        run("nft add table bridge b");
        run("nft add chain bridge b f { type filter hook forward priority 0 ; }");
        run("nft add rule bridge b f drop");
        let expected = [
            "chain empty of table inet t (forward, 2 rules)",
            "chain post of table ip n (postrouting, 1 rule)",
            "chain f of table ip6 t (forward, 0 rules, policy drop)",
            "chain f of table bridge b (forward, 1 rule)",
            "chain i of table netdev d (ingress of lan, 1 rule)",
        ];
        assert_eq!(told(&kernel).await, expected);

        run("nft add table ip6 t { flags dormant ; }");
        assert_eq!(told(&kernel).await.len(), 4, "a dormant table does nothing");
    });
}

#[test]
fn chains_of_the_older_iptables_are_read_with_their_rules_and_policies() {
    in_namespace(|kernel| async move {
        run("iptables-legacy -L -n");
        assert_eq!(told(&kernel).await, [""; 0], "to look at a table makes it, without rules");
        run("iptables-legacy -N called");
        run("iptables-legacy -A called -j ACCEPT");
        run("iptables-legacy -A INPUT -j DROP");
        assert_eq!(told(&kernel).await, [""; 0]);
        run("iptables-legacy -A FORWARD -p tcp -m tcp --dport 22 -j called");
        run("iptables-legacy -A FORWARD -j ACCEPT");
        run("iptables-legacy -P FORWARD DROP");
        run("iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE");
        run("ip6tables-legacy -A FORWARD -j DROP");
        let expected = [
            "chain FORWARD of legacy table ip filter (forward, 2 rules, policy drop)",
            "chain POSTROUTING of legacy table ip nat (postrouting, 1 rule)",
            "chain FORWARD of legacy table ip6 filter (forward, 1 rule)",
        ];
        assert_eq!(told(&kernel).await, expected);
        let listing = kernel.filter_chains().await.unwrap()[0].listing();
        assert_eq!(listing, "iptables-legacy -t filter -S FORWARD");
    });
}

#[test]
fn rules_that_come_and_go_are_followed() {
    in_namespace(|kernel| async move {
        let mut watched = monitor::watch(&kernel).await.unwrap();
        run("nft add table inet t");
        run("nft add chain inet t c { type filter hook forward priority 0 ; }");
        run("nft add rule inet t c drop");
        until(&mut watched, |snapshot| snapshot.filters.len() == 1).await;
        run("nft flush chain inet t c");
        until(&mut watched, |snapshot| snapshot.filters.is_empty()).await;
        run("nft delete table inet t");

        run("iptables-legacy -A FORWARD -j DROP");
        until(&mut watched, |snapshot| snapshot.filters.len() == 1).await;
        run("iptables-legacy -F FORWARD");
        until(&mut watched, |snapshot| snapshot.filters.is_empty()).await;
    });
}
