//! The programs on IPv6 inside and outside, with VLAN tags and all options, run by the kernel on one
//! packet at a time (BPF_PROG_TEST_RUN). As in `program`: a valid packet with one thing changed, and
//! the action, the bytes, the counters and the sequence numbers that must come of it.
//!
//! Headers are built by etherparse or by hand. XDP is run as `xgre_xdp`, which goes on to
//! `xgre_xdp_any` by itself for all but the plainest frames.

mod bench;
mod case;
mod change;
mod combinations;
mod demux;
mod ecn;
mod ethernet;
mod extensions;
mod forwarding;
mod frame;
mod inner;
mod keys;
mod multicast;
mod nesting;
mod options;
mod outer;
mod packet;
#[path = "../common/pins.rs"]
mod pins;
mod protocols;
mod random;
mod routes;
#[path = "../common/test_run.rs"]
mod test_run;
mod vlan;
mod vlan_pass;
mod world;
