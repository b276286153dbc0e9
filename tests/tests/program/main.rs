//! The four programs, run by the kernel on one packet at a time (BPF_PROG_TEST_RUN). A table a
//! file: a valid packet with one thing changed, and the action, the bytes and the counters that
//! must come of it.
//!
//! Every outcome occurs. The one that XDP never comes to is `Aborted`: it stands where the verifier
//! wants a check that cannot fail. TEST_RUN arms a redirect without following it, so that where a
//! packet leaves is seen, in XDP, from which slot of the device map it needs, and in TC not at all.

mod adopted;
mod agree;
mod bench;
mod case;
mod checksum;
mod cut;
mod decapsulate;
mod encapsulate;
mod fragments;
mod frame;
mod gre_header;
mod growth;
mod handed_up;
mod inner;
mod jumbo;
mod legs;
mod lookup;
mod many;
mod mismatch;
mod mss;
mod mss_packets;
mod numbering;
mod options;
mod outer_header;
mod pass;
mod payload;
#[path = "../common/pins.rs"]
mod pins;
mod random;
mod sequence;
mod strangers;
mod tc;
#[path = "../common/test_run.rs"]
mod test_run;
mod verifier;
mod world;
