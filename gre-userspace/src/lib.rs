//! The daemon and the command line of xgre.

pub mod daemon;
pub mod model;
pub mod observed;
pub mod report;
