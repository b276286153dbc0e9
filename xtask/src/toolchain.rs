//! What builds the BPF programs: a Rust toolchain with the source of `core`, and bpf-linker.
//!
//! Two ways lead there. Rustup's nightly with `rust-src` is what most developers have. Where rustup
//! cannot get `rust-src`, Debian's `rustc-web` has it; linked into rustup as [`LINKED`], it is
//! found by gre-userspace/build.rs, which prefers it.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build::cargo, cargo_tools::CargoTool, packages, progress::step};

const LINKED: &str = "xgre-ebpf";
/// rustc-web is Debian's current rustc, which it keeps for building browsers.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

const LINKER: CargoTool = CargoTool {
    program: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
    takes: "2 to 5 minutes",
};
/// The LLVM that bpf-linker is built with; no older than that of the rustc whose output it links.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGES: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];

/// How the programs are built.
pub(crate) enum Way {
    Nightly,
    Distribution,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly => f.write_str("BPF programs are built with rustup's nightly"),
            Self::Distribution => {
                write!(
                    f,
                    "BPF programs are built with the distribution's rustc, linked as {LINKED}"
                )
            }
        }
    }
}

pub(crate) fn ensure() -> Result<Way> {
    let way = compiler()?;
    linker()?;
    Ok(way)
}

fn compiler() -> Result<Way> {
    let toolchains = rustup_home()?.join("toolchains");
    let linked = toolchains.join(LINKED);
    if usable(&linked) {
        return Ok(Way::Distribution);
    }
    let nightly = toolchains.join(format!("nightly-{}-unknown-linux-gnu", env::consts::ARCH));
    let reason = match usable(&nightly) {
        true => match llvm_of(&nightly)? {
            // A link whose target is gone would still be preferred by build.rs.
            llvm if llvm <= LLVM && !linked.exists() => return Ok(Way::Nightly),
            llvm => format!("rustup's nightly has LLVM {llvm}, bpf-linker {LLVM}"),
        },
        false => "rustup's nightly, or its rust-src, is not installed".into(),
    };
    eprintln!("setup: {reason}; taking the distribution's rustc for the BPF programs");
    install_compiler(&linked)?;
    Ok(Way::Distribution)
}

fn install_compiler(linked: &Path) -> Result<()> {
    packages::install(&COMPILER).with_context(|| alternative(&COMPILER))?;
    if !linked.exists() {
        let mut link = Command::new("rustup");
        link.args(["toolchain", "link", LINKED, "/usr"]);
        step(&format!("rustup toolchain link {LINKED} /usr"), link)?;
    }
    if !usable(linked) {
        bail!("{} was installed, and {} is still no Rust with source", COMPILER.join(" "), "/usr");
    }
    Ok(())
}

fn linker() -> Result<()> {
    if LINKER.is_there() {
        return Ok(());
    }
    let mut needed = LLVM_PACKAGES.to_vec();
    if !packages::exists("c++") {
        needed.push("g++");
    }
    packages::install(&needed).with_context(|| alternative(&LLVM_PACKAGES))?;
    let mut cargo = cargo();
    cargo
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("PATH", format!("{LLVM_PREFIX}/bin:{}", search_path()));
    LINKER.install(cargo)
}

/// What to do on a distribution without the packages.
fn alternative(packages: &[&str]) -> String {
    let unknown = packages::unknown(packages);
    if unknown.is_empty() {
        return format!("installing {}", packages.join(" "));
    }
    format!(
        "this distribution has no package {}. The other way to build the BPF programs is\n\n    \
         rustup toolchain install nightly --profile minimal --component rust-src\n    \
         {}\n\n\
         of which the second needs the files of LLVM {LLVM} (https://apt.llvm.org has packages), \
         and LLVM_PREFIX set to where they are",
        unknown.join(", "),
        LINKER.command()
    )
}

/// A toolchain that can build `core` for a target it has no copy for.
fn usable(toolchain: &Path) -> bool {
    toolchain.join("bin/rustc").is_file()
        && toolchain.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
}

/// The major version of the LLVM that a toolchain's rustc has.
fn llvm_of(toolchain: &Path) -> Result<u32> {
    let rustc = toolchain.join("bin/rustc");
    let output = Command::new(&rustc)
        .arg("-vV")
        .output()
        .with_context(|| format!("running {}", rustc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major =
        text.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next());
    let major = major.with_context(|| format!("{} names no LLVM version", rustc.display()))?;
    Ok(major.parse()?)
}

/// PATH, with cargo's own directory, which a login before cargo's installation lacks.
pub(crate) fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| home + "/.cargo"));
    match home {
        Ok(home) => format!("{path}:{home}/bin"),
        Err(_) => path,
    }
}

fn rustup_home() -> Result<PathBuf> {
    env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))
        .context("neither RUSTUP_HOME nor HOME is set")
}
