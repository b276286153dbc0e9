//! The command line: iproute2's words where iproute2 has them. `xgre run` is the daemon, every
//! other verb a client of it.

mod apply;
mod check;
mod clock;
mod doctor;
mod dsfield;
mod failure;
mod import;
mod link;
mod mismatch;
mod output;
mod port;
mod run;
mod save;
mod stats;
mod tunnel;
mod words;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub use self::{
    clock::Clock,
    doctor::text as doctor_text,
    failure::Failure,
    output::{Output, Paint},
    port::text as ports_text,
    stats::{Sample, text as stats_text},
    tunnel::{Probed, json as tunnels_json, probe_json, probe_text, text as tunnels_text},
    words::{change as change_of_words, link as link_of_words, tunnel as tunnel_of_words},
};
use crate::{control::client::Client, instance::Instance};

/// Forwards GRE at line rate.
#[derive(Debug, Parser)]
#[command(version, infer_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    object: Object,
}

const EXAMPLES: &str = "\
Examples:
  xgre run
  xgre tunnel add tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196 ttl 245
  ip address add 172.16.168.1/30 dev tunnel0
  ip link set tunnel0 up
  xgre tunnel show
  xgre stats --watch

  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196

The words are those of `ip tunnel` and `ip link`, and may be shortened as there: `xgre t a`,
`xgre tu sh`.";

#[derive(Debug, Subcommand)]
enum Object {
    /// Run the daemon in the foreground; it needs root
    Run(run::Run),
    /// Add, change, delete and show tunnels
    #[command(alias = "t", infer_subcommands = true, after_help = tunnel::EXAMPLES)]
    Tunnel {
        #[command(subcommand)]
        verb: Option<tunnel::Verb>,
    },
    /// Add, change, delete and show tunnels by the words of `ip link`
    #[command(alias = "l", infer_subcommands = true, after_help = link::EXAMPLES)]
    Link {
        #[command(subcommand)]
        verb: Option<link::Verb>,
    },
    /// Show the interfaces that packets are forwarded between
    #[command(infer_subcommands = true, after_help = port::EXAMPLES)]
    Port {
        #[command(subcommand)]
        verb: Option<port::Verb>,
    },
    /// Check a config file, without a daemon
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    /// Make tunnels and ports as a config file says: all of it, or nothing
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::Apply),
    /// Write the tunnels as they are into the config file
    #[command(after_help = save::EXAMPLES)]
    Save(save::Save),
    /// Print tunnels of systemd-networkd as tables for the config file
    #[command(after_help = import::EXAMPLES)]
    Import(import::Import),
    /// Find what is in the way of the traffic, and say what mends it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Doctor),
    /// Show counters: packets, bytes, and drops with their reasons
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::Stats),
}

impl Cli {
    /// Reads the command line, and takes iproute2's `-json`, `-stats`... for what they are there.
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Self {
        Self::parse_from(args.map(output::iproute2_option))
    }

    pub fn execute(self) -> Result<(), Failure> {
        let output = self.output;
        match self.object {
            Object::Run(run) => run.execute(),
            Object::Tunnel { verb } => tunnel::execute(verb.unwrap_or_default(), output),
            Object::Link { verb } => link::execute(verb.unwrap_or_default(), output),
            Object::Port { verb } => port::execute(verb.unwrap_or_default(), output),
            Object::Check(check) => check.execute(output),
            Object::Apply(apply) => apply.execute(output),
            Object::Save(save) => save.execute(),
            Object::Import(import) => import.execute(),
            Object::Doctor(doctor) => doctor.execute(output),
            Object::Stats(stats) => stats.execute(output),
        }
    }
}

/// Talks to the daemon of this network namespace.
fn with_daemon<T>(talk: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>) -> Result<T, Failure> {
    let socket = Instance::current()?.socket;
    runtime()?.block_on(async { talk(&mut Client::connect(&socket).await?).await })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
