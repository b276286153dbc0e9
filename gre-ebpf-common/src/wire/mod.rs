//! One protocol a file: the header's fields, and what makes it acceptable.

pub mod ethernet;
pub mod gre;
pub mod ipv4;
