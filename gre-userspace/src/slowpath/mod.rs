//! Tier 3: what the daemon does itself with packets that the programs cannot finish.

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
pub mod tables;

#[cfg(test)]
mod testing;
