//! What the BPF programs and the daemon have in common: wire formats, the layout of the map
//! values, and the outcomes a packet can have. `no_std`, without unsafe code, and tested on the
//! host as ordinary Rust.
//!
//! **Words.** Header fields are held as they lie in memory: a `u32` here is four bytes of the
//! packet loaded natively, so that comparing and copying cost one instruction and the one's
//! complement sum is right in either byte order (RFC 1071, section 2 (B)). Accessors convert.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod bridge;
pub mod checksum;
pub mod counters;
pub mod decapsulate;
pub mod demux;
pub mod ecn;
pub mod encapsulate;
pub mod event;
pub mod fragment;
pub mod group;
pub mod limit;
pub mod mismatch;
pub mod next_hop;
pub mod outcome;
pub mod pod;
pub mod port;
pub mod reassembly;
pub mod route;
pub mod route6;
pub mod sequence;
pub mod tunnel;
pub mod wire;
