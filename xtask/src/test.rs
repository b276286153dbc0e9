//! `cargo xtask test`: everything that shows whether xgre works.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use tests::{interrupt, namespace};

use crate::{
    bench,
    build::cargo_test,
    lint, package,
    progress::step,
    results, root,
    rules::{self, Lacking},
    setup, vm,
};

/// How many tests run at once, to the harness of tests.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// What rules without a test that passed are to `cargo xtask test`; to `--report` they are an error.
const LACKING: Lacking = Lacking::IsTold;

/// Runs every step, in the order of what fails fastest, and says where the time went.
pub(crate) fn everything() -> Result<()> {
    run(LACKING)
}

/// The same, and what is lacking is an error.
pub(crate) fn with_report() -> Result<()> {
    run(Lacking::IsAnError)
}

/// Only what the last run has shown of the rules.
pub(crate) fn last_report() -> Result<()> {
    report(Lacking::IsAnError)
}

fn run(lacking: Lacking) -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "the tests load BPF programs and make network namespaces, which needs root. Run\n\n    \
             sudo -E env \"PATH=$PATH\" cargo xtask test\n\n\
             `cargo xtask lint` and `cargo test --lib` need no root."
        );
    }
    // Nothing of an earlier run is to count.
    for log in [log(), package::log(), vm::log()] {
        if log.exists() {
            fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))?;
        }
    }
    let mut timings = Timings::default();
    let result = steps(&mut timings);
    // Where the tests were interrupted, their own clean-up may not have run.
    namespace::remove_stale();
    let reported =
        if log().exists() && interrupt::check().is_ok() { report(lacking) } else { Ok(()) };
    timings.print();
    result.and(reported)
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
    // What fails in guests is worth knowing, too, when something has failed here.
    let here = timings.measure("tests", tests);
    interrupt::check()?;
    let installed = timings.measure("package", package::test);
    interrupt::check()?;
    let measured = timings.measure("benchmark", benchmark);
    interrupt::check()?;
    here.and(installed).and(measured).and(timings.measure("guests", || vm::tests(None)))
}

/// Only that it runs: what it measures depends on the neighbours.
fn benchmark() -> Result<()> {
    let command = bench::command(&bench::Options::quick())?;
    step("cargo xtask bench --quick", command).map(drop)
}

/// With the tests of `gre-userspace`, which run it, cargo builds `target/debug/xgre`.
fn build() -> Result<()> {
    let mut command = cargo_test();
    command.arg("--no-run");
    step("building xgre, its BPF programs and the tests", command).map(drop)
}

/// With cargo's own output, so that its summaries are there to be read.
fn tests() -> Result<()> {
    let mut command = cargo_test();
    command.arg("--no-fail-fast").env("XGRE_BIN", root().join("target/debug/xgre"));
    if env::var_os(TEST_THREADS).is_none() {
        command.env(TEST_THREADS, threads().to_string());
    }
    attended(command, &log())
}

/// Most of a test's time is waiting: for replies, for links, for a stream's second to pass.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get) * 2
}

/// Runs a command on this terminal, and keeps what it says. An interruption reaches it as well, and
/// is waited for.
pub(crate) fn attended(mut command: Command, log: &Path) -> Result<()> {
    // One pipe for both, so that what cargo says of a program stays before the program's own words.
    let (reader, writer) = io::pipe().context("making a pipe")?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("starting cargo")?;
    // With it this process's ends of the pipe for writing.
    drop(command);
    let mut kept = fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let mut terminal = io::stderr();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        kept.write_all(&line)?;
        terminal.write_all(&line)?;
        line.clear();
    }
    let status = child.wait().context("waiting for cargo")?;
    interrupt::check()?;
    if !status.success() {
        bail!("cargo test failed; the failures are named above");
    }
    Ok(())
}

/// What the tests on this machine have printed.
fn log() -> PathBuf {
    root().join("target/tests.log")
}

/// On this machine and in guests.
fn report(lacking: Lacking) -> Result<()> {
    let mut tests = Vec::new();
    for log in [log(), package::log(), vm::log()] {
        match fs::read(&log) {
            Ok(text) => tests.extend(results::read(&String::from_utf8_lossy(&text))),
            Err(error) => eprintln!("no results in {}: {error}", log.display()),
        }
    }
    if tests.is_empty() {
        bail!("there are no results of tests: run `cargo xtask test` first");
    }
    rules::report(&tests, lacking)
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

#[cfg(test)]
mod tests_of_output {
    use super::*;
    use crate::results::{Outcome, read};

    #[test]
    fn what_a_command_says_on_both_streams_is_kept_in_its_order() {
        let log = root().join("target/tmp/attended.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let said = |status| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!(
                "echo 'Running tests/a.rs (target/debug/deps/a-0123)' >&2; echo 'test one ... ok'
                 echo 'Running tests/b.rs (target/debug/deps/b-0123)' >&2; echo 'test two ... FAILED'
                 exit {status}"
            ));
            attended(command, &log)
        };
        said(0).unwrap();
        assert!(said(101).unwrap_err().to_string().contains("cargo test failed"));
        let found = read(&fs::read_to_string(&log).unwrap());
        let found: Vec<_> = found.iter().map(|test| (test.name(), test.outcome)).collect();
        let expected = [("a::one".into(), Outcome::Passed), ("b::two".into(), Outcome::Failed)];
        assert_eq!(found, expected);
    }
}
