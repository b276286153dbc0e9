//! `cargo xtask deny`: licenses and origins of what is built in, as `deny.toml` has them. It is no part of
//! `cargo xtask test`, for which installing cargo-deny takes too long.

use anyhow::Result;

use crate::{build::cargo, cargo_tools::DENY, progress::step};

/// The checks that need no list of the world's advisories.
const OFFLINE: [&str; 3] = ["licenses", "bans", "sources"];

pub(crate) fn check(advisories: bool) -> Result<()> {
    DENY.ensure()?;
    let mut command = cargo();
    command.args(["deny", "--all-features", "check", "--hide-inclusion-graph"]).args(OFFLINE);
    if advisories {
        command.arg("advisories");
    }
    step("cargo deny check", command)?;
    println!("licenses, bans and sources are as deny.toml has them");
    Ok(())
}
