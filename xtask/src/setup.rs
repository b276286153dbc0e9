//! Installs what building, running and testing need and this machine lacks. With nothing missing
//! it is done in milliseconds.

use anyhow::Result;

use crate::{packages, python, toolchain};

/// The whole of it, and what was found, for `cargo xtask setup`.
pub(crate) fn everything() -> Result<()> {
    let way = ensure()?;
    eprintln!("setup: nothing is missing; {way}");
    Ok(())
}

/// What the other tasks do first; says which compiler builds the BPF programs.
pub(crate) fn ensure() -> Result<toolchain::Way> {
    packages::install(&packages::missing(&packages::TOOLS))?;
    python::ensure()?;
    toolchain::ensure()
}
