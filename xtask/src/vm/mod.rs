//! Tests in guests: on other kernels than this machine's, and with what this machine's may not have.
//!
//! A guest runs a Debian kernel under QEMU's emulation, which needs no virtualization, with nothing
//! in it but xgre, the tests and the programs that they run.

mod apt;
mod captures;
mod guest;
mod initramfs;
mod interop;
mod kernel;

use std::{env, fs, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::kernel::Kernel;
use crate::{build, packages, progress::step, root};

/// A test program that runs in the guests, or the demonstration.
struct Suite {
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
}

/// What the guests run: against the kernel's GRE and with bridges that filter VLANs, which this machine's
/// kernel is not asked for (`#[ignore]`). That every program loads is the first thing that these need.
const SUITES: [&str; 2] = ["kernel_gre", "bridge"];

/// Every suite on the oldest and the newest kernel, at the same time: a guest keeps one of this
/// machine's processors busy, and seldom more.
pub(crate) fn tests(filter: Option<&str>) -> Result<()> {
    let below = prepare()?;
    let offers = kernel::extremes(kernel::offers(&below)?);
    let kernels: Vec<_> =
        offers.iter().map(|offer| offer.unpacked(&below)).collect::<Result<_>>()?;
    // As it is installed: unoptimized code takes minutes to fill the maps in an emulation.
    let xgre = build::release()?;
    let suites = suites(filter)?;
    let result = thread::scope(|scope| {
        let run = |kernel: &Kernel| -> Result<()> {
            let initramfs = initramfs::make(kernel, &xgre, &suites)?;
            guest::run(kernel, &initramfs, &suites, filter.is_some())
        };
        let guests: Vec<_> =
            kernels.iter().map(|kernel| (kernel, scope.spawn(move || run(kernel)))).collect();
        let mut failures = Vec::new();
        for (kernel, guest) in guests {
            if let Err(error) = guest.join().expect("a guest's thread does not panic") {
                tests::interrupt::check()?;
                eprintln!("{error:#}");
                failures.push(kernel.release.clone());
            }
        }
        if !failures.is_empty() {
            bail!("tests failed on {}; what and why is shown above", failures.join(" and "));
        }
        Ok(())
    });
    tests::interrupt::check()?;
    keep_reports(&kernels)?;
    interop::report(&kernels)?;
    result
}

/// What the tests in guests have printed, of all guests of the last run.
pub(crate) fn log() -> PathBuf {
    root().join("target/guests.log")
}

fn keep_reports(kernels: &[Kernel]) -> Result<()> {
    let mut text = Vec::new();
    for kernel in kernels {
        let file = kernel.directory.join(guest::REPORT);
        text.extend(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    fs::write(log(), text).with_context(|| format!("writing {}", log().display()))
}

/// The demonstration on the kernel whose release starts with these words.
pub(crate) fn demonstration(wanted: &str) -> Result<()> {
    let below = prepare()?;
    let kernel = kernel::choose(&kernel::offers(&below)?, wanted)?.unpacked(&below)?;
    let xgre = build::release()?;
    let demonstration = Suite {
        name: "xtask".into(),
        binary: env::current_exe().context("finding this program")?,
        arguments: vec!["demonstrate".into()],
    };
    guest::show(&kernel, &initramfs::make(&kernel, &xgre, &[demonstration])?)
}

/// Where the kernels are; with what it takes to run them.
fn prepare() -> Result<PathBuf> {
    packages::install(&packages::missing(&packages::VM_TOOLS))?;
    Ok(root().join("target/vm"))
}

fn suites(filter: Option<&str>) -> Result<Vec<Suite>> {
    let mut command = build::cargo_test();
    command.args(["--no-run", "--message-format", "json"]);
    for name in SUITES {
        command.args(["--test", name]);
    }
    let messages = step("building the tests for the guests", command)?;
    let binary = |name: &str| {
        let artifact = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|message| message["target"]["name"] == name && message["executable"].is_string());
        let path = artifact.as_ref().and_then(|message| message["executable"].as_str());
        path.map(PathBuf::from).with_context(|| format!("cargo built no test {name}"))
    };
    // One test at a time: a guest is slow, and the tests have deadlines.
    let mut arguments = vec!["--test-threads=1".to_owned(), "--ignored".into()];
    arguments.extend(filter.map(str::to_owned));
    let suites = SUITES.into_iter().map(|name| {
        let arguments = arguments.clone();
        Ok(Suite { name: name.into(), binary: binary(name)?, arguments })
    });
    let suites: Vec<Suite> = suites.collect::<Result<_>>()?;
    let mut with_tests = Vec::new();
    for suite in suites {
        match (suite.tests()?.is_empty(), filter) {
            (false, _) => with_tests.push(suite),
            (true, Some(_)) => {}
            (true, None) => bail!("{} has no tests for a guest", suite.name),
        }
    }
    match (with_tests.is_empty(), filter) {
        (true, Some(word)) => bail!("no test for a guest has {word} in its name"),
        _ => Ok(with_tests),
    }
}

impl Suite {
    /// The tests that the guest must report.
    fn tests(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.binary)
            .args(&self.arguments)
            .arg("--list")
            .output()
            .with_context(|| format!("running {}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}
