//! Long steps: a spinner on a terminal, plain lines elsewhere, and output only where it fails.

use std::{
    io::{IsTerminal as _, stderr},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tests::{interrupt, process::Process};

/// How often a log without a terminal hears that a step is still at work.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Runs a command that may take minutes. Returns what it wrote to stdout.
pub(crate) fn step(what: &str, command: Command) -> Result<String> {
    let started = Instant::now();
    let spinner = spinner(what);
    let mut process = Process::spawn(command)?;
    let mut next_sign = SIGN_OF_LIFE;
    while process.try_wait()?.is_none() {
        interrupt::check()?;
        if spinner.is_hidden() && started.elapsed() > next_sign {
            eprintln!("  {what}: at it for {} s", started.elapsed().as_secs());
            next_sign += SIGN_OF_LIFE;
        }
        if let Some(line) = last_line(&process) {
            spinner.set_message(line);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    spinner.finish_and_clear();
    let finished = process.finish(Duration::ZERO)?;
    let seconds = started.elapsed().as_secs_f64();
    if !finished.status.success() {
        let Err(error) = finished.success() else { bail!("{what}") };
        return Err(error).with_context(|| format!("{what} (failed after {seconds:.0} s)"));
    }
    eprintln!("  {what}: done in {seconds:.1} s");
    finished.success()
}

/// Hidden where stderr is no terminal; the step is announced on a line instead.
fn spinner(what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        eprintln!("  {what} ...");
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("  {spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    spinner.set_style(style);
    spinner.set_prefix(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// The last thing the command said, for the spinner.
fn last_line(process: &Process) -> Option<String> {
    let output = process.output();
    let line = [&output.stderr, &output.stdout].into_iter().find_map(|text| text.lines().last())?;
    Some(line.trim().to_owned())
}
