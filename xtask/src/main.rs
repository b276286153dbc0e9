//! `cargo xtask ...`: sets the machine up, demonstrates xgre and tests it.

mod bench;
mod build;
mod cargo_tools;
mod deny;
mod lan;
mod lint;
mod live;
mod package;
mod packages;
mod progress;
mod python;
mod results;
mod rules;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, demonstrates and tests xgre")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build, run and test; the other tasks do so first
    Setup,
    /// Show two gateways forwarding between two hosts, in network namespaces
    Run {
        /// Leave the namespaces up after the demonstration, until Ctrl-C
        #[arg(long, conflicts_with = "words")]
        keep: bool,
        /// One LAN over a tunnel of Ethernet, between two bridges, instead of routes
        #[arg(long, conflicts_with = "words")]
        l2: bool,
        /// In a guest, on Debian's kernel whose release starts so, such as 6.1 [no KVM is needed]
        #[arg(long, value_name = "KERNEL", conflicts_with_all = ["keep", "l2", "words"])]
        vm: Option<String>,
        /// Run `xgre ARGS` on this machine instead
        #[arg(last = true, value_name = "ARGS")]
        words: Vec<String>,
    },
    /// The demonstration with the xgre that XGRE_BIN names, which is how a guest runs it
    #[command(hide = true)]
    Demonstrate,
    /// Run every check and test, as root
    Test {
        /// Only those in guests: Debian's kernels under QEMU, and their own GRE
        #[arg(long)]
        vm: bool,
        /// Of those in guests, only the ones whose name contains this
        #[arg(requires = "vm", value_name = "FILTER")]
        filter: Option<String>,
        /// Fail, too, where a rule of tests/rules.toml lacks a test that passed [target/rules.md]
        #[arg(long, conflicts_with = "vm")]
        report: bool,
        /// Report on the last run instead of running the tests again
        #[arg(long, requires = "report")]
        last: bool,
    },
    /// Measure the promises of speed, as root [target/bench/report.json, and a plot for each promise]
    Bench(bench::Options),
    /// Build a Debian package [target/package/xgre_VERSION_ARCHITECTURE.deb]
    Package {
        /// Install it on a clean system in namespaces, with systemd, and see how it works; as root
        #[arg(long)]
        test: bool,
    },
    /// Check licenses and origins of all dependencies by cargo-deny, which it installs
    Deny {
        /// Known vulnerabilities, too, for which it fetches the RustSec database
        #[arg(long)]
        advisories: bool,
    },
    /// Only the checks that run nothing: format, clippy, invariants of the tree
    Lint,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if tests::interrupt::interrupted() => {
            eprintln!("interrupted; everything that was started has been removed");
            ExitCode::from(130)
        }
        Err(error) => {
            // Not with {:?}, which would put a backtrace between the reason and its reader.
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    tests::interrupt::install()?;
    match task {
        Task::Setup => setup::everything(),
        Task::Run { vm: Some(kernel), .. } => run::in_guest(&kernel),
        Task::Run { l2: true, keep, .. } => lan::demonstration(keep),
        Task::Run { keep, words, .. } if words.is_empty() => run::demonstration(keep),
        Task::Run { words, .. } => run::here(&words),
        Task::Demonstrate => run::show(false),
        Task::Test { vm: true, filter, .. } => test::in_guests(filter.as_deref()),
        Task::Test { last: true, .. } => test::last_report(),
        Task::Test { report: true, .. } => test::with_report(),
        Task::Test { .. } => test::everything(),
        Task::Bench(options) => bench::perform(&options),
        Task::Package { test: true } => package::tested(),
        Task::Package { test: false } => package::everything(),
        Task::Deny { advisories } => deny::check(advisories),
        Task::Lint => lint::everything(),
    }
}

/// The workspace.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
