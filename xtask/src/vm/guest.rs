//! Boots a guest, and reads what its tests report.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tests::{interrupt, process::Process};

use super::{Suite, captures, kernel::Kernel};

/// A guest that has not ended by then never will.
const DEADLINE: Duration = Duration::from_secs(900);
const MEMORY_MIB: u32 = 1024;
/// Lines of a log that are shown when something failed.
const SHOWN: usize = 120;
/// What the tests have printed, beside the kernel.
pub(super) const REPORT: &str = "report.log";
/// What the interoperability tests have found, beside the kernel.
pub(super) const INTEROP: &str = "interop.log";

/// Runs the suites on a kernel, all of their tests or those that were chosen by a word. An error says
/// what failed, or did not run, and shows the logs.
pub(super) fn run(kernel: &Kernel, initramfs: &Path, suites: &[Suite], chosen: bool) -> Result<()> {
    let started = Instant::now();
    let mut results = Results::default();
    let logs = boot(kernel, initramfs, |report| {
        results.read(report, |test, passed, took| {
            let word = if passed { "ok" } else { "FAILED" };
            eprintln!("  {}: {test} {word} ({:.1} s)", kernel.release, took.as_secs_f64());
        });
    })?;
    let faults = results.faults(kernel, suites)?;
    if !faults.is_empty() {
        bail!("on kernel {}:\n  {}\n{}", kernel.release, faults.join("\n  "), logs.shown());
    }
    eprintln!(
        "  {}: {} tests passed in {:.0} s",
        kernel.release,
        results.tests.len(),
        started.elapsed().as_secs_f64()
    );
    captures::judge(kernel, chosen)
}

/// Runs a program on a kernel, and shows what it prints as it does.
pub(super) fn show(kernel: &Kernel, initramfs: &Path) -> Result<()> {
    let mut lines = 0;
    let mut status = None;
    let logs = boot(kernel, initramfs, |report| {
        let whole = report.rfind('\n').map_or("", |end| &report[..end]);
        for line in whole.lines().skip(lines) {
            lines += 1;
            match line.trim_end().split_once(' ') {
                Some(("kernel", release)) => println!("Linux {release}, under QEMU's emulation:"),
                Some(("suite", _)) => {}
                Some(("exit", code)) => status = Some(code.to_owned()),
                _ if status.is_none() => println!("{}", line.trim_end()),
                _ => {}
            }
        }
    })?;
    match status.as_deref() {
        Some("0") => Ok(()),
        _ => bail!("in the guest it failed\n{}", logs.shown()),
    }
}

/// What a guest has written.
struct Logs {
    console: PathBuf,
    report: PathBuf,
}

/// Boots a guest and waits for its end; what its report says so far is told again and again.
fn boot(kernel: &Kernel, initramfs: &Path, mut told: impl FnMut(&str)) -> Result<Logs> {
    let [console, report, interop] =
        ["console.log", REPORT, INTEROP].map(|name| kernel.directory.join(name));
    for file in [&console, &report, &interop] {
        fs::write(file, "").with_context(|| format!("writing {}", file.display()))?;
    }
    captures::make_disk(kernel)?;
    let started = Instant::now();
    let command = machine(kernel, initramfs, [&console, &report, &interop])?;
    let mut machine = Process::spawn(command)?;
    let logs = Logs { console, report };
    loop {
        let status = machine.try_wait()?;
        told(&log(&logs.report));
        if status.is_some() {
            break;
        }
        interrupt::check()?;
        if started.elapsed() > DEADLINE {
            drop(machine);
            bail!("the guest did not end within {DEADLINE:?}\n{}", logs.shown());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = machine.output().to_string();
    if !output.is_empty() {
        eprintln!("  QEMU says:\n{output}");
    }
    Ok(logs)
}

/// Its serial ports are the files.
fn machine(kernel: &Kernel, initramfs: &Path, files: [&PathBuf; 3]) -> Result<Command> {
    let mut command = Command::new("qemu-system-x86_64");
    // Emulated, which works everywhere; two CPUs, since counters are kept by CPU.
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2"]);
    command.args(["-m", &MEMORY_MIB.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel.image()?).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 panic=-1 loglevel=5"]);
    for file in files {
        command.arg("-serial").arg(format!("file:{}", file.display()));
    }
    let disk = captures::disk(kernel).display().to_string();
    command.args(["-drive", &format!("file={disk},format=raw,if=virtio,cache=unsafe")]);
    Ok(command)
}

/// What the report says so far.
#[derive(Default)]
struct Results {
    /// Lines that have been read.
    lines: usize,
    kernel: Option<String>,
    suite: String,
    /// "SUITE TEST", and whether it passed.
    tests: BTreeMap<String, bool>,
    ended: bool,
    last: Option<Instant>,
}

impl Results {
    /// Reads on; a line that is not whole yet is left for the next time.
    fn read(&mut self, report: &str, mut told: impl FnMut(&str, bool, Duration)) {
        let whole = report.rfind('\n').map_or("", |end| &report[..end]);
        for line in whole.lines().skip(self.lines).map(str::trim) {
            self.lines += 1;
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["kernel", release] => self.kernel = Some(release.to_owned()),
                ["suite", suite] => suite.clone_into(&mut self.suite),
                ["end"] => self.ended = true,
                ["test", test, .., result] if line.contains(" ... ") => {
                    let test = format!("{} {test}", self.suite);
                    let took = self.last.map_or(Duration::ZERO, |last| last.elapsed());
                    told(&test, result == "ok", took);
                    self.tests.insert(test, result == "ok");
                }
                _ => continue,
            }
            self.last = Some(Instant::now());
        }
    }

    fn faults(&self, kernel: &Kernel, suites: &[Suite]) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        if self.kernel.as_ref() != Some(&kernel.release) {
            faults.push(format!("the guest runs {:?}", self.kernel));
        }
        for suite in suites {
            for test in suite.tests()? {
                let test = format!("{} {test}", suite.name);
                match self.tests.get(&test) {
                    Some(true) => {}
                    Some(false) => faults.push(format!("{test} failed")),
                    None => faults.push(format!("{test} did not run")),
                }
            }
        }
        if !self.ended {
            faults.push("the guest did not come to the end of its tests".into());
        }
        Ok(faults)
    }
}

fn log(file: &Path) -> String {
    fs::read(file).map_or_else(
        |error| format!("({}: {error})", file.display()),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

impl Logs {
    /// Their ends.
    fn shown(&self) -> String {
        let mut text = String::new();
        for file in [&self.console, &self.report] {
            let log = log(file);
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN)..];
            text.push_str(&format!("--- the end of {}\n{}\n", file.display(), shown.join("\n")));
        }
        text
    }
}

#[cfg(test)]
mod tests_of_reports {
    use super::*;

    #[test]
    fn a_report_is_read_line_by_line_as_it_grows() {
        let mut results = Results::default();
        let mut told = Vec::new();
        let report = "kernel 6.1.0\r\nsuite wire\r\nrunning 2 tests\r\ntest native::a ... ok\r\n\
                      test native::b - should panic ... FAILED\r\nexit 101\r\nend\r\n";
        for end in [30, 50, report.len()] {
            results.read(&report[..end], |test, passed, _| told.push((test.to_owned(), passed)));
        }
        assert_eq!(told, [("wire native::a".into(), true), ("wire native::b".into(), false)]);
        assert_eq!(results.kernel.as_deref(), Some("6.1.0"));
        assert!(results.ended);
    }
}
