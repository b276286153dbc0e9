//! The control socket: Varlink, so that `varlinkctl` can introspect and call it.

pub mod access;
pub mod api;
pub mod client;
pub mod server;
