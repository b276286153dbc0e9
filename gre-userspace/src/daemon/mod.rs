//! The daemon: one task owns the desired state, the maps and the programs.

pub mod handle;
