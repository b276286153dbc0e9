//! One protocol a file: the header's fields, and what makes it acceptable.

pub mod ethernet;
pub mod gre;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod vlan;
