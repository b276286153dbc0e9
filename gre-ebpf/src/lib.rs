//! Empty: a library target lets `gre-userspace` depend on this package for building, so that cargo
//! rebuilds the daemon when the programs change.
#![no_std]
