//! systemd-networkd, which configures a gateway's devices by its files.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::namespace::{Namespace, Resident};

/// Runs it with these files, each a name and what is in it.
pub fn start(gateway: &Namespace, files: &[(&str, &str)]) -> Result<Resident> {
    let directory = gateway.scratch().join("network");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    let directory = directory.to_str().context("the scratch directory's name is not UTF-8")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("networkd/run.sh");
    let script = script.to_str().context("the script's name is not UTF-8")?;
    gateway.spawn("unshare", &["--mount", "sh", script, directory])
}
