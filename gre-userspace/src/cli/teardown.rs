//! `xgre teardown`: the end of forwarding, once no daemon runs.

use clap::Args;
use serde::Serialize;

use super::{Failure, Output, output::print, require_root, runtime};
use crate::{instance::Instance, teardown};

#[derive(Debug, Args)]
pub(super) struct Teardown {}

pub(super) const EXAMPLES: &str = "\
Examples:
  systemctl stop xgre                       the tunnels go on forwarding
  xgre teardown                             they are gone
  ip netns exec R1 xgre teardown            those of another network namespace

A daemon must not be running. Nothing in /etc/xgre is touched.";

#[derive(Serialize)]
struct TornDown {
    tunnels: Vec<String>,
}

impl Teardown {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        require_root(
            "xgre teardown needs root, to remove devices and BPF programs: run `sudo xgre teardown`",
        )?;
        let instance = Instance::current()?;
        let tunnels = runtime()?
            .block_on(teardown::teardown(&instance))
            .map_err(|error| Failure::refused(format!("xgre teardown: {error}")))?;
        let removed = TornDown { tunnels };
        print(&if output.json { output.json(&removed)? } else { text(&removed) })?;
        Ok(())
    }
}

fn text(TornDown { tunnels }: &TornDown) -> String {
    match tunnels.len() {
        0 => "there are no tunnels; nothing of xgre is left in the kernel\n".to_owned(),
        1 => format!("removed the tunnel {}\n", tunnels[0]),
        count => format!("removed {count} tunnels: {}\n", tunnels.join(", ")),
    }
}
