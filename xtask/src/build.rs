//! Runs cargo.

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use tests::process;

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

const RELEASE: [&str; 6] = ["build", "--release", "--package", "gre-userspace", "--bin", "xgre"];

/// Builds xgre as it is installed; returns where it is.
pub(crate) fn release() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(RELEASE);
    step("building xgre and its BPF programs (minutes the first time)", build)?;
    Ok(root().join("target/release/xgre"))
}

/// The same in the time of the processors that nothing else wants, and without a word unless it fails.
pub(crate) fn release_beside() -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(3600);
    let cargo = cargo();
    let mut build = Command::new("nice");
    build.args(["-n", "19"]).arg(cargo.get_program()).args(RELEASE);
    build.current_dir(root()).env("PATH", search_path());
    process::run(build, DEADLINE).map(drop).context("building xgre as it is installed")
}
