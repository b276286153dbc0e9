//! `xgre save`: from what runs to the config file.

use std::{io, path::PathBuf};

use clap::Args;

use super::{Failure, output::print, with_daemon};
use crate::{
    config::{self, ConfigError, DEFAULT_PATH},
    files::replace,
};

#[derive(Debug, Args)]
pub(super) struct Save {
    /// The config file; comments and what is right stay in it
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Print what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre save --dry-run | diff /etc/xgre/xgre.toml -
  xgre save

Tunnels that `xgre tunnel add` made come back after a restart of the machine once they are saved, with
the addresses that their devices have now. Routes are not saved: add them to the tunnel as
`routes = [...]`, or leave them to whoever makes them now. The file is replaced as a whole or not at all.";

impl Save {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let name = self.file.display().to_string();
        let old = match config::text(&self.file) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                String::new()
            }
            text => text.map_err(Failure::config)?,
        };
        let (running, adopt) = with_daemon(async |daemon| Ok(daemon.running().await?))?;
        let new = config::save(&name, &old, &running, &adopt).map_err(Failure::config)?;
        if self.dry_run {
            return Ok(print(&new)?);
        }
        if new == old {
            return Ok(print(&format!("{name} says it all already\n"))?);
        }
        replace(&self.file, new.as_bytes(), 0o644)
            .map_err(|error| Failure::refused(format!("cannot write {name}: {error}")))?;
        let tunnels = running.len();
        let s = if tunnels == 1 { "" } else { "s" };
        print(&format!("{name}: {tunnels} tunnel{s} saved\n"))?;
        Ok(())
    }
}
