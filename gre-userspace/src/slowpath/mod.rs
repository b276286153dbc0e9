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
//! `daemon::slow` starts it, tells it after each change of the maps which tunnels are up, and puts what it
//! learns about paths into the tunnels' records.

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
