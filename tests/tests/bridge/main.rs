//! What the fast path forwards between the members of a bridge is what the kernel's bridge would.
//!
//! ```text
//!             lan1 --+                +-- gretap1 ==+
//!   the test  lan2 --+ br0        br1 +             +== wan  the test
//!             lan3 -------------------+-- gretap2 ==+  192.0.2.1
//! ```
//! Every wire ends in the test: it sends frames into ports and, encapsulated, into tunnels, and sees
//! each that comes out, byte by byte. `lan2` and `gretap1` are in `br0` as well.

mod counts;
#[path = "../common/random.rs"]
mod random;

mod ageing;
mod differential;
mod events;
mod frames;
mod lab;
mod moved;
mod removed;
mod wires;
