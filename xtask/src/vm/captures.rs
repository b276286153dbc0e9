//! What the tests in a guest have captured: carried out on a disk, as an archive, and judged by tshark here.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};
use tests::capture::judge_kept;

use super::kernel::Kernel;
use crate::progress::step;

/// More than all captures; what is not written takes no room.
const SIZE: u64 = 512 << 20;

/// The file that is the guest's disk.
pub(super) fn disk(kernel: &Kernel) -> PathBuf {
    kernel.directory.join("captures.tar")
}

/// Makes it anew.
pub(super) fn make_disk(kernel: &Kernel) -> Result<()> {
    let file = disk(kernel);
    let made = File::create(&file).and_then(|disk| disk.set_len(SIZE));
    made.with_context(|| format!("making {}", file.display()))
}

/// That tshark complains of any capture is an error, and so it is, unless tests were chosen by a word,
/// that there is none.
pub(super) fn judge(kernel: &Kernel, chosen: bool) -> Result<()> {
    let started = Instant::now();
    let directory = kernel.directory.join("captures");
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("removing {}", directory.display()))?;
    }
    fs::create_dir(&directory)?;
    let mut extract = Command::new("tar");
    extract.arg("-x").arg("-f").arg(disk(kernel)).arg("-C").arg(&directory);
    step(&format!("taking the captures of {}", kernel.release), extract)?;
    if chosen && fs::read_dir(&directory)?.next().is_none() {
        eprintln!("  {}: these tests keep no capture", kernel.release);
        return Ok(());
    }
    let judged = judge_kept(&directory).with_context(|| format!("on kernel {}", kernel.release))?;
    eprintln!(
        "  {}: tshark finds {} frames of {} cells in {} captures right, but for {} GRE checksums that are \
         the kernel's own fault ({:.0} s)",
        kernel.release,
        judged.frames,
        judged.cells,
        judged.captures,
        judged.wrong_sums,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
