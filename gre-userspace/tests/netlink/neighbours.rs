use std::net::IpAddr;

use gre_userspace::observed::{Neighbour, NeighbourState};

use crate::{by_name, in_namespace, ip};

#[test]
fn neighbours_are_read_with_what_their_state_means() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        let mac = "02:00:00:00:00:09";
        ip(&format!("neigh add 192.0.2.5 lladdr {mac} nud permanent dev veth0"));
        ip(&format!("neigh add 192.0.2.4 lladdr {mac} nud stale dev veth0"));
        ip(&format!("neigh add 192.0.2.3 lladdr {mac} nud reachable dev veth0"));
        ip("neigh add 192.0.2.2 nud failed dev veth0");
        ip(&format!("neigh add 2001:db8::4 lladdr {mac} nud stale dev veth0"));
        ip(&format!("neigh add 2001:db8::5 lladdr {mac} nud permanent dev veth0"));

        let snapshot = kernel.snapshot().await.unwrap();

        let ifindex = by_name(&snapshot)["veth0"].ifindex;
        let neighbour =
            |ip: &str, mac, state| Neighbour { ifindex, ip: ip.parse().unwrap(), mac, state };
        let mac = Some([2, 0, 0, 0, 0, 9]);
        let of_the_test: Vec<_> = snapshot
            .neighbours
            .into_iter()
            .filter(|neighbour| !neighbour.ip.is_multicast())
            .collect();
        assert_eq!(
            of_the_test,
            [
                neighbour("192.0.2.2", None, NeighbourState::Unresolved),
                neighbour("192.0.2.3", mac, NeighbourState::Valid),
                neighbour("192.0.2.4", mac, NeighbourState::Stale),
                neighbour("192.0.2.5", mac, NeighbourState::Valid),
                neighbour("2001:db8::4", mac, NeighbourState::Stale),
                neighbour("2001:db8::5", mac, NeighbourState::Valid),
            ]
        );
    });
}

#[test]
fn a_stale_neighbour_is_made_sure_of_and_a_missing_one_looked_for() {
    in_namespace(|kernel| async move {
        ip("link add veth0 type veth peer name veth1");
        ip("link set veth0 up");
        ip("link set veth1 up");
        ip("addr add 192.0.2.1/24 dev veth0");
        ip("addr add 2001:db8::1/64 dev veth0 nodad");
        let ifindex = by_name(&kernel.snapshot().await.unwrap())["veth0"].ifindex;

        for (stale, missing) in [("192.0.2.4", "192.0.2.2"), ("2001:db8::4", "2001:db8::2")] {
            ip(&format!("neigh add {stale} lladdr 02:00:00:00:00:09 nud stale dev veth0"));
            let [stale_ip, missing_ip]: [IpAddr; 2] =
                [stale, missing].map(|ip| ip.parse().unwrap());

            kernel.confirm_neighbour(ifindex, stale_ip).await.unwrap();
            kernel.confirm_neighbour(ifindex, missing_ip).await.unwrap();

            let shown = [stale, missing].map(|address| ip(&format!("neigh show {address}")));
            assert!(shown[0].contains("DELAY"), "{shown:?}");
            assert!(shown[1].contains("INCOMPLETE"), "{shown:?}");
            let snapshot = kernel.snapshot().await.unwrap();
            let state =
                |ip| snapshot.neighbours.iter().find(|neighbour| neighbour.ip == ip).unwrap().state;
            assert_eq!(state(stale_ip), NeighbourState::Valid);
            assert_eq!(state(missing_ip), NeighbourState::Unresolved);
        }
    });
}
