//! `xgre run`: the daemon.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Failure, require_root};
use crate::{
    config::{self, DEFAULT_PATH},
    daemon::{self, Options},
    instance::Instance,
    loader::Build,
    model::Desired,
};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The config file [default: /etc/xgre/xgre.toml, where there is one]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// When stopped by SIGTERM or SIGINT, remove everything: programs, devices, maps and pins.
    /// Without it the tunnels go on forwarding, and the next daemon takes them over
    #[arg(long)]
    teardown: bool,
}

const EXAMPLES: &str = "\
Examples:
  xgre run
  xgre run --config ./xgre.toml --teardown
  XGRE_LOG=debug xgre run
  ip netns exec R1 xgre run                 one daemon a network namespace

XGRE_LOG chooses what is logged to standard error: error, warn, info (the default), debug, trace, or
a list such as `info,gre_userspace::netlink=debug`.";

impl Run {
    pub(super) fn execute(self) -> Result<(), Failure> {
        require_root(
            "xgre run needs root, to load BPF programs and to make devices\n\
             run `sudo xgre run` or `systemctl start xgre`",
        )?;
        log()?;
        let options = Options {
            desired: self.desired()?,
            config: self.config.clone().unwrap_or_else(|| DEFAULT_PATH.into()),
            instance: Instance::current()?,
            teardown: self.teardown,
            build: Build::THIS,
        };
        tokio::runtime::Runtime::new()?
            .block_on(daemon::run(options))
            .map_err(|error| Failure::refused(format!("xgre run: {error:#}")))
    }

    fn desired(&self) -> Result<Desired, Failure> {
        let path = match &self.config {
            Some(path) => path,
            None if Path::new(DEFAULT_PATH).exists() => Path::new(DEFAULT_PATH),
            None => return Ok(Desired::default()),
        };
        config::load(path).map_err(Failure::config)
    }
}

fn log() -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_env_var("XGRE_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| Failure::refused(format!("XGRE_LOG: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    if is_journal() {
        log.without_time().init()
    } else {
        log.init()
    }
    Ok(())
}

/// Whether standard error goes to systemd's journal, which has the time already (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stderr.and_then(|stderr| stderr.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}
