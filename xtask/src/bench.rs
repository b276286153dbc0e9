//! `cargo xtask bench`: measures the promises of speed, which the crate `bench` does, on what is built
//! here as it is installed.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tests::interrupt;

use crate::{
    build::{self, cargo},
    progress::step,
    root,
    run::require_root,
    setup,
};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// What to measure, such as P1 or OPTIONS; everything by default
    promises: Vec<String>,
    /// Everything in a few minutes, with less certain figures
    #[arg(long)]
    quick: bool,
    /// Rounds, in each of which every side is measured once; at least 5
    #[arg(long)]
    rounds: Option<u32>,
    /// The report.json of an earlier run, to print the change of each figure
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// An earlier build of the BPF programs, such as target/bpf/gre-ebpf, to be measured beside this one
    #[arg(long, value_name = "OBJECT")]
    object_against: Option<PathBuf>,
}

impl Options {
    /// All of it, and that it runs.
    pub(crate) fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }

    fn to_arguments(&self) -> Vec<String> {
        let mut arguments = self.promises.clone();
        if self.quick {
            arguments.push("--quick".into());
        }
        if let Some(rounds) = self.rounds {
            arguments.extend(["--rounds".into(), rounds.to_string()]);
        }
        let files = [("--against", &self.against), ("--object-against", &self.object_against)];
        for (option, file) in files {
            if let Some(file) = file {
                arguments.extend([option.into(), file.display().to_string()]);
            }
        }
        arguments
    }
}

/// On this terminal. Report and plots are in target/bench.
pub(crate) fn perform(options: &Options) -> Result<()> {
    require_root("cargo xtask bench")?;
    eprintln!("  {}", setup::ensure()?);
    let status = command(options)?.status().context("running the benchmark")?;
    interrupt::check()?;
    if !status.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// The benchmark, built.
pub(crate) fn command(options: &Options) -> Result<Command> {
    let xgre = build::release()?;
    let mut build = cargo();
    build.args(["build", "--release", "--package", "bench"]);
    step("building the benchmark (minutes the first time)", build)?;
    // Before whatever else this machine does: figures are ratios, but calm ones are better.
    let mut command = Command::new("nice");
    command.args(["-n", "-19"]).arg(root().join("target/release/bench"));
    command.args(options.to_arguments()).arg("--out").arg(root().join("target/bench"));
    command.env("XGRE_BIN", xgre);
    Ok(command)
}
