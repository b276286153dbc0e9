//! `xgre port`: the interfaces that packets are forwarded between.

use std::fmt::Write as _;

use clap::Subcommand;

use super::{
    Failure, Output,
    output::{Paint, print},
    with_daemon,
};
use crate::report::PortInfo;

#[derive(Debug, Default, Subcommand)]
pub(super) enum Verb {
    /// Show every port, how XDP runs there, and why not better
    #[default]
    #[command(alias = "list", after_help = EXAMPLES)]
    Show,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre port show
  xgre -j -p port show";

pub(super) fn execute(Verb::Show: Verb, output: Output) -> Result<(), Failure> {
    let ports = with_daemon(async |daemon| Ok(daemon.ports().await?))?;
    print(&if output.json { output.json(&ports)? } else { text(&ports, output.paint()) })?;
    Ok(())
}

/// A line for each port, followed by indented ones with what to know about it.
pub fn text(ports: &[PortInfo], paint: Paint) -> String {
    if ports.is_empty() {
        return "no ports: xgre takes every Ethernet interface that has an address, or the \
                [[port]]s of its config\n"
            .into();
    }
    let mut text = String::new();
    for PortInfo { name, ifindex, xdp, note, forwarding } in ports {
        let mode = match xdp.as_str() {
            "native" => paint.good(xdp),
            _ => paint.bad(xdp),
        };
        let forwarding_word = if *forwarding { paint.good("on") } else { paint.bad("off") };
        let name = paint.name(name);
        _ = writeln!(text, "{ifindex}: {name}: xdp {mode} forwarding {forwarding_word}");
        if let Some(note) = note {
            _ = writeln!(text, "    {note}");
        }
        if !forwarding {
            text.push_str("    packets that arrive here are not forwarded: ");
            text.push_str("`sysctl net.ipv4.ip_forward=1` turns it on\n");
        }
    }
    text
}
