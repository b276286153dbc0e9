//! `xgre stats`: counters, once or continuously.

mod text;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;

pub use self::text::text;
use super::{Clock, Failure, Output, output::print, runtime};
use crate::{
    control::client::Client,
    instance::Instance,
    report::{self, TunnelStats},
};

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Only this tunnel
    name: Option<String>,
    /// Again every second, or every SECONDS, with rates, until Ctrl-C
    #[arg(
        short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    watch: Option<u32>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre stats
  xgre stats tunnel0 --watch                every second, with rates
  xgre stats --watch 10 | tee stats.log     successive blocks, for a log
  xgre -j stats                             JSON; with --watch one object a line

Bytes are those of inner packets. `xdp` is the fast path and `tc` the one that the kernel takes.";

/// The counters at one time, and at the time before where rates are wanted.
#[derive(Debug, Clone)]
pub struct Sample {
    pub stats: report::Stats,
    /// What was read earlier, and how long before.
    pub before: Option<(report::Stats, Duration)>,
}

impl Stats {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        let socket = Instance::current()?.socket;
        runtime()?.block_on(async {
            match self.watch {
                None => {
                    let stats = self.read(&socket).await?;
                    self.print(&Sample { stats, before: None }, output)
                }
                Some(seconds) => tokio::select! {
                    watched = self.watch(&socket, output, seconds) => watched,
                    interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
                },
            }
        })
    }

    async fn watch(&self, socket: &Path, output: Output, seconds: u32) -> Result<(), Failure> {
        /// Home, then erase to the end: no flicker.
        const REDRAW: &str = "\x1b[H\x1b[J";
        let redraw = io::stdout().is_terminal() && !output.json;
        let mut ticks = tokio::time::interval(Duration::from_secs(seconds.into()));
        let mut last: Option<(report::Stats, Instant)> = None;
        loop {
            ticks.tick().await;
            // A new connection each time: the watch goes on when the daemon is restarted.
            let read = self.read(socket).await;
            let now = Instant::now();
            if redraw {
                print(REDRAW)?;
            }
            match read {
                Ok(stats) => {
                    let before = last.take().map(|(stats, then)| (stats, now - then));
                    last = Some((stats.clone(), now));
                    self.print(&Sample { stats, before }, output)?;
                }
                Err(failure) if last.is_none() => return Err(failure),
                Err(failure) => eprintln!("{failure}"),
            }
        }
    }

    async fn read(&self, socket: &Path) -> Result<report::Stats, Failure> {
        let mut stats = Client::connect(socket).await?.stats().await?;
        if let Some(name) = &self.name {
            stats.tunnels.retain(|tunnel: &TunnelStats| tunnel.name == *name);
            if stats.tunnels.is_empty() {
                return Err(Failure::refused(format!("Device \"{name}\" does not exist.")));
            }
        }
        Ok(stats)
    }

    fn print(&self, sample: &Sample, output: Output) -> Result<(), Failure> {
        print(&if output.json {
            output.json(&sample.stats)?
        } else {
            text(sample, Clock::local(), output.paint())
        })?;
        Ok(())
    }
}
