//! Builds the C programs with clang, which `cargo xtask setup` installs.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

const PROGRAMS: [&str; 6] = ["gateway", "generator", "meter", "null", "restore", "sink"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=c");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    // linux/bpf.h includes asm/types.h, which Debian keeps by architecture.
    let headers = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
    for program in PROGRAMS {
        let status = Command::new("clang")
            .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
            .args(["-target", "bpf", "-mcpu=v3", "-isystem", &headers, "-c", "-o"])
            .arg(out.join(program))
            .arg(format!("c/{program}.c"))
            .status()
            .context("running clang failed; `cargo xtask setup` installs it")?;
        ensure!(status.success(), "clang could not compile bench/c/{program}.c");
    }
    Ok(())
}
