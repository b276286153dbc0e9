//! Debian's kernels, unpacked below target/vm and not installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use crate::progress::step;

/// Packages that depend on the newest build of a series, in this machine's own sources: Debian 12's
/// kernel, which is the oldest that xgre is for, and the newer one that its security archive has.
const SERIES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];
/// The same in Debian's backports, which have the newest kernel that is released at all.
pub(super) const NEWEST: &str = "linux-image-cloud-amd64";

/// A kernel that can be had.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// As `uname -r` prints it.
    pub(super) release: String,
    package: String,
    apt: Apt,
}

/// A kernel as its packages have it.
pub(super) struct Kernel {
    pub(super) release: String,
    /// Holds the packages' files, and what is made for the guest.
    pub(super) directory: PathBuf,
}

/// What there is, oldest first; says which of what is wanted there is not.
pub(super) fn offers(below: &Path) -> Result<Vec<Offer>> {
    let machine = Apt::of_machine();
    let mut sources: Vec<_> = SERIES.map(|series| (machine.clone(), series)).into();
    match Apt::of_backports(&below.join("apt")) {
        Ok(backports) => sources.push((backports, NEWEST)),
        Err(error) => eprintln!("  without Debian's backports: {error:#}"),
    }
    let mut offers: Vec<Offer> = Vec::new();
    for (apt, series) in sources {
        match apt.depends(series)?.into_iter().find(|package| is_image(package)) {
            Some(package) => {
                let release = package.trim_start_matches("linux-image-").to_owned();
                if offers.iter().all(|offer| offer.release != release) {
                    offers.push(Offer { release, package, apt });
                }
            }
            None => eprintln!("  {} have no {series}: NOT tested on it", apt.name()),
        }
    }
    if offers.is_empty() {
        bail!(
            "neither the package sources of this machine nor Debian's backports have one of {}: \
             these are Debian's kernels, and the tests in guests need one",
            SERIES.join(", ")
        );
    }
    offers.sort_by_key(|offer| numbers(&offer.release));
    Ok(offers)
}

/// The oldest and the newest, which are those that are tested on.
pub(super) fn extremes(mut offers: Vec<Offer>) -> Vec<Offer> {
    if offers.len() > 2 {
        offers.drain(1..offers.len() - 1);
    }
    offers
}

/// The newest whose release starts with these numbers: 6.1 is not 6.12.
pub(super) fn choose(offers: &[Offer], wanted: &str) -> Result<Offer> {
    let starts = |release: &str| {
        let rest = release.strip_prefix(wanted);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let found = offers.iter().rev().find(|offer| starts(&offer.release));
    let releases: Vec<_> = offers.iter().map(|offer| offer.release.as_str()).collect();
    let there_are = || {
        let there_are = releases.join("\n  ");
        format!(
            "there is no kernel {wanted}. There are\n  {there_are}\nof which the start is enough"
        )
    };
    found.cloned().with_context(there_are)
}

/// A metapackage depends on other things too.
fn is_image(package: &str) -> bool {
    package.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(char::is_numeric))
}

/// 7.3.4+deb13-cloud-amd64 is 7, 3, 4.
fn numbers(release: &str) -> Vec<u32> {
    let numbers = release.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next();
    numbers.unwrap_or_default().split('.').filter_map(|number| number.parse().ok()).collect()
}

impl Offer {
    /// Downloads and unpacks it, unless that has been done.
    pub(super) fn unpacked(&self, below: &Path) -> Result<Kernel> {
        let directory = below.join(&self.release);
        if !directory.exists() {
            self.unpack(&directory)?;
        }
        Ok(Kernel { release: self.release.clone(), directory })
    }

    fn unpack(&self, directory: &Path) -> Result<()> {
        // Renamed when it is whole, so that an interrupted attempt is not taken for a kernel.
        let unfinished = directory.with_file_name(format!("{}.unfinished", self.release));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        // Newer ones keep the image and the modules in packages of their own.
        let mut packages = vec![self.package.clone()];
        packages.extend(
            self.apt.depends(&self.package)?.into_iter().filter(|package| {
                package.starts_with("linux-") && package.ends_with(&self.release)
            }),
        );
        self.apt.download(&packages, &unfinished)?;
        for entry in fs::read_dir(&unfinished)? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                let mut extract = Command::new("dpkg-deb");
                extract.arg("-x").arg(&archive).arg(".").current_dir(&unfinished);
                step(&format!("unpacking {}", archive.display()), extract)?;
                fs::remove_file(archive)?;
            }
        }
        // Where /lib is a link to /usr/lib, packages no longer name it.
        if !unfinished.join("lib").exists() {
            symlink("usr/lib", unfinished.join("lib"))?;
        }
        // The package's own script would do this when it is installed.
        let mut depmod = Command::new("depmod");
        depmod.args(["-b", ".", &self.release]).current_dir(&unfinished);
        step("depmod", depmod)?;
        fs::rename(&unfinished, directory)
            .with_context(|| format!("renaming to {}", directory.display()))
    }
}

impl Kernel {
    pub(super) fn image(&self) -> Result<PathBuf> {
        let Self { release, directory } = self;
        let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
        let mut places = places.iter().map(|place| directory.join(place));
        places.find(|place| place.is_file()).with_context(|| {
            format!("the packages of {release}, in {}, have no vmlinuz", directory.display())
        })
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
            // Others are "builtin NAME". Behind the file may be parameters, which are this machine's wish.
            let text = String::from_utf8_lossy(&output.stdout);
            for line in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let Some(file) = line.split_whitespace().next().map(PathBuf::from) else {
                    continue;
                };
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Vec<Offer> {
        let releases = ["7.3.4+deb13-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.117+deb12"];
        let apt = Apt::of_machine();
        let offer = |release: &str| Offer {
            release: release.into(),
            package: format!("linux-image-{release}"),
            apt: apt.clone(),
        };
        let mut offers: Vec<_> = releases.map(offer).into();
        offers.sort_by_key(|offer| numbers(&offer.release));
        offers
    }

    #[test]
    fn a_release_is_chosen_by_whole_numbers() {
        let chosen = |wanted| choose(&offers(), wanted).map(|offer| offer.release);
        assert_eq!(chosen("6.1").unwrap(), "6.1.0-56-cloud-amd64");
        assert_eq!(chosen("6.12").unwrap(), "6.12.117+deb12");
        assert_eq!(chosen("6").unwrap(), "6.12.117+deb12");
        let error = chosen("5").unwrap_err().to_string();
        assert!(error.contains("no kernel 5.") && error.contains("7.3.4+deb13"), "{error}");
    }

    #[test]
    fn tests_run_on_the_oldest_and_the_newest() {
        let releases: Vec<_> = extremes(offers()).into_iter().map(|offer| offer.release).collect();
        assert_eq!(releases, ["6.1.0-56-cloud-amd64", "7.3.4+deb13-cloud-amd64"]);
    }

    #[test]
    fn an_image_is_told_from_its_metapackage() {
        assert!(is_image("linux-image-6.1.0-56-cloud-amd64"));
        assert!(!is_image("linux-image-cloud-amd64") && !is_image("linux-modules-cloud-amd64"));
    }
}
