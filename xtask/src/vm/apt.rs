//! Packages that are looked up and downloaded, not installed: from this machine's sources, or from
//! Debian's backports, of which this machine's package manager learns nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, progress::step};

/// Debian 13's, whose kernels run under any older Debian.
const BACKPORTS: &str = "http://deb.debian.org/debian trixie-backports main";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package sources.
#[derive(Debug, Clone)]
pub(super) struct Apt {
    /// Of sources that are not this machine's: what apt keeps about them.
    directory: Option<PathBuf>,
}

impl Apt {
    pub(super) fn of_machine() -> Self {
        Self { directory: None }
    }

    /// Fetches their index, too; where that fails, an earlier one will do.
    pub(super) fn of_backports(directory: &Path) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("there is no {KEYRING} to check them with");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(
            directory.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {BACKPORTS}\n"),
        )?;
        let apt = Self { directory: Some(directory.to_owned()) };
        let mut update = apt.command("apt-get");
        update.args(["-q", "-o", "Acquire::Languages=none", "update"]);
        let updated = step("looking for newer kernels", update);
        if apt.depends(super::kernel::NEWEST)?.is_empty() {
            updated?;
            bail!("they have no {}", super::kernel::NEWEST);
        }
        Ok(apt)
    }

    pub(super) fn name(&self) -> &'static str {
        match self.directory {
            None => "the package sources of this machine",
            Some(_) => "Debian's backports",
        }
    }

    /// What a package depends on; of a package that there is not, nothing.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        if self.directory.is_none() && !packages::unknown(&[package]).is_empty() {
            packages::update()?;
        }
        let output = self.command("apt-cache").args(["depends", package]).output();
        let output = output.context("running apt-cache, which finds Debian's kernels")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let depends = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
        Ok(text.lines().filter_map(depends).collect())
    }

    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        // As root it would download as another user, who may not write here.
        download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
        download.args(packages).current_dir(into);
        step(&format!("apt-get download {}", packages.join(" ")), download).map(drop)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(directory) = &self.directory {
            let directory = directory.display();
            for option in [
                format!("Dir::Etc::SourceList={directory}/sources.list"),
                "Dir::Etc::SourceParts=/dev/null".into(),
                format!("Dir::State::Lists={directory}/lists"),
                format!("Dir::Cache={directory}/cache"),
                "APT::Sandbox::User=root".into(),
            ] {
                command.args(["-o", &option]);
            }
        }
        command
    }
}
