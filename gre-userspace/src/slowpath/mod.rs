//! Tier 3: what the daemon does itself with packets that the programs cannot finish.

pub mod fragment;
pub mod limit;
pub mod packet;
pub mod path_mtu;
pub mod reason;
pub mod reassemble;
