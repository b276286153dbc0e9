//! What the namespace tests and `cargo xtask run` share: the document's topology in network
//! namespaces, the daemons in it, and real programs (ping, iperf3, tcpdump, tshark) to judge them.

pub mod capture;
pub mod config;
pub mod counters;
pub mod dhcp;
pub mod frr;
pub mod gateways;
pub mod hub;
pub mod interrupt;
pub mod ipv6;
pub mod lan;
pub mod machine;
pub mod namespace;
pub mod networkd;
pub mod process;
pub mod steady;
pub mod topology;
pub mod traffic;
pub mod xgre;
