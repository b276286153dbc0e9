//! `xgre check`: whether a config file can be used. It needs neither root nor a daemon.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Failure, Output, output::print};
use crate::config::{self, DEFAULT_PATH};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The config file
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Print the JSON schema of config files instead, for editors and other programs
    #[arg(long)]
    schema: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre check
  xgre check ./xgre.toml && xgre apply ./xgre.toml
  xgre check --schema > xgre.schema.json

It exits with 0 where the file can be used, else with 1, and says on standard error what is wrong and
where. What is legal and yet hardly meant is a warning.";

#[derive(Serialize)]
struct Checked {
    file: String,
    tunnels: usize,
    ports: usize,
    warnings: Vec<String>,
}

impl Check {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        if self.schema {
            return Ok(print(&Output { pretty: true, ..output }.json(&config::schema())?)?);
        }
        let file = self.file.display().to_string();
        let desired = config::read(&self.file).map_err(Failure::config)?;
        let checked = Checked {
            tunnels: desired.tunnels.len(),
            ports: desired.ports.len(),
            warnings: config::warnings(&desired),
            file,
        };
        print(&if output.json { output.json(&checked)? } else { text(&checked) })?;
        Ok(())
    }
}

fn text(checked: &Checked) -> String {
    let Checked { file, tunnels, ports, warnings } = checked;
    let ports = match ports {
        0 => "every Ethernet interface that has an address is a port".to_owned(),
        1 => "1 port".to_owned(),
        ports => format!("{ports} ports"),
    };
    let s = if *tunnels == 1 { "" } else { "s" };
    let mut text = format!("{file}: right: {tunnels} tunnel{s}, {ports}\n");
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
