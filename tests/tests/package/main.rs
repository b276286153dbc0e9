//! The Debian package: what is in it, and what it does on a clean system with systemd.
//!
//! `cargo xtask package --test` builds it and runs this, as `cargo xtask test` does.

mod contents;
mod service;
