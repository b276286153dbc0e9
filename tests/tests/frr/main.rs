//! Routing daemons over the tunnel: FRR on both gateways finds its neighbour there, learns the far LAN's
//! prefix, and XDP forwards by it. No route into the tunnel is xgre's or the test's.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!              |                       |          192.168.110.10, and in `bgp` 10.99.0.10
//!              FRR <--- OSPF, BGP ---> FRR
//!              172.16.168.2            172.16.168.1
//! ```

mod bgp;
mod ospf;
mod routed;
