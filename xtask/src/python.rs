//! Python packages that the tests run and the distribution does not have.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{packages, progress::step, root};

/// The reference implementation of Varlink, as a client that owes nothing to ours.
const VARLINK: &str = "varlink==31.0.0";

/// Installs them into `target/python`, beside nothing of the machine's.
pub(crate) fn ensure() -> Result<()> {
    let directory = root().join("target/python");
    let installed = directory.join("varlink-31.0.0.dist-info");
    if installed.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let pip = packages::find("pip3").context("pip3 is not installed")?;
    let mut install = Command::new(pip);
    install.args(["install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    install.args(["--root-user-action", "ignore", "--upgrade", "--target"]);
    install.arg(&directory).arg(VARLINK);
    step(&format!("pip3 install {VARLINK}"), install).map(drop)
}
