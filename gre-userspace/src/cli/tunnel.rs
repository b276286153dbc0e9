//! `xgre tunnel`: in iproute2's words, printed in iproute2's shape with what xgre adds after it.

mod show;

use clap::Subcommand;

pub use self::show::{json, text};
use super::{
    Failure, Output,
    output::{colour, print},
    with_daemon, words,
};
use crate::control::client::ClientError;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a tunnel and its device
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// As `ip tunnel add` takes them, in any order:
        /// NAME mode gre remote ADDR local ADDR [ ttl TTL ] [ tos TOS ] [ key KEY ] [ [no]pmtudisc ]
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Delete a tunnel and its device
    #[command(alias = "del", after_help = DELETE_EXAMPLES)]
    Delete {
        #[arg(value_name = "NAME")]
        words: Vec<String>,
    },
    /// Show all tunnels or one, as `ip tunnel show` does, and whether each is accelerated
    #[command(aliases = ["list", "lst"], after_help = SHOW_EXAMPLES)]
    Show {
        #[arg(value_name = "NAME")]
        words: Vec<String>,
    },
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { words: Vec::new() }
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre tunnel add tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196 ttl 245 key 42
  xgre tunnel show
  xgre tunnel delete tunnel0";

const ADD_EXAMPLES: &str = "\
Where:
  TTL is 1..255 or inherit (the default): the inner packet's
  TOS is 00..ff (hexadecimal), a name such as EF, inherit, or inherit/TOS
  KEY is a number or a dotted quad; both ends must agree
  nopmtudisc leaves Don't Fragment out of the outer packet; it takes `ttl inherit`

Examples:
  xgre tunnel add tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196 ttl 245
  xgre tunnel add tunnel1 mode gre remote 10.56.88.66 local 192.168.22.196 key 0.0.0.43 tos EF
  ip address add 172.16.168.1/30 dev tunnel0 && ip link set tunnel0 up";

const DELETE_EXAMPLES: &str = "\
Examples:
  xgre tunnel delete tunnel0
  xgre t d tunnel0";

const SHOW_EXAMPLES: &str = "\
Examples:
  xgre tunnel show
  xgre -s tunnel show tunnel0               with counters
  xgre -j -p tunnel show                    as JSON";

pub(super) fn execute(verb: Verb, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Add { words } => add(&words),
        Verb::Delete { words } => delete(&words),
        Verb::Show { words } => show(&words, output),
    }
}

fn add(words: &[String]) -> Result<(), Failure> {
    let tunnel = words::tunnel(words)?;
    with_daemon(async |daemon| {
        let added = daemon.add_tunnel(&tunnel).await;
        added.map_err(|error| failed("add", &tunnel.name, error))
    })
}

fn delete(words: &[String]) -> Result<(), Failure> {
    let Some(name) = words::name(words)? else {
        return Err(Failure::refused("which tunnel? xgre tunnel delete NAME"));
    };
    with_daemon(async |daemon| {
        let deleted = daemon.delete_tunnel(&name).await;
        deleted.map_err(|error| failed("delete", &name, error))
    })
}

/// iproute2's line for what was refused; the error's second line says more.
fn failed(verb: &str, name: &str, error: ClientError) -> Failure {
    match error {
        ClientError::Refused(error) => {
            Failure::refused(format!("{verb} tunnel \"{name}\" failed: {error}"))
        }
        error => error.into(),
    }
}

fn show(words: &[String], output: Output) -> Result<(), Failure> {
    let name = words::name(words)?;
    let counted = output.statistics > 0;
    let (mut tunnels, stats) = with_daemon(async |daemon| {
        let tunnels = daemon.tunnels().await?;
        Ok((tunnels, if counted { Some(daemon.stats().await?) } else { None }))
    })?;
    if let Some(name) = name {
        tunnels.retain(|tunnel| tunnel.name == name);
        if tunnels.is_empty() {
            return Err(Failure::refused(format!("Device \"{name}\" does not exist.")));
        }
    }
    let stats = stats.as_ref();
    print(&if output.json {
        output.json(&json(&tunnels, stats))?
    } else {
        text(&tunnels, stats, colour())
    })?;
    Ok(())
}
