//! What is checked, cell by cell: each result is a line of the file that `XGRE_INTEROP` names, if any.

use std::{env, fs::OpenOptions, io::Write as _, time::Instant};

use anyhow::{Context as _, Result, ensure};
use tests::config::Xdp;

pub const TO_KERNEL: &str = "to";
pub const FROM_KERNEL: &str = "from";

/// What has been checked, and what of it failed.
pub struct Checks {
    /// The XDP mode of xgre at R1.
    near: String,
    log: Log,
    failures: Vec<String>,
}

impl Checks {
    pub fn new(xdp: Xdp) -> Result<Self> {
        let near = format!("{xdp:?}").to_lowercase();
        Ok(Self { near, log: Log::new()?, failures: Vec::new() })
    }

    /// Of a cell: outer protocol, options and inner protocol.
    pub fn check(
        &mut self,
        [outer, options, inner]: [&str; 3],
        direction: &str,
        what: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        let result = work();
        let milliseconds = started.elapsed().as_millis().to_string();
        let result = result.map_err(|error| format!("{error:#}").replace(['\n', '\t'], " "));
        let said = result.as_ref().map_or_else(|error| error.as_str(), |()| "ok");
        self.log.line(&[
            "check",
            &self.near,
            outer,
            options,
            inner,
            direction,
            what,
            &milliseconds,
            said,
        ])?;
        if let Err(error) = result {
            tests::interrupt::check()?;
            self.failures.push(format!(
                "{outer}, {options}, {inner} {direction} the kernel, {what}: {error}"
            ));
        }
        Ok(())
    }

    pub fn conclude(self) -> Result<()> {
        ensure!(self.failures.is_empty(), "these failed:\n{}", self.failures.join("\n"));
        Ok(())
    }
}

/// Lines of words with tabs between them.
struct Log(Option<std::fs::File>);

impl Log {
    fn new() -> Result<Self> {
        let Some(path) = env::var_os("XGRE_INTEROP") else { return Ok(Self(None)) };
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Ok(Self(Some(file.with_context(|| format!("opening {}", path.display()))?)))
    }

    fn line(&mut self, words: &[&str]) -> Result<()> {
        if let Some(file) = &mut self.0 {
            file.write_all((words.join("\t") + "\n").as_bytes())?;
        }
        Ok(())
    }
}
