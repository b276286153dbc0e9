//! A clean system of this machine's distribution: what is essential, and systemd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    packages::{self, Tool},
    progress::step,
};

const TOOLS: [Tool; 1] = [Tool { program: "mmdebstrap", package: "mmdebstrap" }];
const INCLUDED: &str = "systemd,systemd-sysv,iproute2";

/// The directory that it is in; made once.
pub(super) fn ensure(below: &Path) -> Result<PathBuf> {
    packages::install(&packages::missing(&TOOLS))?;
    let root = below.join("root");
    if root.exists() {
        return Ok(root);
    }
    // Renamed when it is whole, so that an interrupted attempt is not taken for a system.
    let unfinished = below.join("root.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .with_context(|| format!("removing {}", unfinished.display()))?;
    }
    let suite = suite()?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--mode=root", "--variant=essential", "--include", INCLUDED, &suite]);
    make.arg(&unfinished);
    step(&format!("a clean system of {suite} (half a minute the first time)"), make)?;
    fs::rename(&unfinished, &root).with_context(|| format!("renaming to {}", root.display()))?;
    Ok(root)
}

/// The codename of this machine's distribution, whose libraries xgre was linked with.
fn suite() -> Result<String> {
    let file = "/etc/os-release";
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let suite = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.map(|suite| suite.trim_matches('"').to_owned());
    suite.with_context(|| {
        format!("{file} has no VERSION_CODENAME: the package is for Debian and Ubuntu")
    })
}
