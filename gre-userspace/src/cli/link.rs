//! `xgre link`: what `ip link` does for GRE devices. Everything else about them is `ip link`'s own.

use clap::Subcommand;

use super::{Failure, Output, tunnel, words};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a tunnel and its device
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// As `ip link add` takes them:
        /// [ name ] NAME [ mtu MTU ] type { gre | ip6gre | gretap | ip6gretap } remote ADDR local ADDR
        /// and the other words of `xgre tunnel add`
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Change the options of a tunnel; its device stays
    #[command(alias = "set")]
    Change {
        /// NAME type TYPE and words of `xgre tunnel change`
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Delete a tunnel and its device
    #[command(alias = "del")]
    Delete {
        /// [ dev ] NAME [ type TYPE ]
        #[arg(value_name = "NAME")]
        words: Vec<String>,
    },
    /// Show all tunnels or one, as `xgre tunnel show` does
    #[command(aliases = ["list", "lst"])]
    Show {
        /// [ dev ] NAME [ type TYPE ]
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
  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196 ttl 255 nopmtudisc
  ip link set gretap1 up
  ip link set gretap1 master br0
  xgre link delete gretap1";

const ADD_EXAMPLES: &str = "\
Where:
  gre and ip6gre carry IP, gretap and ip6gretap Ethernet frames, as a port of a bridge does;
  gre and gretap run over IPv4, ip6gre and ip6gretap over IPv6
  MTU is the device's; by default what the underlay leaves
  `xgre tunnel add --help` explains the other words

Examples:
  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196 ttl 255 nopmtudisc
  xgre link add name tap6 type ip6gretap remote 2001:db8::2 local 2001:db8::1 key 42";

pub(super) fn execute(verb: Verb, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Add { words } => tunnel::make(&words::link(&words)?),
        Verb::Change { words } => tunnel::change(&words::of_link(&words)),
        Verb::Delete { words } => tunnel::delete(&words::of_link(&words)),
        Verb::Show { words } => tunnel::show(&words::of_link(&words), output),
    }
}
