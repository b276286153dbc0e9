//! Child processes with captured output, a deadline for everything, and nothing left running.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::interrupt;

/// How often a wait looks again. Short against the 100 ms that a route change may take.
const POLL: Duration = Duration::from_millis(5);

/// Calls `attempt` until it succeeds; after the deadline its last error is the reason given.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Err(error.context(format!("waited {within:?} in vain until {what}")));
        }
        thread::sleep(POLL);
    }
}

/// Runs a command to its end and returns what it wrote to stdout; failure is an error that shows
/// all its output.
pub fn run(command: Command, within: Duration) -> Result<String> {
    Process::spawn(command)?.finish(within)?.success()
}

/// A running child; killed and reaped when dropped.
pub struct Process {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Output goes to memory, so that a chatty child never blocks on a full pipe.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let line = command_line(&command);
        let stdout = memory_file("stdout")?;
        let stderr = memory_file("stderr")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("starting `{line}`"))?;
        Ok(Self { line, child, stdout, stderr })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn output(&self) -> Output {
        Output { stdout: contents(&self.stdout), stderr: contents(&self.stderr) }
    }

    /// An error that shows the output if it has ended, whatever its status.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended with {status}\n{}", self.line, self.output()),
        }
    }

    /// Waits for its end.
    pub fn finish(mut self, within: Duration) -> Result<Finished> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Finished { line: self.line.clone(), status, output: self.output() });
            }
            interrupt::check()?;
            if Instant::now() >= deadline {
                bail!("`{}` did not end within {within:?}\n{}", self.line, self.output());
            }
            thread::sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(mut self, within: Duration) -> Result<Finished> {
        if self.try_wait()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        self.finish(within)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to `{}`", self.line))
    }

    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for `{}`", self.line))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    /// SIGTERM first: cargo and apt pass an end on to their own children and release their locks.
    fn drop(&mut self) {
        let grace = Instant::now() + Duration::from_secs(2);
        if matches!(self.child.try_wait(), Ok(None)) && kill(self.pid(), Signal::SIGTERM).is_ok() {
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < grace {
                thread::sleep(POLL);
            }
        }
        // Fails where it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A child that has ended.
pub struct Finished {
    line: String,
    pub status: ExitStatus,
    pub output: Output,
}

impl Finished {
    /// What it wrote to stdout, if it succeeded.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.output.stdout);
        }
        Err(anyhow!("`{}` failed with {}\n{}", self.line, self.status, self.output))
    }

    /// What it wrote to stderr, if it failed: for commands that must be refused.
    pub fn failure(self) -> Result<String> {
        if self.status.success() {
            bail!("`{}` should have failed, and succeeded\n{}", self.line, self.output);
        }
        Ok(self.output.stderr)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for text in [&self.stdout, &self.stderr] {
            for line in text.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn memory_file(name: &str) -> Result<File> {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("creating a memory file")?;
    Ok(File::from(file))
}

/// Reads without moving the offset, which the child shares.
fn contents(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(output not readable: {error})"),
    }
}
