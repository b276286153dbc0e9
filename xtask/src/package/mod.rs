//! `cargo xtask package`: a Debian package of xgre, and its installation on a clean system as a test.

mod root;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, cargo, cargo_test},
    cargo_tools::DEB,
    packages::{self, Tool},
    progress::step,
    root,
    run::require_root,
    setup,
    test::attended,
};

/// What building and checking a package runs besides.
const TOOLS: [Tool; 4] = [
    Tool { program: "dpkg-shlibdeps", package: "dpkg-dev" },
    Tool { program: "strip", package: "binutils" },
    Tool { program: "xz", package: "xz-utils" },
    Tool { program: "groff", package: "groff-base" },
];

/// `cargo xtask package`.
pub(crate) fn everything() -> Result<()> {
    setup::ensure()?;
    let package = build()?;
    let mut list = Command::new("dpkg-deb");
    list.arg("--contents").arg(&package);
    print!("{}", step("what is in it", list)?);
    println!("\n{}\n\n    sudo apt install {0}\n\ninstalls it.", package.display());
    Ok(())
}

/// `cargo xtask package --test`.
pub(crate) fn tested() -> Result<()> {
    require_root("cargo xtask package --test")?;
    setup::ensure()?;
    test()
}

/// Builds it, and runs the suite `package` with it.
pub(crate) fn test() -> Result<()> {
    let package = build()?;
    let clean = root::ensure(&directory())?;
    let mut command = cargo_test();
    command
        .args(["--test", "package", "--", "--ignored"])
        .env("XGRE_PACKAGE", package)
        .env("XGRE_CLEAN_ROOT", clean);
    attended(command, &log())
}

/// What the suite has printed.
pub(crate) fn log() -> PathBuf {
    root().join("target/package.log")
}

fn directory() -> PathBuf {
    root().join("target/package")
}

/// Returns where the package is.
fn build() -> Result<PathBuf> {
    packages::install(&packages::missing(&TOOLS))?;
    DEB.ensure()?;
    let xgre = build::release()?;
    let directory = directory();
    generate(&xgre, &directory)?;
    let mut deb = cargo();
    deb.args(["deb", "--package", "gre-userspace", "--no-build", "--strip", "--output"])
        .arg(&directory);
    let said = step("cargo deb", deb)?;
    let package = said.lines().last().map(PathBuf::from);
    package
        .filter(|path| path.is_file())
        .with_context(|| format!("cargo deb named no file: {said}"))
}

/// The parts of the package that are made of others.
fn generate(xgre: &Path, directory: &Path) -> Result<()> {
    // A page of a command that there is no more must not be packed again.
    for name in ["man", "completions"] {
        let earlier = directory.join(name);
        if earlier.exists() {
            fs::remove_dir_all(&earlier)
                .with_context(|| format!("removing {}", earlier.display()))?;
        }
    }
    let mut generate = Command::new(xgre);
    generate.arg("generate").arg(directory);
    step("man pages and completions", generate)?;
    let example = root().join("gre-userspace/examples/xgre.toml");
    let example =
        fs::read_to_string(&example).with_context(|| format!("reading {}", example.display()))?;
    let config = directory.join("xgre.toml");
    fs::write(&config, commented(&example)?)
        .with_context(|| format!("writing {}", config.display()))
}

/// The example as it is installed: nothing in force. A setting has a `#` in front, a remark `# `.
fn commented(example: &str) -> Result<String> {
    let mut text = String::new();
    for line in example.lines() {
        match line.chars().next() {
            None | Some('#') => {}
            Some(' ') => bail!("an indented line would look like a remark: {line}"),
            Some(_) => text.push('#'),
        }
        text += line;
        text.push('\n');
    }
    Ok(text)
}
