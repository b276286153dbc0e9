//! `xgre tunnel`: in iproute2's words, printed in iproute2's shape with what xgre adds after it.

mod iproute2;
mod json;
mod probe;
mod show;

use clap::Subcommand;
use nix::net::if_::if_nametoindex;

pub(super) use self::{iproute2::Columns, json::Own, show::own_lines};
pub use self::{
    json::json,
    probe::{Probed, json as probe_json, text as probe_text},
    show::text,
};
use super::{
    Clock, Failure, Output,
    output::{Family, print},
    usage, with_daemon,
    words::{self, Filter, Grammar, shortens},
};
use crate::{
    config::nearest,
    control::{
        api::{self, TunnelSpec},
        client::{Client, ClientError},
    },
    model::Tunnel,
    report::TunnelInfo,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a tunnel and its device
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// As `ip tunnel add` takes them, in any order:
        /// NAME mode { gre | ip6gre | gretap | ip6gretap } remote ADDR local ADDR [ dev IF ] [ ttl TTL ] [ tos TOS ]
        /// [ [i|o]key KEY ] [ [i|o]csum ] [ [i|o]seq ] [ seq-mode { linux | rfc2890 } ]
        /// [ [no]pmtudisc ] [ [no]ignore-df ] [ encaplimit ELIM ] [ flowlabel LABEL ] [ mss MSS ]
        /// [ netfilter { respect | bypass } ]
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Change the options of a tunnel; its device stays
    #[command(after_help = CHANGE_EXAMPLES)]
    Change {
        /// NAME and words of `xgre tunnel add`, or one of [ no[i|o]key ] [ no[i|o]csum ]
        /// [ no[i|o]seq ] to turn off what is on; or NAME seq reset
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Delete a tunnel and its device
    #[command(alias = "del", after_help = DELETE_EXAMPLES)]
    Delete {
        #[arg(value_name = "NAME")]
        words: Vec<String>,
    },
    /// Show all tunnels or some, as `ip tunnel show` does, and whether each is accelerated
    #[command(aliases = ["list", "lst"], after_help = SHOW_EXAMPLES)]
    Show {
        /// A name, or words of `xgre tunnel add` that a tunnel must fit
        #[arg(value_name = "WORDS")]
        words: Vec<String>,
    },
    /// See whether IPv6 packets of 1280 bytes pass through a tunnel and back
    #[command(after_help = probe::EXAMPLES)]
    Probe(probe::Probe),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// For what is mistyped.
const VERBS: [&str; 5] = ["add", "change", "delete", "show", "probe"];
/// iproute2's, of tunnels of other modes.
const OTHER_VERBS: [&str; 2] = ["prl", "6rd"];

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
  ADDR is an address of IPv4 for gre and gretap and of IPv6 for the others, or any (the default; a
    tunnel of Ethernet, gretap or ip6gretap, takes a remote)
  IF is the interface that the tunnel is bound to
  TTL (or hoplimit) is 1..255 or inherit: the inner packet's; the default is inherit over IPv4 and
    64 over IPv6
  TOS (or tclass) is 00..ff (hexadecimal), a name such as EF, inherit, or inherit/TOS
  KEY is a number or a dotted quad; both ends must agree
  csum adds checksums and requires them; seq numbers packets and drops those out of sequence
  seq-mode rfc2890 takes packets without a number, which linux (the default) drops
  nopmtudisc leaves Don't Fragment out of the outer packet; it takes `ttl inherit`
  ignore-df does so whatever the inner packet says; it takes nopmtudisc
  ELIM is 0..255 or none (the default), LABEL 00000..fffff (hexadecimal) or inherit; both over IPv6
  MSS is what passing TCP connections are lowered to: bytes, auto (what fits), or off (the default)

Examples:
  xgre tunnel add tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196 ttl 245
  xgre tunnel add tunnel1 mode gre remote 10.56.88.66 local 192.168.22.196 key 0.0.0.43 csum seq
  xgre tunnel add tunnel6 mode ip6gre remote 2001:db8::2 local 2001:db8::1 mss auto
  ip address add 172.16.168.1/30 dev tunnel0 && ip link set tunnel0 up";

const CHANGE_EXAMPLES: &str = "\
Examples:
  xgre tunnel change tunnel0 key 42
  xgre tunnel change tunnel0 nokey csum remote 10.56.88.67
  xgre tunnel change tunnel0 seq reset      sequence numbers start anew, both ways";

const DELETE_EXAMPLES: &str = "\
Examples:
  xgre tunnel delete tunnel0
  xgre t d tunnel0";

const SHOW_EXAMPLES: &str = "\
Examples:
  xgre tunnel show
  xgre -s tunnel show tunnel0               with counters
  xgre -6 tunnel show                       those over IPv6
  xgre tunnel show remote 10.56.88.66 key 42
  xgre -j -p tunnel show                    as JSON";

pub(super) fn execute(verb: Verb, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Add { words } => add(&words::tunnel_of_family(&words, output.family)?),
        Verb::Change { words } => change(&words, output.family),
        Verb::Delete { words } => delete(&words, output.family),
        Verb::Show { words } => show(&words, output),
        Verb::Probe(probe) => probe.execute(output),
        Verb::Other(words) => Err(unknown(&words, output.family)),
    }
}

fn unknown(words: &[String], family: Family) -> Failure {
    let word = words.first().map_or("", String::as_str);
    if shortens(word, "help") {
        return usage::tunnel(family == Family::Inet6);
    }
    if OTHER_VERBS.contains(&word) {
        return Failure::senseless(format!(
            "\"{word}\" is of tunnels that xgre does not do: use `ip tunnel {word}`"
        ));
    }
    usage::verb("tunnel", word, nearest(word, &VERBS))
}

fn add(tunnel: &Tunnel) -> Result<(), Failure> {
    find_device(tunnel, Grammar::Tunnel)?;
    with_daemon(async |daemon| {
        let added = daemon.add_tunnel(tunnel).await;
        added.map_err(|error| failed("add", &tunnel.name, error))
    })
}

fn change(words: &[String], family: Family) -> Result<(), Failure> {
    if let Some(name) = words::sequence_reset(words)? {
        return with_daemon(async |daemon| {
            let reset = daemon.reset_sequence(&name).await;
            reset.map_err(|error| failed("change", &name, error))
        });
    }
    let Some(name) = words::name(words, family)? else {
        return Err(Failure::refused("which tunnel? xgre tunnel change NAME key 42"));
    };
    with_daemon(async |daemon| {
        let found = named(daemon, &name).await?;
        let Some(tunnel) = found else { return Err(failed("get", &name, no_such_tunnel(&name))) };
        let tunnel = words::change(words, &tunnel)?;
        find_device(&tunnel, Grammar::Tunnel)?;
        let changed = daemon.change_tunnel(&name, &tunnel).await;
        changed.map_err(|error| failed("change", &name, error))
    })
}

/// A tunnel as it is, for a change to start from.
pub(super) async fn named(daemon: &mut Client, name: &str) -> Result<Option<Tunnel>, ClientError> {
    let tunnels = daemon.tunnels().await?;
    let found = tunnels.iter().find(|tunnel| tunnel.name == name);
    let tunnel = found.map(|info| Tunnel::try_from(TunnelSpec::from(info)));
    tunnel.transpose().map_err(ClientError::Refused)
}

pub(super) fn no_such_tunnel(name: &str) -> ClientError {
    ClientError::Refused(api::Error::NoSuchTunnel { name: name.to_owned() })
}

fn delete(words: &[String], family: Family) -> Result<(), Failure> {
    let Some(name) = words::name(words, family)? else {
        return Err(Failure::refused("which tunnel? xgre tunnel delete NAME"));
    };
    with_daemon(async |daemon| {
        let deleted = daemon.delete_tunnel(&name).await;
        deleted.map_err(|error| failed("delete", &name, error))
    })
}

/// As iproute2, so that a mistyped interface is noticed; the config file may name one to come.
pub(super) fn find_device(tunnel: &Tunnel, grammar: Grammar) -> Result<(), Failure> {
    match &tunnel.dev {
        Some(dev) if if_nametoindex(dev.as_str()).is_err() => {
            let text = format!("Cannot find device \"{dev}\"\n`ip link` lists the interfaces");
            Err(match grammar {
                Grammar::Tunnel => Failure::refused(text),
                Grammar::Link => Failure::senseless(text),
            })
        }
        _ => Ok(()),
    }
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
    let filter = Filter::parse(words)?;
    let counted = output.statistics > 0;
    let (mut tunnels, stats) = with_daemon(async |daemon| {
        let tunnels = of_family(daemon.tunnels().await?, output.family);
        Ok((tunnels, if counted { Some(daemon.stats().await?) } else { None }))
    })?;
    tunnels.retain(|info| {
        match Tunnel::try_from(TunnelSpec::from(info)) {
            Ok(tunnel) => filter.chooses(info, &tunnel),
            // The kernel's own may be what one of ours cannot.
            Err(_) => filter.name().is_none_or(|name| name == info.name),
        }
    });
    if let Some(name) = filter.name().filter(|_| tunnels.is_empty()) {
        return Err(does_not_exist(name));
    }
    let stats = stats.as_ref();
    print(&if output.json {
        output.json(&json(&tunnels, stats))?
    } else {
        let line = |tunnel| {
            output.lines(text(std::slice::from_ref(tunnel), stats, Clock::local(), output.paint()))
        };
        tunnels.iter().map(line).collect()
    })?;
    Ok(())
}

/// iproute2's words.
pub(super) fn does_not_exist(name: &str) -> Failure {
    let hint = match if_nametoindex(name) {
        Ok(_) => {
            format!("\nit is no tunnel of xgre's that fits: `ip link show {name}` shows the device")
        }
        Err(_) => String::new(),
    };
    Failure::refused(format!("Device \"{name}\" does not exist.{hint}"))
}

/// Those that `-4` or `-6` asks for.
pub(super) fn of_family(mut tunnels: Vec<TunnelInfo>, family: Family) -> Vec<TunnelInfo> {
    tunnels.retain(|tunnel| match family {
        Family::Any => true,
        Family::Inet => !iproute2::is_over_ipv6(tunnel),
        Family::Inet6 => iproute2::is_over_ipv6(tunnel),
    });
    tunnels
}
