//! Programs of crates.io that are run, and not built in.

use std::{env, process::Command};

use anyhow::Result;

use crate::{build::cargo, progress::step, toolchain::search_path};

pub(crate) struct CargoTool {
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    /// To `cargo install`.
    pub(crate) options: &'static [&'static str],
    /// How long installing takes, for who waits.
    pub(crate) takes: &'static str,
}

/// Makes Debian packages. Unoptimized, and with the distribution's xz, it is built four times as fast.
pub(crate) const DEB: CargoTool = CargoTool {
    program: "cargo-deb",
    version: "3.8.0",
    options: &["--debug", "--no-default-features"],
    takes: "half a minute",
};

/// Checks licenses and sources of what is built in.
pub(crate) const DENY: CargoTool = CargoTool {
    program: "cargo-deny",
    version: "0.20.2",
    options: &["--debug"],
    takes: "a minute",
};

impl CargoTool {
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        self.install(cargo())
    }

    pub(crate) fn is_there(&self) -> bool {
        env::split_paths(&search_path()).any(|path| path.join(self.program).is_file())
    }

    /// By a cargo whose environment may say more.
    pub(crate) fn install(&self, mut cargo: Command) -> Result<()> {
        let command = self.command();
        cargo.args(command.split_whitespace().skip(1));
        step(&format!("{command} ({})", self.takes), cargo).map(drop)
    }

    /// What installs it, as a line for a shell.
    pub(crate) fn command(&self) -> String {
        let Self { program, version, options, .. } = self;
        format!("cargo install {program} --version {version} --locked {}", options.join(" "))
    }
}
