//! The daemon and the command line of xgre.

mod attach;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
mod files;
pub mod ids;
pub mod instance;
pub mod loader;
pub mod maps;
pub mod model;
pub mod monitor;
pub mod netlink;
pub mod observed;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod report;
pub mod rib;
pub mod slowpath;
pub mod teardown;

#[cfg(test)]
mod testing;
