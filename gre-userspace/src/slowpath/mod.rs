//! Tier 3: what the daemon does itself with packets that the programs cannot finish: outer
//! fragments and options, packets too long for their path, ICMP errors about outer packets.
//!
//! ```text
//! EVENTS ─► io::events ─┐                          ┌─► io::send ─► raw sockets: outer packets, ICMP
//!                       ├─► handle::SlowPath::handle ─► io::send ─► packet socket: out of the peer
//! ICMP  ─► io::errors ──┘    no I/O, no clock      └─► path MTUs ─► the tunnels' records
//! ```
//!
//! `handle` decides and counts; below it each file knows one topic (`fragment`, `reassemble`,
//! `icmp`, `answer`, `oversize`, `path_mtu`, `limit`, `pipeline`). `task` ties it to `io`.
//!
//! # Wiring
//!
//! At the start of the daemon, once the maps are loaded and before the programs are attached:
//!
//! ```ignore
//! let slow_path = slowpath::task::Shared::new(slowpath::handle::SlowPath::new(random_number));
//! let inputs = slowpath::io::Inputs::open(slowpath::io::events::Events::open(events_map)?)?;
//! let outputs = slowpath::io::Outputs::open()?;
//! let (sender, path_mtus) = mpsc::unbounded_channel();
//! tokio::spawn(slowpath::task::run(slow_path.clone(), inputs, outputs, sequences_map, sender));
//! ```
//!
//! Whenever the maps have been refreshed: `slow_path.lock().set_tunnels(...)` with every tunnel that
//! is up and every leg, `local` and `remote` as in the record. What comes from `path_mtus` goes into
//! `Tunnel::path_mtu`, where it stays when the maps are worked out anew; `None` takes it away. For
//! statistics: `slow_path.lock().counts.happened()` and `.carried`.
//!
//! A packet from the remote may be longer than the MTU of the tunnel's device, and the kernel lets no
//! such frame through a veth: so the peer has the largest MTU there is, and on its egress the program
//! `xgre_tc_deliver`, which redirects to the device's ingress.

pub mod answer;
pub mod fragment;
pub mod handle;
pub mod icmp;
pub mod io;
pub mod limit;
pub mod offload;
pub mod oversize;
pub mod packet;
pub mod path_mtu;
pub mod pipeline;
pub mod reason;
pub mod reassemble;
pub mod sequence;
pub mod tables;
pub mod task;

#[cfg(test)]
mod testing;
