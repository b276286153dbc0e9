//! Tests in guests: on other kernels than this machine's, and with what this machine's may not have.
//!
//! A guest runs a Debian kernel under QEMU's emulation, which needs no virtualization, with nothing
//! in it but xgre, the tests and the programs that they run.

mod guest;
mod initramfs;
mod kernel;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{build, packages, progress::step, root};

/// A test program that runs in the guests.
struct Suite {
    name: &'static str,
    /// Only tests that this machine's kernel is not asked for (`#[ignore]`).
    ignored: bool,
    binary: PathBuf,
}

/// What the guests run: against the kernel's GRE, and what depends on the kernel's age: how TC
/// programs are attached and found again.
const SUITES: [(&str, bool); 1] = [("kernel_gre", true)];

/// Every suite on every kernel; all of them, even after a failure.
pub(crate) fn tests() -> Result<()> {
    packages::install(&packages::missing(&packages::VM_TOOLS))?;
    let kernels = kernel::all(&root().join("target/vm"))?;
    // As it is installed: unoptimized code takes minutes to fill the maps in an emulation.
    let xgre = build::release()?;
    let suites = suites()?;
    let mut failures = Vec::new();
    for kernel in &kernels {
        let initramfs = initramfs::make(kernel, &xgre, &suites)?;
        if let Err(error) = guest::run(kernel, &initramfs, &suites) {
            tests::interrupt::check()?;
            eprintln!("{error}");
            failures.push(kernel.release.clone());
        }
    }
    if !failures.is_empty() {
        bail!("tests failed on {}; what and why is shown above", failures.join(" and "));
    }
    Ok(())
}

fn suites() -> Result<Vec<Suite>> {
    let mut command = build::cargo();
    command.args(["test", "--package", "tests", "--no-run", "--message-format", "json"]);
    for (name, _) in SUITES {
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
    SUITES
        .into_iter()
        .map(|(name, ignored)| Ok(Suite { name, ignored, binary: binary(name)? }))
        .collect()
}

impl Suite {
    /// One test at a time: a guest is slow, and the tests have deadlines.
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--test-threads=1"];
        if self.ignored {
            arguments.push("--ignored");
        }
        arguments
    }

    /// The tests that the guest must report.
    fn tests(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.binary)
            .args(self.arguments())
            .arg("--list")
            .output()
            .with_context(|| format!("running {}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let tests: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect();
        if tests.is_empty() {
            bail!("{} has no tests for a guest", self.name);
        }
        Ok(tests)
    }
}
