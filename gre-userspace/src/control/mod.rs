//! The control socket: Varlink, so that `varlinkctl` can introspect and call it.

pub mod api;
pub mod client;
pub mod server;
