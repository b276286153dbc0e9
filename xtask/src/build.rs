//! Runs cargo.

use std::{env, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{progress::step, root, toolchain::search_path};

/// The cargo that runs this, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// `cargo test` of the whole workspace but the BPF programs; more words say which of its targets. By the
/// packages that are named cargo chooses the features of what they depend on: another choice would build xgre and
/// half of its dependencies once more.
pub(crate) fn cargo_test() -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--exclude", "gre-ebpf"]);
    command
}

/// Builds xgre as it is installed; returns where it is.
pub(crate) fn release() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "gre-userspace", "--bin", "xgre"]);
    step("building xgre and its BPF programs (minutes the first time)", build)?;
    Ok(root().join("target/release/xgre"))
}
