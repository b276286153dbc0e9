//! `cargo xtask test`: everything that shows whether xgre works.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use tests::{interrupt, namespace};

use crate::{build::cargo, lint, progress::step, root, setup, vm};

/// Runs every step, in the order of what fails fastest, and says where the time went.
pub(crate) fn everything() -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "the tests load BPF programs and make network namespaces, which needs root. Run\n\n    \
             sudo -E env \"PATH=$PATH\" cargo xtask test\n\n\
             `cargo xtask lint` and `cargo test --lib` need no root."
        );
    }
    let mut timings = Timings::default();
    let result = steps(&mut timings);
    // Where the tests were interrupted, their own clean-up may not have run.
    namespace::remove_stale();
    timings.print();
    result
}

/// Only the tests in guests.
pub(crate) fn in_guests(filter: Option<&str>) -> Result<()> {
    let mut timings = Timings::default();
    let result = timings
        .measure("setup", setup::ensure)
        .and_then(|_| timings.measure("guests", || vm::tests(filter)));
    timings.print();
    result
}

fn steps(timings: &mut Timings) -> Result<()> {
    let way = timings.measure("setup", setup::ensure)?;
    eprintln!("  {way}");
    lint::checks(timings)?;
    timings.measure("build", build)?;
    timings.measure("tests", tests)
}

fn build() -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--package", "gre-userspace", "--bin", "xgre"]);
    step("building xgre and its BPF programs", command)?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--exclude", "gre-ebpf", "--no-run"]);
    step("building the tests", command).map(drop)
}

/// With cargo's own output, so that its summaries are there to be read.
fn tests() -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--exclude", "gre-ebpf", "--no-fail-fast"])
        .env("XGRE_BIN", root().join("target/debug/xgre"));
    attended(command)
}

/// Runs a command on this terminal. An interruption reaches it as well, and is waited for.
fn attended(mut command: Command) -> Result<()> {
    let status = command.status().context("starting cargo")?;
    interrupt::check()?;
    if !status.success() {
        bail!("cargo test failed; the failures are named above");
    }
    Ok(())
}

/// What took how long.
#[derive(Default)]
pub(crate) struct Timings(Vec<(&'static str, Duration, bool)>);

impl Timings {
    pub(crate) fn measure<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        eprintln!("{name}");
        let started = Instant::now();
        let result = work();
        self.0.push((name, started.elapsed(), result.is_ok()));
        result
    }

    pub(crate) fn print(&self) {
        eprintln!("\n  step         seconds");
        for (name, time, passed) in &self.0 {
            let mark = if *passed { "" } else { "  FAILED" };
            eprintln!("  {name:<12} {:>7.1}{mark}", time.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, time, _)| *time).sum();
        eprintln!("  {:<12} {:>7.1}", "total", total.as_secs_f64());
    }
}
