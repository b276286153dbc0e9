//! Debian's kernels, unpacked below target/vm and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{packages, progress::step};

/// Packages that depend on the newest build of a series, oldest first: Debian 12's own kernel, which
/// is the oldest that xgre is for, and the newer one that its security archive has.
const SERIES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// A kernel as its package has it.
pub(super) struct Kernel {
    /// As `uname -r` prints it.
    pub(super) release: String,
    /// Holds the package's files, and what is made for the guest.
    pub(super) directory: PathBuf,
}

/// Those that this machine's package sources have, unpacked; says which they have not.
pub(super) fn all(below: &Path) -> Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for series in SERIES {
        let Some(package) = newest(series)? else {
            eprintln!("  the package sources have no {series}: NOT tested on it");
            continue;
        };
        let release = package.trim_start_matches("linux-image-").to_owned();
        if kernels.iter().all(|kernel| kernel.release != release) {
            let directory = below.join(&release);
            unpack(&package, &release, &directory)?;
            kernels.push(Kernel { release, directory });
        }
    }
    if kernels.is_empty() {
        bail!(
            "the package sources of this machine have none of {}: these are Debian's kernels, and \
             the tests in guests need one",
            SERIES.join(", ")
        );
    }
    Ok(kernels)
}

/// The package of the newest build of a series.
fn newest(series: &str) -> Result<Option<String>> {
    if !packages::unknown(&[series]).is_empty() {
        packages::update()?;
    }
    let output = Command::new("apt-cache")
        .args(["depends", series])
        .output()
        .context("running apt-cache, which finds Debian's kernels")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
    Ok(text.lines().filter_map(depends).find(|package| package.starts_with("linux-image-")))
}

fn unpack(package: &str, release: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    // Renamed when it is whole, so that an interrupted attempt is not taken for a kernel.
    let unfinished = directory.with_file_name(format!("{release}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let mut download = Command::new("apt-get");
    // As root it would download as another user, who may not write here.
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]);
    step(&format!("apt-get download {package}"), in_directory(download, &unfinished))?;
    let archive = fs::read_dir(&unfinished)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    let mut extract = Command::new("dpkg-deb");
    extract.arg("-x").arg(&archive).arg(".");
    step(&format!("unpacking {package}"), in_directory(extract, &unfinished))?;
    fs::remove_file(archive)?;
    // The package's own script would do this when it is installed.
    let mut depmod = Command::new("depmod");
    depmod.args(["-b", ".", release]);
    step("depmod", in_directory(depmod, &unfinished))?;
    fs::rename(&unfinished, directory)
        .with_context(|| format!("renaming to {}", directory.display()))
}

impl Kernel {
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The files of these modules and of those that they need, in the order in which they load.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for name in names {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&self.directory).args(["-S", &self.release]);
            modprobe.args(["--show-depends", name]);
            let output = modprobe.output().context("running modprobe")?;
            if !output.status.success() {
                bail!(
                    "kernel {} has no module {name}: {}",
                    self.release,
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            // Others are "builtin NAME".
            let text = String::from_utf8_lossy(&output.stdout);
            for line in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(line.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

fn in_directory(mut command: Command, directory: &Path) -> Command {
    command.current_dir(directory);
    command
}
