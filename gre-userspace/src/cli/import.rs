//! `xgre import`: tunnels of systemd-networkd, as tables of a config file.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::Args;

use super::{Failure, output::print};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Files with `Kind=gre`, `gretap`, `ip6gre` or `ip6gretap`; other kinds are left out
    #[arg(value_name = "NETDEV", required = true)]
    files: Vec<PathBuf>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre import /etc/systemd/network/*.netdev
  xgre import /etc/systemd/network/gre1.netdev >> /etc/xgre/xgre.toml && xgre check

Addresses and routes stay where they are: a .network file with `[Match] Name=gre1` applies to the device
that xgre makes as it did to networkd's. Then take the .netdev file away, and `Tunnel=gre1` out of
the .network file of the underlay: else networkd makes a device of the same name.";

impl Import {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let mut text = String::new();
        for file in &self.files {
            let name = file.display();
            let refused = |reason: String| Failure::refused(format!("{name}: {reason}"));
            let netdev = fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
            match config::netdev(&netdev).map_err(refused)? {
                Some(tunnel) => {
                    _ = writeln!(text, "# From {name}\n[[tunnel]]");
                    for (key, value) in config::options(&tunnel) {
                        _ = writeln!(text, "{key} = {value}");
                    }
                    text.push('\n');
                }
                None => eprintln!("{name}: no GRE tunnel, left out"),
            }
        }
        Ok(print(&text)?)
    }
}
