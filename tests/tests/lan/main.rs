//! One LAN over a tunnel of Ethernet: S7, S8, S10 and S12 at layer 2.
//!
//! ```text
//!  PC1 ---- lan R1[br0] gretap1 ====== router ====== gretap1 R2[br0] lan ---- PC2
//!  192.168.110.20                                                  192.168.110.10
//! ```
//! The whole of it is drawn in `tests::lan`. Which tier carries a frame is a matter of `fast` alone.

mod bridging;
mod dhcp;
mod fast;
mod floods;
mod mtu;
mod networkd;
mod oversize;
mod removal;
mod strange;
