//! The sockets and buffers of the slow path. What to do is decided elsewhere.

pub mod errors;
pub mod events;
pub mod send;
