//! Lets `aya` copy the map values to and from the kernel.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use aya::Pod;

use crate::{
    counters::{OutcomeCounters, TunnelCounters, TunnelDrops},
    demux::Bucket,
    next_hop::NextHop,
    port::Port,
    tunnel::Tunnel,
};

// SAFETY: each is `repr(C)`, made of integers alone, and without padding: the sizes asserted beside
// the types are the sums of their fields.
unsafe impl Pod for Bucket {}
// SAFETY: as above.
unsafe impl Pod for NextHop {}
// SAFETY: as above.
unsafe impl Pod for OutcomeCounters {}
// SAFETY: as above.
unsafe impl Pod for Port {}
// SAFETY: as above.
unsafe impl Pod for Tunnel {}
// SAFETY: as above.
unsafe impl Pod for TunnelCounters {}
// SAFETY: as above.
unsafe impl Pod for TunnelDrops {}
