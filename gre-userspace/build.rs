//! Builds the BPF programs with the toolchain that `cargo xtask setup` chose, into `target/bpf`,
//! which every profile shares: compiling `core` for BPF takes over a minute.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain};

/// 32-bit ALU and jumps, and loads of header fields as whole words: the kernels of every
/// architecture we run on allow misaligned packet access, and it halves the header code.
const RUSTFLAGS: &str = "-Ctarget-cpu=v3 -Ctarget-feature=+allows-misaligned-mem-access";

/// The toolchain that `cargo xtask setup` links where rustup's nightly has no `rust-src`.
const DISTRIBUTION_TOOLCHAIN: &str = "xgre-ebpf";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("gre-userspace stands in the workspace")?;
    let out = output_directory()?;
    let programs = root.join("gre-ebpf");

    // SAFETY: this process has one thread; nothing else reads its environment.
    unsafe {
        env::set_var("OUT_DIR", &out);
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("CARGO_UNSTABLE_PROFILE_RUSTFLAGS", "true");
        env::set_var("CARGO_PROFILE_RELEASE_RUSTFLAGS", RUSTFLAGS);
        env::set_var("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_RUSTFLAGS", "-Cdebuginfo=0");
        env::set_var("CARGO_PROFILE_RELEASE_LTO", "true");
        env::set_var("CARGO_PROFILE_RELEASE_PANIC", "abort");
        // What cargo tells a build script about its own target must not reach the inner build.
        env::remove_var("CARGO_TARGET_DIR");
    }

    println!("cargo:rustc-env=XGRE_BPF_OBJECT={}", out.join("gre-ebpf").display());
    println!("cargo:rerun-if-changed={}", root.join("gre-ebpf-common/src").display());
    aya_build::build_ebpf(
        [Package {
            name: "gre-ebpf",
            root_dir: programs.to_str().ok_or_else(|| anyhow!("the path is not UTF-8"))?,
            ..Default::default()
        }],
        Toolchain::Custom(toolchain()),
    )
    .context("building the BPF programs failed; `cargo xtask setup` installs what that needs")
}

/// `target/bpf`, found from `target/PROFILE/build/PACKAGE/out`.
fn output_directory() -> Result<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let target = out.ancestors().nth(4).context("OUT_DIR is not below a target directory")?;
    let bpf = target.join("bpf");
    std::fs::create_dir_all(&bpf).with_context(|| format!("creating {}", bpf.display()))?;
    Ok(bpf)
}

/// The linked distribution toolchain where there is one, else rustup's nightly.
fn toolchain() -> &'static str {
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    match rustup {
        Some(home) if home.join("toolchains").join(DISTRIBUTION_TOOLCHAIN).exists() => {
            DISTRIBUTION_TOOLCHAIN
        }
        _ => "nightly",
    }
}
