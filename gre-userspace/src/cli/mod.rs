//! The command line: iproute2's words where iproute2 has them. `xgre run` is the daemon, every
//! other verb a client of it.

mod adopt;
mod apply;
mod check;
mod clock;
mod doctor;
mod dsfield;
mod failure;
mod generate;
mod import;
mod link;
mod mismatch;
mod output;
mod port;
mod run;
mod save;
mod stats;
mod teardown;
mod tunnel;
mod usage;
mod words;

use std::ffi::OsString;

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use self::{
    clock::Clock,
    doctor::text as doctor_text,
    failure::Failure,
    link::{Device, json as links_json, text as links_text},
    output::{Colour, Family, Output, Paint},
    port::text as ports_text,
    stats::{Sample, text as stats_text},
    tunnel::{Probed, json as tunnels_json, probe_json, probe_text, text as tunnels_text},
    words::{Filter, change as change_of_words, link as link_of_words, tunnel as tunnel_of_words},
};
use crate::{config::nearest, control::client::Client, instance::Instance};

/// Forwards GRE at line rate.
#[derive(Debug, Parser)]
#[command(name = "xgre", version, infer_subcommands = true, after_help = EXAMPLES)]
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
  xgre adopt all                   the tunnels that `ip tunnel` made

  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196

The words are those of `ip tunnel` and `ip link`, and may be shortened as there: `xgre t a`,
`xgre tu sh`.";

#[derive(Debug, Subcommand)]
enum Object {
    /// Run the daemon in the foreground; it needs root
    Run(run::Run),
    /// Add, change, delete and show tunnels
    #[command(
        aliases = ["t", "tunl"], infer_subcommands = true, disable_help_subcommand = true,
        after_help = tunnel::EXAMPLES
    )]
    Tunnel {
        #[command(subcommand)]
        verb: Option<tunnel::Verb>,
    },
    /// Add, change, delete and show tunnels by the words of `ip link`
    #[command(
        alias = "l", infer_subcommands = true, disable_help_subcommand = true,
        after_help = link::EXAMPLES
    )]
    Link {
        #[command(subcommand)]
        verb: Option<link::Verb>,
    },
    /// Accelerate GRE devices of the kernel's own, which stay what they are
    #[command(after_help = adopt::EXAMPLES)]
    Adopt(adopt::Adopt),
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
    /// Remove what a daemon that has ended left forwarding: tunnels, programs, maps
    #[command(after_help = teardown::EXAMPLES)]
    Teardown(teardown::Teardown),
    /// Write man pages and shell completions into a directory, for a package
    #[command(hide = true)]
    Generate(generate::Generate),
    /// Find what is in the way of the traffic, and say what mends it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Doctor),
    /// Show counters: packets, bytes, and drops with their reasons
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::Stats),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// For what is mistyped.
const OBJECTS: [&str; 10] =
    ["run", "tunnel", "link", "adopt", "port", "check", "apply", "save", "import", "stats"];

impl Cli {
    /// Reads the command line, and takes iproute2's `-json`, `-stats`... for what they are there.
    ///
    /// # Errors
    /// On an option that there is not, in iproute2's words. Help, and what else is wrong, clap prints
    /// and exits.
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let args = output::iproute2_options(args);
        Self::try_parse_from(&args).map_err(|error| {
            match (error.kind(), error.get(ContextKind::InvalidArg)) {
                (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) => {
                    // Of a word behind one dash clap knows the first letter only.
                    let words = args.iter().filter_map(|arg| arg.to_str());
                    let mut meant = words.filter(|arg| arg.starts_with(option.as_str()));
                    usage::option(meant.next().unwrap_or(option))
                }
                _ => error.exit(),
            }
        })
    }

    pub fn execute(self) -> Result<(), Failure> {
        let output = self.output;
        match self.object {
            Object::Run(run) => run.execute(),
            Object::Tunnel { verb } => tunnel::execute(verb.unwrap_or_default(), output),
            Object::Link { verb } => link::execute(verb.unwrap_or_default(), output),
            Object::Adopt(adopt) => adopt.execute(output),
            Object::Port { verb } => port::execute(verb.unwrap_or_default(), output),
            Object::Check(check) => check.execute(output),
            Object::Apply(apply) => apply.execute(output),
            Object::Save(save) => save.execute(),
            Object::Import(import) => import.execute(),
            Object::Teardown(teardown) => teardown.execute(output),
            Object::Generate(generate) => generate.execute(),
            Object::Doctor(doctor) => doctor.execute(output),
            Object::Stats(stats) => stats.execute(output),
            Object::Other(words) => {
                let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
                Err(usage::object(&word, nearest(&word, &OBJECTS)))
            }
        }
    }
}

/// Talks to the daemon of this network namespace.
fn with_daemon<T>(talk: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>) -> Result<T, Failure> {
    let socket = Instance::current()?.socket;
    runtime()?.block_on(async { talk(&mut Client::connect(&socket).await?).await })
}

/// Refuses a verb to others than root, saying what root is needed for.
fn require_root(why: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Failure::refused(why)) }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
