//! The daemon and the command line of xgre.

pub mod daemon;
pub mod model;
pub mod monitor;
pub mod netlink;
pub mod observed;
pub mod report;
